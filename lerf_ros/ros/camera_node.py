"""A room or a recording, published as the topics of an RGB-D camera with a pose."""

from __future__ import annotations

from collections.abc import Callable

from geometry_msgs.msg import PoseStamped
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image

from lerf_ros.geometry.units import NOT_METRES, SCENE_UNITS
from lerf_ros.ros.consumer import PACE_PARAMETERS, Consumer
from lerf_ros.ros.conversions import (
    camera_info_message,
    depth_message,
    header,
    image_message,
    pose_stamped_message,
)
from lerf_ros.ros.declarations import Parameter, Parameters, Read
from lerf_ros.ros.process import spin_until_shutdown
from lerf_ros.ros.transforms import TransformsMissing, open_broadcaster
from lerf_ros.world.source import is_held_out, open_source

CAMERA_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("source", "room:1", "'room:SEED' or the folder of a recording", read=Read.START),
    Parameter(
        "world_scale",
        0.0,
        "m per unit of a nerfstudio folder; 0: 1 with depth, else unknown (then set map.units of the mapping node)",
        0.0,
        1e6,
        read=Read.START,
    ),
    Parameter(
        "pace",
        "real_time",
        "real_time: at `rate`; consumed: as fast as the mapper takes frames, at most at `rate`",
        choices=("real_time", "consumed"),
        read=Read.START,
    ),
    Parameter("rate", 0.0, "Hz; 0: the source's own", 0.0, 1000.0, read=Read.START),
    *PACE_PARAMETERS,
    Parameter(
        "subscribers", 1, "of image, camera_info and pose that the first frame waits for", 1, 100, read=Read.START
    ),
    Parameter(
        "holdout", 0, "frames 0, n, 2n, ... are kept back for evaluation; 0: none", 0, 1_000_000, read=Read.START
    ),
    Parameter("loop", False, "begin again after the last frame", read=Read.ALWAYS),
    Parameter("once", False, "end after the last frame, when it was taken", read=Read.ALWAYS),
    Parameter(
        "depth_encoding", "32FC1", "of ~/depth; none: no depth", choices=("32FC1", "16UC1", "none"), read=Read.START
    ),
    Parameter("tf", False, "the pose also as a transform from map_frame to camera_frame on /tf", read=Read.START),
    Parameter("map_frame", "map", "frame of ~/pose", read=Read.ALWAYS),
    Parameter("camera_frame", "camera_optical_frame", "frame of ~/image, ~/camera_info and ~/depth", read=Read.ALWAYS),
)
_POLL = 0.005  # s, how often the pace 'consumed' looks


class CameraNode(Node):
    """Publishes a `FrameSource`.

    Publishers:
        ~/image (sensor_msgs/Image): rgb8.
        ~/camera_info (sensor_msgs/CameraInfo): with every image.
        ~/depth (sensor_msgs/Image): registered to the image; 32FC1 (m) or 16UC1 (mm). A source without depth has no
            such topic, so that nobody waits for it.
        ~/pose (geometry_msgs/PoseStamped): optical camera frame in the map. With `tf` also on /tf.

    Subscriptions (only with the pace 'consumed'):
        <consumer>/status (lerf_ros/Status)

    Parameters: `CAMERA_PARAMETERS`. The first frame waits for `subscribers` of image, camera_info and, unless there is
    `tf`, pose. All messages of a frame carry one stamp, the time of publication.

    Raises:
        ValueError: the source cannot be opened, or a parameter is out of range.
    """

    def __init__(self) -> None:
        super().__init__("camera")
        self._settings = Parameters(self, CAMERA_PARAMETERS)
        for correction in self._settings.mistyped():
            self.get_logger().warning(correction)
        self._source = open_source(self._settings["source"], self._settings["world_scale"] or None)
        holdout = self._settings["holdout"]
        self._indices = [i for i in range(len(self._source)) if not is_held_out(i, holdout)]
        if not self._indices:
            raise ValueError(f"source '{self._source.name}' has no frame to publish (holdout: {holdout})")
        qos = QoSProfile(depth=10)  # reliable: also serves best-effort subscribers
        self._image = self.create_publisher(Image, "~/image", qos)
        self._info = self.create_publisher(CameraInfo, "~/camera_info", qos)
        with_depth = self._settings["depth_encoding"] != "none" and self._source[self._indices[0]].depth_z is not None
        self._depth = self.create_publisher(Image, "~/depth", qos) if with_depth else None
        self._pose = self.create_publisher(PoseStamped, "~/pose", qos)
        self._broadcast = self._broadcaster() if self._settings["tf"] else None

        self.finished = False
        self._next = 0
        self._begun = False
        self._period = 1.0 / (self._settings["rate"] or self._source.rate_hz)  # s
        self._consumer = Consumer(self, self._settings) if self._settings["pace"] == "consumed" else None
        self.create_timer(_POLL if self._consumer else self._period, self._advance)
        self.get_logger().info(f"{self._source.name}: {len(self._indices)} of {len(self._source)} frames to publish")
        if self._depth is None:
            self.get_logger().info("no depth is published: colours alone are mapped")
        if self._source.units == SCENE_UNITS:
            self.get_logger().warning(
                f"{NOT_METRES}; the mapping node says so in its answers when its parameter map.units is '{SCENE_UNITS}'"
            )

    def _broadcaster(self) -> Callable[[PoseStamped, str], None]:
        try:
            return open_broadcaster(self)
        except TransformsMissing as error:
            raise ValueError(f"parameter tf: {error}") from error

    def _advance(self) -> None:
        if self._consumer and not (self._consumer.ready() and self._consumer.since_sent >= self._period):
            return
        awaited = (self._image, self._info) if self._broadcast else (self._image, self._info, self._pose)
        self._begun = self._begun or all(p.get_subscription_count() >= self._settings["subscribers"] for p in awaited)
        if self._next == len(self._indices):
            self._end()
        elif self._begun:
            self._publish()

    def _publish(self) -> None:
        frame = self._source[self._indices[self._next]]
        stamp_ns = self.get_clock().now().nanoseconds
        stamped = header(stamp_ns, self._settings["camera_frame"])
        self._info.publish(camera_info_message(frame.camera, stamped))
        pose = pose_stamped_message(frame.T_world_camera, header(stamp_ns, self._settings["map_frame"]))
        self._pose.publish(pose)
        if self._broadcast:
            self._broadcast(pose, stamped.frame_id)
        if frame.depth_z is not None and self._depth is not None:
            self._depth.publish(depth_message(frame.depth_z, stamped, self._settings["depth_encoding"]))
        self._image.publish(image_message(frame.image, stamped))
        self._next += 1
        if self._consumer:
            self._consumer.sent()

    def _end(self) -> None:
        if self._settings["loop"]:
            self._next = 0
        elif self._settings["once"]:
            self._image.wait_for_all_acked(Duration(seconds=2.0))
            self.finished = True


def main() -> int:
    return spin_until_shutdown(CameraNode, lambda node: node.finished)
