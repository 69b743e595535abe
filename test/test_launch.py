"""launch/*.launch.py: their arguments, and the processes they would start."""

import importlib.util
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros", reason="launch_ros is not in the ROS 2 wheels; every ROS 2 machine has it")

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteLocal, IncludeLaunchDescription, RegisterEventHandler
from launch.utilities import perform_substitutions
from launch_ros.actions import LifecycleNode, Node

FOLDER = Path(__file__).resolve().parent.parent / "launch"
NODE_DEFAULTS = {
    "params_file": "lerf.yaml",
    "namespace": "",
    "use_sim_time": "false",
    "log_level": "info",
    "rviz": "false",
}
INPUT_DEFAULTS = {
    "image": "/camera/image",
    "camera_info": "/camera/camera_info",
    "depth": "/camera/depth",
    "pose": "/camera/pose",
}
DEFAULTS = {
    "train": INPUT_DEFAULTS | NODE_DEFAULTS,
    "query": {"map": None} | NODE_DEFAULTS,
    "demo": {"source": "room:2026", "rate": "5.0"} | INPUT_DEFAULTS | NODE_DEFAULTS,
}


def described(name: str) -> LaunchDescription:
    specification = importlib.util.spec_from_file_location(f"{name}_launch", FOLDER / f"{name}.launch.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.generate_launch_description()


def the(kind: type, description: LaunchDescription):
    (entity,) = (entity for entity in description.entities if type(entity) is kind)
    return entity


@pytest.fixture
def command_line(monkeypatch):
    """(action, description, arguments) -> what would be executed."""

    def of(action: Node, description: LaunchDescription, **arguments: str) -> list[str]:
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

    return of


def parameters_of(command: list[str]) -> dict[str, object]:
    """What the parameter files of a command line say together, the last one wins."""
    merged = {}
    for i, part in enumerate(command):
        if part == "--params-file":
            for node in yaml.safe_load(Path(command[i + 1]).read_text()).values():
                merged |= node["ros__parameters"]
    return merged


def test_every_launch_file_is_tested():
    assert set(DEFAULTS) == {path.name.partition(".")[0] for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", DEFAULTS)
def test_arguments_and_their_defaults(name):
    arguments = {argument.name: argument for argument in described(name).get_launch_arguments()}
    assert set(arguments) == set(DEFAULTS[name])
    context = LaunchContext()
    for argument, default in DEFAULTS[name].items():
        assert arguments[argument].description
        if default is None:
            assert arguments[argument].default_value is None
        else:
            assert perform_substitutions(context, arguments[argument].default_value).endswith(default)


@pytest.mark.parametrize("name", ["train", "query"])
def test_entities(name):
    kinds = [type(entity) for entity in described(name).entities]
    assert kinds.count(LifecycleNode) == 1 and kinds.count(Node) == 1
    assert kinds.count(RegisterEventHandler) == 3  # configure, activate, complain
    declared = [index for index, kind in enumerate(kinds) if kind is DeclareLaunchArgument]
    assert max(declared) < kinds.index(RegisterEventHandler) < kinds.index(LifecycleNode)


def test_node_is_started_with_the_arguments(command_line, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("lerf:\n  ros__parameters:\n    preset: cpu\n")
    chosen = {"image": "/eye/image", "namespace": "robot", "params_file": str(parameters), "log_level": "debug"}
    description = described("train")
    command = command_line(the(LifecycleNode, description), description, use_sim_time="true", **chosen)
    assert command[0].endswith("lib/lerf_ros/lerf_node")
    assert {"__node:=lerf", "__ns:=/robot", str(parameters)} <= set(command)
    assert {"~/image:=/eye/image", "~/pose:=/camera/pose"} <= set(command)
    assert command[command.index("--log-level") + 1] == "debug"
    assert parameters_of(command) == {"preset": "cpu", "use_sim_time": True}


def test_a_node_that_only_answers(command_line, tmp_path):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("lerf:\n  ros__parameters:\n    training.enabled: true\n    preset: cpu\n")
    description = described("query")
    command = command_line(
        the(LifecycleNode, description), description, map="2026", params_file=str(parameters)
    )  # a name that YAML takes for a number
    wanted = {"training.enabled": False, "map.load": True, "map.path": "2026", "use_sim_time": False, "preset": "cpu"}
    assert parameters_of(command) == wanted
    assert not [part for part in command if part.startswith("~/")]


def test_demo_has_a_camera_for_the_node(command_line):
    description = described("demo")
    command = command_line(the(Node, description), description, namespace="robot", source="room:7", rate="2")
    assert command[0].endswith("lib/lerf_ros/camera_node")
    wanted = {"source": "room:7", "rate": 2.0, "pace": "consumed", "consumer": "robot/lerf"}
    assert parameters_of(command) == wanted
    assert the(IncludeLaunchDescription, description)


@pytest.mark.parametrize("name", ["train", "query"])
@pytest.mark.parametrize("wanted", ["true", "false"])
def test_rviz_is_a_choice(name, wanted):
    context = LaunchContext()
    context.launch_configurations["rviz"] = wanted
    assert the(Node, described(name)).condition.evaluate(context) == (wanted == "true")
