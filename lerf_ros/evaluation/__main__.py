"""python -m lerf_ros.evaluation: see `command.py`."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: its threads must not spin while others need the CPU
from lerf_ros.evaluation.command import main  # noqa: E402

if __name__ == "__main__":  # processes of a run import this module as well
    raise SystemExit(main())
