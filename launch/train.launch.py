"""Starts the node `lerf` and takes it to active: it maps what the camera sees and answers `lerf/query`.

    ros2 launch lerf_ros train.launch.py image:=/camera/color/image_raw camera_info:=/camera/color/camera_info \\
        depth:=/camera/aligned_depth_to_color/image_raw parameters:="{pose.source: tf}" rviz:=true
"""

from launch import LaunchDescription

from lerf_ros.ros.launching import input_arguments, lerf_node, node_arguments, rviz_node


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*input_arguments(), *node_arguments(), lerf_node(), rviz_node()])
