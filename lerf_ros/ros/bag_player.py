"""A bag, published again as it was recorded: in time, or as fast as the mapper takes its images."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from typing import Any

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from lerf_ros.ros.consumer import PACE_PARAMETERS, Consumer
from lerf_ros.ros.conversions import header
from lerf_ros.ros.declarations import Parameter, Parameters, Read
from lerf_ros.ros.process import spin_until_shutdown
from lerf_ros.world.bags import COMPRESSED_IMAGE, IMAGE, Bag, Recorded, delayed

BAG_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("bag", "", "folder of a rosbag2 recording, or its .mcap or .db3 file", read=Read.START),
    Parameter(
        "topics", [""], "topics to play; none named: those with images, cameras, poses and transforms", read=Read.START
    ),
    Parameter("image", "", "topic of the images that are mapped; empty: the only one with colour", read=Read.START),
    Parameter(
        "pace",
        "real_time",
        "real_time: as it was recorded, times `speed`; consumed: as fast as the mapper takes images",
        choices=("real_time", "consumed"),
        read=Read.START,
    ),
    Parameter("speed", 1.0, "times as fast as it was recorded, for the pace 'real_time'", 0.01, 100.0, read=Read.START),
    Parameter(
        "lead",
        0.25,
        "s, what was recorded until so much after an image is played before it, for the pace 'consumed'",
        0.0,
        10.0,
        read=Read.START,
    ),
    *PACE_PARAMETERS,
    Parameter("clock", True, "publish the time of the recording on /clock, for use_sim_time", read=Read.START),
    Parameter("loop", False, "begin again after the last message", read=Read.ALWAYS),
    Parameter("once", False, "end after the last message, when the last image was taken", read=Read.ALWAYS),
)
_PLAYED = (
    IMAGE,
    COMPRESSED_IMAGE,
    "sensor_msgs/msg/CameraInfo",
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
    "tf2_msgs/msg/TFMessage",
)
_POLL = 0.002  # s
_SETTLED = 0.2  # s without a new subscription before the first message
_BURST = 100  # messages that are published between two looks at what else there is to do
_QUEUE = 100


class BagPlayer(Node):
    """Publishes the topics of a bag under their names, byte by byte what was recorded.

    With the pace 'consumed' no image is sent before the mapper has dealt with the one before it, and each is preceded
    by the poses, transforms and depth that were recorded until `lead` later: the same frames are mapped on every
    machine, however slow.

    Publishers: the topics of the bag, reliable; /clock.

    Subscriptions (only with the pace 'consumed'):
        <consumer>/status (lerf_ros/Status)

    Parameters: `BAG_PARAMETERS`. The first message waits for a subscriber of the images.

    Raises:
        ValueError: the bag cannot be read or lacks a topic, or a parameter is out of range.
    """

    def __init__(self) -> None:
        super().__init__("bag_player")
        self._settings = Parameters(self, BAG_PARAMETERS)
        for correction in self._settings.mistyped():
            self.get_logger().warning(correction)
        if not self._settings["bag"]:
            raise ValueError("parameter bag is empty: name the folder of a recording")
        self._bag = Bag(self._settings["bag"])
        self._publishers_of = {topic: self._publisher(topic, kind) for topic, kind in self._played()}
        self._image = self._image_topic()
        consumed = self._settings["pace"] == "consumed"
        self._consumer = Consumer(self, self._settings) if consumed else None
        self._sim_time = self.create_publisher(Clock, "/clock", 10) if self._settings["clock"] else None

        self.finished = False
        self._heard: dict[str, int] = {}  # subscriptions, by topic, ...
        self._heard_at = 0.0  # s, monotonic, ... and since when they are so many
        self._rewind()
        self.create_timer(_POLL, self._advance)
        self.get_logger().info(f"{self._bag.name}: {', '.join(self._publishers_of)}; images: {self._image}")

    def _played(self) -> Iterator[tuple[str, Any]]:
        """(topic, type) of what is to be played and can be."""
        named = [topic for topic in self._settings["topics"] if topic]
        for topic in named:
            if topic not in self._bag.topics:
                raise ValueError(f"{self._bag.name} has no messages on {topic}; it has {', '.join(self._bag.topics)}")
        for topic, kind in self._bag.topics.items():
            if topic not in named if named else kind not in _PLAYED:
                continue
            package, _, name = kind.partition("/msg/")
            try:
                yield topic, getattr(importlib.import_module(f"{package}.msg"), name)
            except (ModuleNotFoundError, AttributeError):
                self.get_logger().warning(f"{topic} is not played: its type {kind} is not installed")

    def _publisher(self, topic: str, kind: Any) -> Publisher:
        latched = self._bag.is_latched(topic)
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        return self.create_publisher(kind, topic, QoSProfile(depth=_QUEUE, durability=durability))

    def _image_topic(self) -> str:
        named = self._settings["image"]
        images = [topic for topic in self._bag.colour_images() if topic in self._publishers_of]
        if named in images or (not named and len(images) == 1):
            return named or images[0]
        found = (
            f"its topics with colour images: {', '.join(images)}" if images else "none of its topics has colour images"
        )
        raise ValueError(f"{self._bag.name}: set the parameter image; {found}")

    def _rewind(self) -> None:
        lead_ns = round(self._settings["lead"] * 1e9) if self._consumer else 0
        self._messages = delayed(self._bag.messages(self._publishers_of), self._image, lead_ns)
        self._next = next(self._messages, None)
        self._sim_time_ns = 0
        self._began: tuple[float, int] | None = None  # s, monotonic, and ns, the time of the first message

    def _advance(self) -> None:
        if self._began is None:
            if not self._is_heard():
                return
            if self._consumer is not None and not self._consumer.ready():
                return
            assert self._next is not None  # there are images
            self._began = (time.monotonic(), self._next.time_ns)
        for _ in range(_BURST):
            if self._next is None:
                self._end()
                return
            if not self._is_due(self._next):
                return
            self._publish(self._next)
            self._next = next(self._messages, None)

    def _is_heard(self) -> bool:
        """Whether somebody subscribes to the images, and no other subscription has been heard of just now: those of one
        node are, one after another."""
        heard = {topic: publisher.get_subscription_count() for topic, publisher in self._publishers_of.items()}
        if heard != self._heard:
            self._heard, self._heard_at = heard, time.monotonic()
        return heard[self._image] > 0 and time.monotonic() >= self._heard_at + _SETTLED

    def _is_due(self, message: Recorded) -> bool:
        if self._consumer is not None:
            return message.topic != self._image or self._consumer.ready()
        assert self._began is not None
        began, first_ns = self._began
        return (time.monotonic() - began) * self._settings["speed"] >= (message.time_ns - first_ns) * 1e-9

    def _publish(self, message: Recorded) -> None:
        if self._sim_time is not None and message.time_ns > self._sim_time_ns:  # delayed images have an earlier time
            self._sim_time_ns = message.time_ns
            self._sim_time.publish(Clock(clock=header(message.time_ns, "").stamp))
        self._publishers_of[message.topic].publish(message.data)
        if self._consumer is not None and message.topic == self._image:
            self._consumer.sent()

    def _end(self) -> None:
        if self._consumer is not None and not self._consumer.ready():
            return
        if self._settings["loop"]:
            self._rewind()
        elif self._settings["once"]:
            self._publishers_of[self._image].wait_for_all_acked(Duration(seconds=2.0))
            self.finished = True


def main() -> int:
    return spin_until_shutdown(BagPlayer, lambda node: node.finished)
