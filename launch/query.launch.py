"""Starts the node `lerf` with a saved map and takes it to active.

    ros2 launch lerf_ros query.launch.py map:=/path/of/the/map rviz:=true
    ros2 service call /lerf/query lerf_ros/srv/Query "{text: 'a red mug'}"

It only answers: no camera is needed, and the map stays as it is.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.parameter_descriptions import ParameterValue

from lerf_ros.ros.launching import lerf_node, node_arguments, rviz_node


def generate_launch_description() -> LaunchDescription:
    path = DeclareLaunchArgument("map", description="folder of the map, as save_map wrote it")
    only_answering = {
        "training.enabled": False,
        "map.load": True,
        "map.path": ParameterValue(LaunchConfiguration("map"), value_type=str),
    }
    return LaunchDescription([path, *node_arguments(), lerf_node(inputs=False, parameters=only_answering), rviz_node()])
