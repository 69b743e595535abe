"""Where the answer to the last question is published."""

from __future__ import annotations

from geometry_msgs.msg import PoseArray, PoseStamped, PoseWithCovarianceStamped
from rclpy.node import Node
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from lerf_ros.query.targets import Answer
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.messages import marker_array, pose_array, target_with_covariance
from lerf_ros.ros.parameters import qos_profile


class AnswerPublisher:
    """Publishers of ~/target, ~/target_with_covariance, ~/targets and ~/markers. All of them are latched: a subscriber
    that comes later receives the last answer."""

    def __init__(self, node: Node, settings: Settings) -> None:
        latched = qos_profile(settings, "targets", latched=True)
        self._target = node.create_publisher(PoseStamped, "~/target", latched)
        self._with_covariance = node.create_publisher(PoseWithCovarianceStamped, "~/target_with_covariance", latched)
        self._targets = node.create_publisher(PoseArray, "~/targets", latched)
        self._markers = node.create_publisher(MarkerArray, "~/markers", latched)

    def publish(self, answer: Answer, stamped: Header) -> None:
        poses = pose_array(answer, stamped)
        self._targets.publish(poses)
        if poses.poses:
            self._target.publish(PoseStamped(header=stamped, pose=poses.poses[0]))
            self._with_covariance.publish(target_with_covariance(answer.targets[0], stamped))
        self._markers.publish(marker_array(answer, stamped))
