"""Recorded topics: bags of rosbag2, sqlite3 or MCAP, compressed or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import Connection
from rosbags.typesys import Stores, get_typestore

from lerf_ros.world.recordings import RecordingError

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_DEPTH_FORMATS = ("16UC1", "mono16", "32FC1", "compressedDepth")


class Recorded(NamedTuple):
    """One message: when it was recorded (ns), and its bytes as they were sent (CDR)."""

    topic: str
    time_ns: int
    data: bytes


class Bag:
    """A bag: a folder with its `metadata.yaml`, or one `.mcap` or `.db3` file of it.

    Attributes:
        name: of the folder or file.
        topics: name -> type ("sensor_msgs/msg/Image") of those with messages.

    Raises:
        RecordingError: it is not there, damaged, or of ROS 1.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path).expanduser()
        if not path.exists():
            raise RecordingError(f"there is no bag {path}")
        if path.suffix == ".bag":
            raise RecordingError(f"{path} is a bag of ROS 1: convert it (rosbags-convert --src {path} --dst FOLDER)")
        if path.is_dir() and not (path / "metadata.yaml").exists():
            raise RecordingError(
                f"{path} has no metadata.yaml: is it a bag? Recording was cut off: ros2 bag reindex {path}"
            )
        try:
            # Bags of older ROS versions have no definitions of their messages.
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
            self._reader.open()
        except Exception as error:  # of the storage: sqlite3, MCAP, YAML, the disk
            raise RecordingError(f"{path} cannot be read as a bag: {error}") from error
        self.name = path.resolve().name
        self._connections = {c.topic: c for c in self._reader.connections if c.msgcount}
        self.topics = {topic: c.msgtype for topic, c in self._connections.items()}

    def close(self) -> None:
        self._reader.close()

    def messages(self, topics: Iterable[str]) -> Iterator[Recorded]:
        """All messages of some topics in the order of their recording. Raises RecordingError."""
        wanted = [self._connections[topic] for topic in topics]
        try:
            for connection, time_ns, data in self._reader.messages(wanted) if wanted else ():
                yield Recorded(connection.topic, time_ns, bytes(data))
        except (AnyReaderError, OSError) as error:
            raise RecordingError(f"{self.name} is damaged: {error}") from error

    def is_latched(self, topic: str) -> bool:
        """Whether late subscribers were served its last message (durability transient_local)."""
        qos = getattr(self._connections[topic].ext, "offered_qos_profiles", ())
        return any(profile.durability.name == "TRANSIENT_LOCAL" for profile in qos)

    def colour_images(self) -> list[str]:
        """Topics with images that are no depth images, told by the encoding of the first."""
        return [topic for topic in self.topics if self._is_colour(topic)]

    def _is_colour(self, topic: str) -> bool:
        connection: Connection = self._connections[topic]
        if connection.msgtype not in (IMAGE, COMPRESSED_IMAGE):
            return False
        first = self._reader.deserialize(next(self.messages([topic])).data, connection.msgtype)
        encoding = getattr(first, "encoding" if connection.msgtype == IMAGE else "format")
        return not any(depth in encoding for depth in _DEPTH_FORMATS)


def delayed(messages: Iterable[Recorded], topic: str, delay_ns: int) -> Iterator[Recorded]:
    """The same messages, those of one topic after all others that were recorded until `delay_ns` later."""
    waiting: deque[Recorded] = deque()
    for message in messages:
        while waiting and waiting[0].time_ns + delay_ns < message.time_ns:
            yield waiting.popleft()
        if message.topic == topic:
            waiting.append(message)
        else:
            yield message
    yield from waiting
