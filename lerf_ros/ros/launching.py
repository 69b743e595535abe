"""What the launch files share: the node `lerf`, its way to active, RViz, and the arguments of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from launch.action import Action
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.launch_context import LaunchContext
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from lifecycle_msgs.msg import Transition

INPUTS = {
    "image": "/camera/image",
    "camera_info": "/camera/camera_info",
    "depth": "/camera/depth",
    "pose": "/camera/pose",
}
_SHOWN = ("markers", "target", "targets", "keyframes/frusta")  # what rviz/lerf.rviz subscribes to, below /lerf


def input_arguments() -> list[DeclareLaunchArgument]:
    """One for the topic of each input."""
    return [
        DeclareLaunchArgument(name, default_value=topic, description=f"topic of the node's input ~/{name}")
        for name, topic in INPUTS.items()
    ]


def node_arguments() -> list[DeclareLaunchArgument]:
    """Those that `lerf_node` and `rviz_node` read."""
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=_shared("config", "lerf.yaml"),
            description="YAML file with the node's parameters",
        ),
        DeclareLaunchArgument(
            "parameters",
            default_value="{}",
            description="parameters that win over those of params_file, as YAML: '{pose.source: tf}'",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node lerf"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("rviz", default_value="false", description="show targets and markers in RViz"),
    ]


def lerf_node(inputs: bool = True, parameters: Mapping[str, Any] | None = None) -> OpaqueFunction:
    """The node `lerf` and what takes it to active.

    Args:
        inputs: whether its inputs are remapped as `input_arguments` say.
        parameters: they win over all others.
    """
    return OpaqueFunction(function=lambda context: _lerf_node(context, inputs, parameters or {}))


def _lerf_node(context: LaunchContext, inputs: bool, parameters: Mapping[str, Any]) -> list[Action]:
    """Raises RuntimeError: the argument `parameters` is no YAML of names and values."""
    text = context.launch_configurations["parameters"]
    try:
        chosen = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RuntimeError(f"parameters:={text} cannot be read: {error}") from error
    if not isinstance(chosen, dict):
        raise RuntimeError(f"parameters:={text} should be names and values, such as '{{pose.source: tf}}'")
    node = LifecycleNode(
        package="lerf_ros",
        executable="lerf_node",
        name="lerf",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), {**_sim_time(), **chosen, **parameters}],
        remappings=[(f"~/{name}", LaunchConfiguration(name)) for name in (INPUTS if inputs else ())],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
        sigterm_timeout="30",  # s after SIGINT, for the last step and for what is saved at the end
    )
    return [*_taken_to_active(node), node]  # the handlers first: they must not miss the node's start


def rviz_node() -> Node:
    """RViz with rviz/lerf.rviz, where the argument `rviz` wants it."""
    return Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", _shared("rviz", "lerf.rviz")],
        parameters=[_sim_time()],
        remappings=[(f"/lerf/{topic}", [LaunchConfiguration("namespace"), f"/lerf/{topic}"]) for topic in _SHOWN],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def _shared(*parts: str) -> PathJoinSubstitution:
    """A file that is installed with this package."""
    return PathJoinSubstitution([FindPackageShare("lerf_ros"), *parts])


def _sim_time() -> dict[str, ParameterValue]:
    return {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}


def _taken_to_active(node: LifecycleNode) -> list[RegisterEventHandler]:
    """Configure when the process is there, activate when that has worked, say so when it has not. Activate once only:
    who configures the node again later decides for himself when it is to be active."""

    def change(transition: int) -> EmitEvent:
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    return [
        RegisterEventHandler(OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="inactive",
                entities=[change(Transition.TRANSITION_ACTIVATE)],
                handle_once=True,
            )
        ),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                start_state="configuring",
                goal_state="unconfigured",
                entities=[LogInfo(msg="lerf could not be configured: see its log above")],
            )
        ),
    ]
