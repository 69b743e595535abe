"""launch/*.launch.py: their arguments, and the processes they would start."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros", reason="launch_ros is not in the ROS 2 wheels; every ROS 2 machine has it")

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteLocal,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
)
from launch.utilities import perform_substitutions
from launch_ros.actions import LifecycleNode, Node

FOLDER = Path(__file__).resolve().parent.parent / "launch"
NODE_DEFAULTS = {
    "params_file": "lerf.yaml",
    "parameters": "{}",
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


def entities(description: LaunchDescription, **arguments: str) -> tuple[LaunchContext, list]:
    """All of a launch file with these arguments, functions called, and the context with their values."""
    context = LaunchContext()
    context.launch_configurations.update(arguments)
    found = []
    for entity in description.entities:
        if type(entity) is DeclareLaunchArgument:
            entity.execute(context)
        found += (entity.execute(context) or []) if type(entity) is OpaqueFunction else [entity]
    return context, found


def the(kind: type, found: list):
    (entity,) = (entity for entity in found if type(entity) is kind)
    return entity


@pytest.fixture
def command_line(monkeypatch):
    """(launch file, kind of action, arguments) -> what would be executed."""

    def of(name: str, kind: type, **arguments: str) -> list[str]:
        context, found = entities(described(name), **arguments)
        command: list[str] = []

        def execute(self, context):
            command.extend(perform_substitutions(context, part) for part in self.cmd)

        monkeypatch.setattr(ExecuteLocal, "execute", execute)
        Node.execute(the(kind, found), context)
        return command

    return of


def parameters_of(command: list[str]) -> dict[str, object]:
    """What the parameter files of a command line say together, the last one wins."""
    merged = {}
    for i, part in enumerate(command):
        if part == "--params-file":
            for node in yaml.full_load(Path(command[i + 1]).read_text()).values():
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
    _, found = entities(described(name), map="a")
    kinds = [type(entity) for entity in found]
    assert kinds.count(LifecycleNode) == 1 and kinds.count(Node) == 1
    assert kinds.count(RegisterEventHandler) == 3  # configure, activate, complain
    declared = [index for index, kind in enumerate(kinds) if kind is DeclareLaunchArgument]
    assert max(declared) < kinds.index(RegisterEventHandler) < kinds.index(LifecycleNode)


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lerf:\n  ros__parameters:\n    preset: cpu\n    training.enabled: true\n    pose.source: pose\n")
    return str(path)


def test_node_is_started_with_the_arguments(command_line, mine):
    chosen = {"image": "/eye/image", "namespace": "robot", "params_file": mine, "log_level": "debug"}
    ours = "{pose.source: tf, pose.xyz: [0.1, 0.0, 0.5]}"
    command = command_line("train", LifecycleNode, use_sim_time="true", parameters=ours, **chosen)
    assert command[0].endswith("lib/lerf_ros/lerf_node")
    assert {"__node:=lerf", "__ns:=/robot", mine} <= set(command)
    assert {"~/image:=/eye/image", "~/pose:=/camera/pose"} <= set(command)
    assert command[command.index("--log-level") + 1] == "debug"
    wanted = {"preset": "cpu", "training.enabled": True, "use_sim_time": True}
    assert parameters_of(command) == wanted | {"pose.source": "tf", "pose.xyz": (0.1, 0.0, 0.5)}


def test_a_node_that_only_answers(command_line, mine):
    ours = "{training.enabled: true, preset: base}"
    command = command_line(
        "query", LifecycleNode, map="2026", params_file=mine, parameters=ours
    )  # a name like a number
    wanted = {"training.enabled": False, "map.load": True, "map.path": "2026", "use_sim_time": False}
    assert parameters_of(command) == wanted | {"preset": "base", "pose.source": "pose"}
    assert not [part for part in command if part.startswith("~/")]


@pytest.mark.parametrize("text", ["pose.source", "{pose.source: tf", "[a]"])
def test_parameters_that_cannot_be_read_are_shown(text):
    with pytest.raises(RuntimeError, match=re.escape(f"parameters:={text}")):
        entities(described("train"), parameters=text)


def test_demo_has_a_camera_for_the_node(command_line):
    command = command_line("demo", Node, namespace="robot", source="room:7", rate="2")
    assert command[0].endswith("lib/lerf_ros/camera_node")
    wanted = {"source": "room:7", "rate": 2.0, "pace": "consumed", "consumer": "robot/lerf"}
    assert parameters_of(command) == wanted
    assert the(IncludeLaunchDescription, described("demo").entities)


@pytest.mark.parametrize("name", ["train", "query"])
@pytest.mark.parametrize("wanted", ["true", "false"])
def test_rviz_is_a_choice(name, wanted):
    context, found = entities(described(name), map="a", rviz=wanted)
    assert the(Node, found).condition.evaluate(context) == (wanted == "true")
