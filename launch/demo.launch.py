"""A camera in a generated room, or a recording, and the node `lerf` that maps what it sees.

    ros2 launch lerf_ros demo.launch.py source:=room:7 rviz:=true
    ros2 service call /lerf/query lerf_ros/srv/Query "{text: 'a red mug'}"

Beside those below it has the arguments of train.launch.py.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE"


def generate_launch_description() -> LaunchDescription:
    camera = Node(
        package="lerf_ros",
        executable="camera_node",
        name="camera",
        parameters=[
            {
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "pace": "consumed",
                "consumer": [LaunchConfiguration("namespace"), "/lerf"],
            }
        ],
        output="screen",
        sigterm_timeout="20",  # s; a room's next image may be on its way
    )
    share = FindPackageShare("lerf_ros")
    profile = [PathJoinSubstitution([share, "config", "fastdds.xml"])]  # a transport that does not lose images
    return LaunchDescription(
        [
            DeclareLaunchArgument("source", default_value="room:2026", description="'room:SEED' or a recording"),
            DeclareLaunchArgument("rate", default_value="5.0", description="frames a second at most; 0: the source's"),
            SetEnvironmentVariable(PROFILE, EnvironmentVariable(PROFILE, default_value=profile)),
            IncludeLaunchDescription(PathJoinSubstitution([share, "launch", "train.launch.py"])),
            camera,
        ]
    )
