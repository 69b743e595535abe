"""launch/train.launch.py: its arguments, and the process it would start."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is not in the ROS 2 wheels; every ROS 2 machine has it")

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteLocal, RegisterEventHandler
from launch.utilities import perform_substitutions
from launch_ros.actions import LifecycleNode, Node

FILE = Path(__file__).resolve().parent.parent / "launch" / "train.launch.py"
DEFAULTS = {
    "image": "/camera/image",
    "camera_info": "/camera/camera_info",
    "depth": "/camera/depth",
    "pose": "/camera/pose",
    "params_file": "lerf.yaml",
    "namespace": "",
    "use_sim_time": "false",
    "log_level": "info",
    "rviz": "false",
}


@pytest.fixture
def description() -> LaunchDescription:
    specification = importlib.util.spec_from_file_location("train_launch", FILE)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.generate_launch_description()


def command_line(action: Node, description: LaunchDescription, monkeypatch, **arguments: str) -> list[str]:
    """What would be executed, with these launch arguments."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    for argument in description.get_launch_arguments():
        argument.execute(context)
    command: list[str] = []

    def execute(self, context):
        command.extend(perform_substitutions(context, part) for part in self.cmd)

    monkeypatch.setattr(ExecuteLocal, "execute", execute)
    Node.execute(action, context)
    return command


def test_arguments_and_their_defaults(description):
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == set(DEFAULTS)
    context = LaunchContext()
    for name, default in DEFAULTS.items():
        assert perform_substitutions(context, arguments[name].default_value).endswith(default)
        assert arguments[name].description


def test_entities(description):
    kinds = [type(entity) for entity in description.entities]
    assert kinds.count(LifecycleNode) == 1 and kinds.count(Node) == 1
    assert kinds.count(RegisterEventHandler) == 3  # configure, activate, complain
    declared = [index for index, kind in enumerate(kinds) if kind is DeclareLaunchArgument]
    assert max(declared) < kinds.index(LifecycleNode)


def test_node_is_started_with_the_arguments(description, tmp_path, monkeypatch):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("lerf:\n  ros__parameters:\n    preset: cpu\n")
    (node,) = (entity for entity in description.entities if type(entity) is LifecycleNode)
    chosen = {"image": "/eye/image", "namespace": "robot", "params_file": str(parameters), "log_level": "debug"}
    command = command_line(node, description, monkeypatch, **chosen)
    assert command[0].endswith("lib/lerf_ros/lerf_node")
    assert {"__node:=lerf", "__ns:=/robot", str(parameters)} <= set(command)
    assert {"~/image:=/eye/image", "~/pose:=/camera/pose"} <= set(command)
    assert command[command.index("--log-level") + 1] == "debug"


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_rviz_is_a_choice(description, wanted):
    (rviz,) = (entity for entity in description.entities if type(entity) is Node)
    context = LaunchContext()
    context.launch_configurations["rviz"] = wanted
    assert rviz.condition.evaluate(context) == (wanted == "true")
