# source tools/env.sh, in bash: the virtual environment, ROS 2 and the built workspace, in this shell.

lerf_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
lerf_venv=$lerf_root/.venv${ROS_DISTRO:+-$ROS_DISTRO} # beside a sourced ROS 2, an environment of its own

if [ ! -x "$lerf_venv/bin/python" ]; then
  echo "There is no $lerf_venv yet: run 'make build' first." >&2
  unset lerf_root lerf_venv
  return 1
fi

export PATH=$lerf_venv/bin:$PATH
if [ -z "${ROS_DISTRO:-}" ]; then
  # ROS 2 from wheels. Set afresh, not added to: a second call changes nothing. The last two keep the wheels from starting Python twice.
  lerf_site=$(echo "$lerf_venv"/lib/python3.*/site-packages)
  export AMENT_PREFIX_PATH=$lerf_venv CMAKE_PREFIX_PATH=$lerf_venv
  unset COLCON_PREFIX_PATH PYTHONPATH
  export LD_LIBRARY_PATH=$lerf_venv/lib$(printf ':%s' "$lerf_site"/ros_*.libs)${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export _ROS_WHEELS_BOOTSTRAP_COMPLETE=1
  unset lerf_site
fi

if [ -f "$lerf_root/install/local_setup.bash" ]; then
  # colcon's files read variables that may be unset
  case $- in *u*) lerf_nounset=-u ;; *) lerf_nounset=+u ;; esac
  set +u
  source "$lerf_root/install/local_setup.bash"
  set $lerf_nounset
  unset lerf_nounset
fi

unset lerf_root lerf_venv
