"""The table of parameters, the YAML file and the node agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.parameter import Parameter as RosParameter  # noqa: E402

from lerf_ros.mapping.config import PRESETS  # noqa: E402
from lerf_ros.ros import parameters as p  # noqa: E402
from lerf_ros.ros.bag_player import BAG_PARAMETERS  # noqa: E402
from lerf_ros.ros.camera_node import CAMERA_PARAMETERS  # noqa: E402
from lerf_ros.ros.declarations import Parameters  # noqa: E402
from lerf_ros.ros.pace import Limits  # noqa: E402

pytestmark = pytest.mark.ros
YAML = Path(__file__).parents[2] / "config" / "lerf.yaml"


def flat(tree: dict, prefix: str = "") -> dict:
    values = {}
    for name, value in tree.items():
        values |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return values


def test_yaml_holds_every_parameter_with_its_default_and_description():
    values = flat(yaml.safe_load(YAML.read_text())["/**"]["ros__parameters"])
    assert values == {parameter.name: parameter.default for parameter in p.LERF_PARAMETERS}
    assert {name: type(value) for name, value in values.items()} == {
        parameter.name: type(parameter.default) for parameter in p.LERF_PARAMETERS
    }
    lines = [line.strip() for line in YAML.read_text().splitlines()]
    for parameter in p.LERF_PARAMETERS:
        comment = next(line for line in lines if line.startswith(f"# {parameter.description}"))
        assert (
            lines[lines.index(comment) + 1].startswith(f"{parameter.name.rpartition('.')[2]}:")
            or lines.count(comment) > 1
        )


@pytest.fixture
def make_node():
    """Nodes with overridden parameters, in a context of their own."""
    context = rclpy.Context()
    context.init()
    nodes = []

    def make(table=p.LERF_PARAMETERS, state=str, **overrides):
        values = [RosParameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node("test", context=context, parameter_overrides=values, enable_rosout=False))
        return nodes[-1], Parameters(nodes[-1], table, state, p.LERF_CHECKS if table is p.LERF_PARAMETERS else ())

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize(
    "table", [p.LERF_PARAMETERS, CAMERA_PARAMETERS, BAG_PARAMETERS], ids=["lerf", "camera", "bag_player"]
)
def test_node_declares_the_table(make_node, table):
    node, settings = make_node(table)
    for parameter in table:
        assert settings[parameter.name] == parameter.default
        described = node.describe_parameter(parameter.name)
        assert described.description == parameter.description
        assert described.type == node.get_parameter(parameter.name).type_.value
        assert described.read_only == (parameter.read is p.Read.START)
        assert parameter.read.value in described.additional_constraints


@pytest.mark.parametrize(
    ("name", "value"), [("status__rate", 1000.0), ("keyframe__capacity", -1), ("sync__slop", "much"), ("device", 3)]
)
def test_values_out_of_range_or_of_another_type_are_refused_by_name(make_node, name, value):
    with pytest.raises(p.ParameterError, match=name.replace("__", r"\.")):
        make_node(**{name: value})


def test_unknown_choice_lists_those_allowed(make_node):
    with pytest.raises(p.ParameterError, match=r"depth\.use is 'maybe'; it can be auto, required, off"):
        make_node(depth__use="maybe")


def test_options_of_the_inputs(make_node):
    _, settings = make_node(
        sync__wait=2.0, sync__slop=0.0, map__frame="odom", sync__pose_queue=7, depth__check_frame=False
    )
    options, poses = p.assembly_options(settings), p.pose_options(settings)
    assert (options.wait, options.slop, options.same_frame) == (2.0, 0.0, False)
    assert (poses.map_frame, poses.queue) == ("odom", 7)


def test_several_cameras_have_their_own_place_and_else_what_all_have(make_node):
    _, settings = make_node(
        cameras=["front", "rear"], pose__axes="body", pose__xyz=[0.1, 0.2, 0.3], rear__pose__xyz=[-1.0, 0.0, 0.0]
    )
    assert len(settings.mistyped()) == 1
    assert p.declare_cameras(settings) == ["front", "rear"] == p.declare_cameras(settings)
    assert not settings.mistyped()
    mounts = [p.camera_mount(settings, prefix) for prefix in ("", "front.", "rear.")]
    assert [mount.T_child_camera[0, 3] for mount in mounts] == [0.1, 0.1, -1.0]
    assert {mount.axes for mount in mounts} == {"body"}
    _, settings = make_node(pose__quaternion=[0.0, 0.0, 0.0, 2.0])
    with pytest.raises(p.ParameterError, match=r"pose\.xyz, pose\.quaternion.*unit quaternion"):
        p.camera_mount(settings)
    assert p.declare_cameras(settings) == [""]


def test_mapper_config_is_the_preset_changed_where_asked(make_node):
    _, settings = make_node()
    assert p.mapper_config(settings, "cpu") == PRESETS["cpu"]
    _, settings = make_node(
        scene__radius=3.0,
        scene__center=[1.0, 2.0, 0.5],
        keyframe__capacity=7,
        training__rays=99,
        dense__model="auto",
        map__overrides=["sampling.samples = 12", "scene.far=4.5"],
    )
    config = p.mapper_config(settings, "cpu")
    assert (config.scene.radius, config.scene.center, config.scene.far) == (3.0, (1.0, 2.0, 0.5), 4.5)
    assert (config.keyframe.capacity, config.sampling.rays, config.sampling.samples) == (7, 99, 12)
    assert config.dense.model == "auto" and PRESETS["cpu"].dense.model == "none"
    assert config.keyframe.translation == PRESETS["cpu"].keyframe.translation


@pytest.mark.parametrize("override", ["sampling.samples", "no.such=1", "sampling.samples=many"])
def test_unusable_overrides_are_refused(make_node, override):
    _, settings = make_node(map__overrides=[override])
    with pytest.raises(p.ParameterError, match=r"map\.overrides"):
        p.mapper_config(settings, "cpu")


def test_query_options_take_the_request_before_the_parameters(make_node):
    _, settings = make_node(query__max_targets=4, query__min_relevancy=0.7)
    asked = p.query_options(settings, 2, 0.6, ["thing"])
    assert (asked.max_targets, asked.min_relevancy, asked.canonical_phrases) == (2, pytest.approx(0.6), ("thing",))
    default = p.query_options(settings, 0, -1.0, [])
    assert (default.max_targets, default.min_relevancy, default.canonical_phrases) == (4, 0.7, None)
    _, settings = make_node()
    assert p.query_options(settings, 0, -1.0, []).min_relevancy is None


def test_a_gpu_that_is_not_there(make_node, monkeypatch):
    monkeypatch.setattr(p.torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(p.torch.cuda, "is_available", lambda: False)
    _, settings = make_node(device="cuda")
    with pytest.raises(p.ParameterError, match="sees 0 GPUs"):
        p.torch_device(settings)
    _, settings = make_node(device="toaster")
    with pytest.raises(p.ParameterError, match="'toaster'"):
        p.torch_device(settings)
    _, settings = make_node()
    assert p.torch_device(settings).type == "cpu" and p.preset_name(settings, p.torch_device(settings)) == "cpu"


def change(node, **values):
    """Reason why these changes together are refused; empty when they are made."""
    changes = [RosParameter(name.replace("__", "."), value=value) for name, value in values.items()]
    return node.set_parameters_atomically(changes).reason


@pytest.mark.parametrize(
    ("name", "value", "state", "steps"),
    [
        ("keyframe__capacity", 9, "unconfigured", ""),
        ("keyframe__capacity", 9, "inactive", "cleanup"),
        ("keyframe__capacity", 9, "active", "deactivate, then cleanup"),
        ("sync__slop", 0.5, "inactive", ""),
        ("sync__slop", 0.5, "active", "deactivate"),
        ("query__max_targets", 2, "active", ""),
    ],
)
def test_a_change_without_effect_is_refused_with_the_way_to_make_it(make_node, name, value, state, steps):
    node, settings = make_node(state=lambda: state)
    reason = change(node, **{name: value})
    dotted = name.replace("__", ".")
    if steps:
        assert reason.startswith(f"parameter {dotted} is read when the node is ")
        assert reason.endswith(f"ros2 lifecycle set /test {steps} first")
        assert settings[dotted] != value
        assert change(node, **{name: settings[dotted]}) == ""  # nothing would change: as when a whole file is loaded
    else:
        assert reason == "" and settings[dotted] == value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"preset": "huge"}, "preset is 'huge'; it can be auto, cpu, robot, base"),
        ({"keyframe__translation": -1.0}, "keyframe.translation out of range"),
        ({"map__overrides": ["sampling.samples"]}, "'sampling.samples' is not of the form 'name=value'"),
        ({"map__overrides": ["no.such=1"]}, "map.overrides"),
        ({"device": "toaster"}, "device is 'toaster'"),
        ({"pose__quaternion": [0.0, 0.0, 0.0, 2.0]}, "unit quaternion"),
        ({"autostart": True}, "read-only"),
        ({"status__rate": "often"}, "type"),
    ],
)
def test_unusable_changes_are_refused_with_a_reason(make_node, values, words):
    node, settings = make_node()
    assert words in change(node, **values)
    assert all(settings[name.replace("__", ".")] != value for name, value in values.items())


def test_one_wrong_value_can_be_mended_while_another_is_wrong(make_node):
    node, settings = make_node(map__overrides=["no.such=1"], pose__quaternion=[0.0, 0.0, 0.0, 2.0])
    assert change(node, pose__quaternion=[0.0, 0.0, 0.0, 1.0]) == ""
    assert "other.such" in change(node, map__overrides=["other.such=1"])
    assert change(node, map__overrides=["sampling.samples=8"]) == ""
    assert p.mapper_config(settings, "cpu").sampling.samples == 8


def test_effects_see_the_new_values_and_only_their_own(make_node):
    node, settings = make_node()
    seen = []
    settings.on_change(["status.rate", "query.max_age"], lambda new: seen.append((new["status.rate"], new["map.path"])))
    assert change(node, map__path="elsewhere") == "" and seen == []
    assert change(node, status__rate=5.0, map__path="there") == "" and seen == [(5.0, "there")]
    assert change(node, status__rate=5.0) == "" and len(seen) == 1  # the same as before
    assert change(node, status__rate=6.0, preset="huge") and len(seen) == 1  # refused as a whole


def test_names_that_nothing_reads_are_named_with_the_nearest_that_exists(make_node):
    _, settings = make_node(
        keyframe__translaton=0.3,
        use_sim_time=True,
        qos_overrides__x__publisher__depth=3,
        start_type_description_service=True,
    )
    assert settings.mistyped() == [
        "parameter keyframe.translaton does not exist and has no effect: did you mean keyframe.translation?"
    ]
    assert make_node(preset="cpu")[1].mistyped() == []


def test_limits_of_training(make_node):
    _, settings = make_node(training__max_rate=5.0, training__idle_steps=7)
    assert p.training_limits(settings) == Limits(max_rate=5.0, time_share=1.0, idle_steps=7)


def test_parameters_in_the_walkthroughs_exist():
    text = (YAML.parents[1] / "docs" / "robots.md").read_text()
    inline = re.findall(r'parameters:="(\{[^}]+: [^}]+\})"', text)
    assert len(inline) == 8  # four cameras, twice
    known = {parameter.name: parameter for parameter in p.LERF_PARAMETERS}
    for values in map(yaml.safe_load, inline):
        for name, value in values.items():
            assert type(value) is type(known[name].default)
            known[name].check(value)
    groups = "|".join({name.partition(".")[0] for name in known if "." in name} - {"depth"})  # ZED has a depth. too
    assert set(re.findall(rf"`((?:{groups})\.[\w.]+)[`:]", text)) <= set(known)
