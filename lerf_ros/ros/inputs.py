"""The topics that the node listens to while it is active."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.assembly import FrameAssembler
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.input_health import InputHealth
from lerf_ros.ros.parameters import assembly_options, qos_profile
from lerf_ros.ros.watched_input import WatchedInput


class CameraInputs:
    """Subscriptions that feed a `FrameAssembler`, and the timer that lets it give up waiting. Open from the beginning.

    Raises:
        ParameterError: see `assembly_options` and `qos_profile`.
    """

    def __init__(
        self,
        node: Node,
        parameters: Settings,
        drops: DropCounter,
        deliver: Callable[[Frame], None],
        group: CallbackGroup,
    ) -> None:
        options = assembly_options(parameters)
        self._node = node
        self._assembler = FrameAssembler(options, drops, deliver, self._depth_published)

        def watch(kind: type, name: str, add: Callable[[Any, float], None], **nature: bool) -> WatchedInput:
            return WatchedInput(node, kind, f"~/{name}", add, qos_profile(parameters, name), name, group, **nature)

        self._depth = None
        if options.depth != "off":
            self._depth = watch(Image, "depth", self._assembler.add_depth, optional=options.depth == "auto")
        self._camera_info = watch(CameraInfo, "camera_info", self._assembler.add_camera_info, steady=False)
        self._pose = watch(PoseStamped, "pose", self._assembler.add_pose)
        self._image = watch(Image, "image", self._assembler.add_image)
        period = max(options.wait / 4, 0.01)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(period, lambda: self._assembler.poll(time.monotonic()), group, steady)

    def _depth_published(self) -> bool:
        return self._depth is not None and self._depth.published

    @property
    def _watched(self) -> list[WatchedInput]:
        watched = [self._camera_info, self._pose, self._image]
        return watched if self._depth is None else [*watched, self._depth]

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        for watched in self._watched:
            watched.close()

    def health(self) -> InputHealth:
        """How well the inputs are served at present."""
        reports = [watched.report(self._image if watched is not self._image else None) for watched in self._watched]
        return InputHealth(tuple(reports), self._assembler.frames_without_depth, self._assembler.missing())
