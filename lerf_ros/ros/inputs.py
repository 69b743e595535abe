"""The topics that the node listens to while it is active."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image

from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.assembly import FrameAssembler
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.parameters import Parameters, assembly_options, qos_profile


class CameraInputs:
    """Subscriptions that feed a `FrameAssembler`, and the timer that lets it give up waiting. Open from the beginning.

    Raises:
        ParameterError: see `assembly_options` and `qos_profile`.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        drops: DropCounter,
        deliver: Callable[[Frame], None],
        group: CallbackGroup,
    ) -> None:
        options = assembly_options(parameters)
        self._node = node
        self._assembler = FrameAssembler(options, drops, deliver, self._depth_published)

        def subscribe(kind: type, name: str, add: Callable[[Any, float], None]) -> Subscription:
            qos = qos_profile(parameters, name)
            return node.create_subscription(
                kind, f"~/{name}", lambda message: add(message, time.monotonic()), qos, callback_group=group
            )

        self._optional = [] if options.depth == "off" else [subscribe(Image, "depth", self._assembler.add_depth)]
        self._needed = [
            subscribe(CameraInfo, "camera_info", self._assembler.add_camera_info),
            subscribe(PoseStamped, "pose", self._assembler.add_pose),
            subscribe(Image, "image", self._assembler.add_image),
        ]
        period = max(options.wait / 4, 0.01)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period, lambda: self._assembler.poll(time.monotonic()), group, steady)

    def _depth_published(self) -> bool:
        return any(self._node.count_publishers(subscription.topic_name) for subscription in self._optional)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        for subscription in self._needed + self._optional:
            self._node.destroy_subscription(subscription)

    @property
    def frames_without_depth(self) -> int:
        """Frames used without the depth that was waited for."""
        return self._assembler.frames_without_depth

    def lacking(self) -> str:
        """What is missing for a complete frame, in words; empty when nothing is known to be."""
        topics = [subscription.topic_name for subscription in self._needed]
        silent = [topic for topic in topics if not self._node.count_publishers(topic)]
        if silent:
            return f"nobody publishes {', '.join(silent)}: start the camera, or remap the topics"
        missing = self._assembler.missing()
        return f"images come, but nothing that fits them on {missing}" if missing else ""
