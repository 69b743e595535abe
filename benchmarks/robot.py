"""A robot as benchmarks need one: a camera over real ROS topics, and an ear for ~/status."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from lerf_ros.msg import Status
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image

from lerf_ros.mapping.frame import Frame
from lerf_ros.ros import conversions


class Robot:
    """The camera, which publishes in a thread of its own, and a record of ~/status with the time of each message.

    Args:
        depth: whether it has a depth camera, too.
    """

    def __init__(self, depth: bool = True) -> None:
        self.published: list[float] = []  # s, monotonic: when each image was published
        self.statuses: list[tuple[float, Status]] = []  # with s, monotonic
        self.late = 0.0  # s, the most that a frame was published behind its time
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node("benchmark", context=self._context)
        kinds = {"camera_info": CameraInfo, "pose": PoseStamped, "image": Image} | ({"depth": Image} if depth else {})
        self._publishers = {
            name: self._node.create_publisher(kind, f"/lerf/{name}", 10) for name, kind in kinds.items()
        }
        self._node.create_subscription(
            Status, "/lerf/status", lambda status: self.statuses.append((time.monotonic(), status)), 100
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._camera: threading.Thread | None = None
        self._listener.start()

    def __enter__(self) -> Robot:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for thread in filter(None, (self._camera, self._listener)):
            thread.join()
        self._node.destroy_node()
        self._executor.shutdown()
        self._context.try_shutdown()

    @property
    def heard(self) -> bool:
        """Whether somebody subscribes to every topic of the camera."""
        return all(publisher.get_subscription_count() for publisher in self._publishers.values())

    @property
    def walks(self) -> bool:
        """Whether frames are still to be published."""
        return self._camera is not None and self._camera.is_alive()

    @property
    def status(self) -> Status:
        """The latest."""
        return self.statuses[-1][1]

    def start(self, frames: Sequence[dict[str, Any]], rate: float) -> None:
        """Begins to publish frames (`frame_messages`) at `rate`, Hz."""
        self._camera = threading.Thread(target=self._walk, args=(frames, 1.0 / rate), daemon=True)
        self._camera.start()

    def steps_per_second(self, began: float, ended: float) -> float:
        """Mean training speed between two moments (s, monotonic) that ~/status has reached."""
        moments, steps = zip(*((moment, status.steps) for moment, status in list(self.statuses)))
        first, last = np.interp([began, ended], moments, steps)
        return float(last - first) / (ended - began)

    def keyframe_seconds(self) -> list[float]:
        """From the publication of an image until ~/status told of the keyframe, s; of those before the first dropped
        frame, since the status does not name the frame."""
        seconds, keyframes = [], 0
        for moment, status in list(self.statuses):
            if sum(status.drop_counts) or status.frames_received > len(self.published):
                break
            if status.keyframes == keyframes + 1:
                seconds.append(moment - self.published[status.frames_received - 1])
            keyframes = status.keyframes
        return seconds

    def _listen(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.1)

    def _walk(self, frames: Sequence[dict[str, Any]], period: float) -> None:
        began = time.monotonic()
        for index, messages in enumerate(frames):
            due = began + index * period
            if self._closing.wait(max(0.0, due - time.monotonic())):
                return
            stamp = self._node.get_clock().now().to_msg()
            self.late = max(self.late, time.monotonic() - due)
            for name, message in messages.items():
                message.header.stamp = stamp
                if name == "image":
                    self.published.append(time.monotonic())
                self._publishers[name].publish(message)


def frame_messages(frame: Frame) -> dict[str, Any]:
    """What the camera publishes of a frame, by topic and in this order; the stamps are set when it does."""
    in_camera, in_map = (conversions.header(0, name) for name in ("camera_optical_frame", "map"))
    depth = {} if frame.depth_z is None else {"depth": conversions.depth_message(frame.depth_z, in_camera)}
    return {
        "camera_info": conversions.camera_info_message(frame.camera, in_camera),
        "pose": conversions.pose_stamped_message(frame.T_world_camera, in_map),
        **depth,
        "image": conversions.image_message(frame.image, in_camera),
    }
