"""Starts the node `lerf` and takes it to active: it maps what the camera sees and answers `lerf/query`.

    ros2 launch lerf_ros train.launch.py image:=/camera/color/image_raw camera_info:=/camera/color/camera_info \\
        depth:=/camera/aligned_depth_to_color/image_raw pose:=/camera/pose rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, LogInfo, RegisterEventHandler
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
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
SHOWN = ("markers", "target", "targets")  # what rviz/lerf.rviz subscribes to, below /lerf


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("lerf_ros")
    namespace = LaunchConfiguration("namespace")
    sim_time = {"use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool)}
    lerf = LifecycleNode(
        package="lerf_ros",
        executable="lerf_node",
        name="lerf",
        namespace=namespace,
        parameters=[LaunchConfiguration("params_file"), sim_time],
        remappings=[(f"~/{name}", LaunchConfiguration(name)) for name in INPUTS],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", PathJoinSubstitution([share, "rviz", "lerf.rviz"])],
        parameters=[sim_time],
        remappings=[(f"/lerf/{topic}", [namespace, f"/lerf/{topic}"]) for topic in SHOWN],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments(share), *lifecycle(lerf), lerf, rviz])


def arguments(share: FindPackageShare) -> list[DeclareLaunchArgument]:
    inputs = [
        DeclareLaunchArgument(name, default_value=topic, description=f"topic of the node's input ~/{name}")
        for name, topic in INPUTS.items()
    ]
    return [
        *inputs,
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([share, "config", "lerf.yaml"]),
            description="YAML file with the node's parameters",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node lerf"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take the time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn, error or fatal"),
        DeclareLaunchArgument("rviz", default_value="false", description="show targets and markers in RViz"),
    ]


def lifecycle(node: LifecycleNode) -> list[RegisterEventHandler]:
    """Configure when the process is there, activate when that has worked, say so when it has not."""

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
