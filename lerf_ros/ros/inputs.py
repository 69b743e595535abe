"""The topics that the node listens to while it is active."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.assembly import FrameAssembler
from lerf_ros.ros.declarations import ParameterError, Parameters
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.input_health import InputHealth, InputReport
from lerf_ros.ros.parameters import assembly_options, camera_mount, declare_cameras, pose_options, qos_profile
from lerf_ros.ros.pose_sources import (
    POSE_MESSAGES,
    FixedMount,
    PoseMessage,
    PoseSource,
    PoseTopic,
    TransformMount,
    TransformPoses,
)
from lerf_ros.ros.transforms import Transforms, TransformsMissing, open_transforms
from lerf_ros.ros.watched_input import WatchedInput

Offer = Callable[[Callable[[], Frame], str], None]  # what builds a frame, and the name of its camera
_POLL = 0.02, 0.05  # s, how often waiting images are looked at, at most and at least
_LOOKS = 10  # images that have to look wrong before a word is said


class CameraInputs:
    """Subscriptions that feed a `FrameAssembler` for each camera, and the timer that lets them give up waiting. Open
    from the beginning.

    Raises:
        ParameterError: a value cannot be used, or tf2_ros is wanted and missing.
    """

    def __init__(
        self, node: Node, parameters: Parameters, drops: DropCounter, offer: Offer, group: CallbackGroup
    ) -> None:
        names, source = declare_cameras(parameters), parameters["pose.source"]
        if len(names) > 1 and source in ("pose", "pose_with_covariance") and not parameters["pose.child_frame"]:
            raise ParameterError("~/pose cannot move several cameras: set pose.child_frame, or pose.source: tf")
        self._node = node
        self._transforms = self._open_transforms() if "tf" in (source, parameters["pose.extrinsics"]) else None
        sources = {name: self._pose_source(parameters, f"{name}." if name else "") for name in names}
        self._topics = [poses for poses in sources.values() if isinstance(poses, PoseTopic)]
        self._cameras = [_Camera(node, parameters, name, poses, drops, offer, group) for name, poses in sources.items()]
        self._pose: WatchedInput | None = None
        if source in POSE_MESSAGES:
            kind, qos = POSE_MESSAGES[source], qos_profile(parameters, "pose")
            self._pose = WatchedInput(node, kind, "~/pose", self._add_pose, qos, "pose", group)
        least, most = _POLL
        period = min(max(parameters["sync.wait"] / 4, least), most)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # waiting ends also while simulated time stands still
        self._timer = node.create_timer(period, self._poll, group, steady)

    def close(self) -> None:
        self._node.destroy_timer(self._timer)
        for camera in self._cameras:
            camera.close()
        if self._pose is not None:
            self._pose.close()
        if self._transforms is not None:
            self._transforms.close()

    def health(self) -> InputHealth:
        """How well the inputs are served at present."""
        reports = [report for camera in self._cameras for report in camera.reports()]
        if self._pose is not None:
            reports.insert(1, self._pose.report(self._cameras[0].image))
        missing = next(filter(None, (camera.assembler.missing() for camera in self._cameras)), "")
        without_depth = sum(camera.assembler.frames_without_depth for camera in self._cameras)
        return InputHealth(tuple(reports), without_depth, missing)

    def _add_pose(self, message: PoseMessage, _: float) -> None:
        for topic in self._topics:
            topic.add(message)
        for camera in self._cameras:
            camera.assembler.advance()

    def _poll(self) -> None:
        now = time.monotonic()
        for camera in self._cameras:
            camera.assembler.poll(now)

    def _open_transforms(self) -> Transforms:
        try:
            return open_transforms(self._node)
        except TransformsMissing as error:
            raise ParameterError(str(error)) from error

    def _pose_source(self, parameters: Parameters, prefix: str) -> PoseSource:
        axes, options = parameters[f"{prefix}pose.axes"], pose_options(parameters)
        if parameters["pose.source"] == "tf":
            assert self._transforms is not None
            return TransformPoses(self._transforms, options.map_frame, axes)
        if parameters["pose.extrinsics"] == "tf":
            assert self._transforms is not None
            return PoseTopic(options, TransformMount(self._transforms, axes))
        return PoseTopic(options, FixedMount(camera_mount(parameters, prefix), f"{prefix}pose"))


class _Camera:
    """The topics of one camera."""

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        name: str,
        poses: PoseSource,
        drops: DropCounter,
        offer: Offer,
        group: CallbackGroup,
    ) -> None:
        options, base = assembly_options(parameters), f"~/{name}" if name else "~"
        self._node, self._name, self._offer = node, name, offer
        self._looks = _LOOKS
        self.assembler = FrameAssembler(options, poses, drops, self._deliver, self._depth_published, name)

        def watch(message: type, kind: str, add: Callable[..., None], **nature: Any) -> WatchedInput:
            qos = qos_profile(parameters, kind)
            return WatchedInput(node, message, f"{base}/{kind}", add, qos, kind, group, **nature)

        def watch_pictures(kind: str, add: Callable[..., None], **nature: bool) -> WatchedInput:
            transport = parameters[f"{kind}.transport"]
            message = Image if transport == "raw" else CompressedImage
            return watch(message, kind, add, transport=transport, **nature)

        assembler, optional = self.assembler, options.depth == "auto"
        self._depth: WatchedInput | None = None
        if options.depth != "off":
            self._depth = watch_pictures("depth", lambda message, _: assembler.add_depth(message), optional=optional)
        self._camera_info = watch(
            CameraInfo, "camera_info", lambda message, _: assembler.add_camera_info(message), steady=False
        )
        self.image = watch_pictures("image", assembler.add_image)

    def close(self) -> None:
        for watched in self._watched:
            watched.close()

    def reports(self) -> list[InputReport]:
        return [watched.report(self.image if watched is not self.image else None) for watched in self._watched]

    @property
    def _watched(self) -> list[WatchedInput]:
        watched = [self._camera_info, self.image]
        return watched if self._depth is None else [*watched, self._depth]

    def _depth_published(self) -> bool:
        return self._depth is not None and self._depth.published

    def _deliver(self, build: Callable[[], Frame]) -> None:
        self._say_doubt()
        self._offer(build, self._name)

    def _say_doubt(self) -> None:
        """Frames that are mixed up give a map that looks right and is not: said once, when all first images raise
        doubt."""
        if not self._looks:
            return
        doubt = self.assembler.doubt
        self._looks = self._looks - 1 if doubt else 0
        if doubt and not self._looks:
            self._node.get_logger().warning(f"the camera of {self.image.topic}: {doubt}")
