"""`ros2 launch` with its processes, included in a user's launch file; the node as `ros2 lifecycle` and `ros2 param`
see it; an end for every process at SIGINT."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time

import pytest
import yaml

pytest.importorskip("launch_ros", reason="launch_ros is not in the ROS 2 wheels; every ROS 2 machine has it")
pytest.importorskip("ros2launch", reason="needs the command ros2 launch")

from lerf_ros.ros.client import LerfClient  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
TIMEOUT = 120.0  # s, for a loaded machine
THEIR_LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    ours = PathJoinSubstitution([FindPackageShare("lerf_ros"), "launch", "{file}.launch.py"])
    return LaunchDescription([IncludeLaunchDescription(ours, launch_arguments={arguments}.items())])
"""


@pytest.fixture
def launched(processes, tmp_path, tiny):
    """(launch file of ours, arguments) -> the process of `ros2 launch` that includes it."""
    values = dict(parameter.split(":=", 1) for parameter in tiny)
    parameters = {name: yaml.safe_load(value) for name, value in values.items()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))

    def launch(file, **arguments):
        arguments = {"namespace": "robot", "params_file": str(tmp_path / "tiny.yaml")} | arguments
        theirs = tmp_path / f"their_{file}.launch.py"
        theirs.write_text(THEIR_LAUNCH_FILE.format(file=file, arguments=json.dumps(arguments)))
        return processes.run(file, ["ros2", "launch", str(theirs)])

    return launch


def ended(launch: subprocess.Popen) -> str:
    """Its output after SIGINT: every process that it started has ended by itself."""
    launch.send_signal(signal.SIGINT)
    assert launch.wait(TIMEOUT) == 0
    output = launch.log.read_text()
    started = re.findall(r"\[(\w+-\d)\]: process started", output)
    assert started and sorted(started) == sorted(re.findall(r"\[(\w+-\d)\]: process has finished cleanly", output))
    return output


def ros2(topic: str, verb: str, *arguments: str) -> str:
    """What the command says about /robot/lerf. It looks for it half a second only: again, where that was too short."""
    command = ["ros2", topic, verb, "--no-daemon", "/robot/lerf", *arguments]
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
        if "Node not found" not in run.stdout + run.stderr:
            return run.stdout + run.stderr
    raise AssertionError(f"{' '.join(command)} found no node")


def test_a_map_is_made_by_one_launch_file_and_asked_by_another(launched, recording, tmp_path):
    demo = launched("demo", source=str(recording), rate="100.0")
    with LerfClient("/robot/lerf", timeout=TIMEOUT) as client:
        status = client.wait_for_status(lambda status: status.steps > 0 and status.pyramid_progress == 1)
        assert status.state == "active" and status.keyframes
        assert client.save_map(str(tmp_path / "map")).success

        assert ros2("lifecycle", "get").startswith("active")
        assert "successful" in ros2("lifecycle", "set", "deactivate")
        assert client.state() == "inactive"
        assert "successful" in ros2("lifecycle", "set", "cleanup")
        assert "successful" in ros2("lifecycle", "set", "configure")
        assert "successful" in ros2("param", "set", "query.max_targets", "2")
        assert "Max: 1000" in ros2("param", "set", "query.max_targets", "0")
        assert "is: 2" in ros2("param", "get", "query.max_targets")
        assert client.state() == "inactive"  # launch activates once, and not behind the user's back
    ended(demo)

    query = launched("query", map=str(tmp_path / "map"))
    with LerfClient("/robot/lerf", timeout=TIMEOUT) as client:
        loaded = client.wait_for_status(lambda status: status.state == "active")
        assert loaded.message == "answering; training.enabled is false"
        assert loaded.keyframes >= status.keyframes  # of when it was saved
        answer = client.query("a chair")
        assert answer.success or "the map is young" in answer.message
    ended(query)


def test_what_cannot_be_configured_is_said(launched, tmp_path):
    query = launched("query", map=str(tmp_path / "nothing"))
    with LerfClient("/robot/lerf", timeout=TIMEOUT) as client:
        client.wait_for_status(lambda status: "could not be configured" in query.log.read_text())
        assert client.state() == "unconfigured"
    assert str(tmp_path / "nothing") in ended(query)
