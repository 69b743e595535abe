"""Bags that rosbags wrote, read again: order, topics, colour or depth, and what cannot be read."""

import numpy as np
import pytest
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lerf_ros.world.bags import Bag, Recorded, delayed
from lerf_ros.world.recordings import RecordingError
from lerf_ros.world.source import open_source

STORE = get_typestore(Stores.ROS2_JAZZY)
PLUGINS = pytest.mark.parametrize("plugin", list(StoragePlugin), ids=lambda plugin: plugin.name.lower())


def serialized(kind, *fields):
    return bytes(STORE.serialize_cdr(STORE.types[kind](*fields), kind))


def stamped(time_ns):
    time = STORE.types["builtin_interfaces/msg/Time"](time_ns // 10**9, time_ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](time, "camera")


def image(time_ns, encoding):
    return serialized("sensor_msgs/msg/Image", stamped(time_ns), 1, 2, encoding, 0, 6, np.arange(6, dtype=np.uint8))


def compressed(time_ns, form):
    return serialized("sensor_msgs/msg/CompressedImage", stamped(time_ns), form, np.zeros(4, np.uint8))


def written(path, plugin, messages, latched=()):
    """A bag of (topic, type, time, bytes)."""
    never = QosTime(0, 0)
    with Writer(path, version=9, storage_plugin=plugin) as bag:
        connections = {}
        for topic, kind, time_ns, data in messages:
            if topic not in connections:
                durability = QosDurability.TRANSIENT_LOCAL if topic in latched else QosDurability.VOLATILE
                qos = Qos(
                    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, durability, never, never,
                    QosLiveliness.AUTOMATIC, never, False,
                )  # fmt: skip
                connections[topic] = bag.add_connection(topic, kind, typestore=STORE, offered_qos_profiles=[qos])
            bag.write(connections[topic], time_ns, data)
    return path


@pytest.fixture
def messages():
    """Three images, depth just after each, compressed ones of both kinds, and something else."""
    listed = [("/chatter", "std_msgs/msg/String", 5, serialized("std_msgs/msg/String", "hello"))]
    for i in range(3):
        t = 100 * i
        listed += [
            ("/eye/image", "sensor_msgs/msg/Image", t, image(t, "bgr8")),
            ("/eye/depth", "sensor_msgs/msg/Image", t + 10, image(t, "16UC1")),
            (
                "/eye/image/compressed",
                "sensor_msgs/msg/CompressedImage",
                t + 20,
                compressed(t, "bgr8; jpeg compressed"),
            ),
            (
                "/eye/depth/compressedDepth",
                "sensor_msgs/msg/CompressedImage",
                t + 30,
                compressed(t, "16UC1; compressedDepth"),
            ),
        ]
    return listed


@PLUGINS
def test_a_bag_gives_back_what_was_written(tmp_path, plugin, messages):
    bag = Bag(written(tmp_path / "bag", plugin, messages, latched=["/chatter"]))
    assert bag.name == "bag" and bag.topics == {topic: kind for topic, kind, _, _ in messages}
    wanted = sorted((Recorded(topic, t, data) for topic, _, t, data in messages), key=lambda message: message.time_ns)
    assert list(bag.messages(bag.topics)) == wanted
    assert list(bag.messages(["/eye/depth"])) == [message for message in wanted if message.topic == "/eye/depth"]
    assert not list(bag.messages([]))
    assert bag.colour_images() == ["/eye/image", "/eye/image/compressed"]
    assert [topic for topic in bag.topics if bag.is_latched(topic)] == ["/chatter"]
    bag.close()


@PLUGINS
def test_one_file_of_a_bag_is_enough(tmp_path, plugin, messages):
    folder = written(tmp_path / "bag", plugin, messages)
    (file,) = (path for path in folder.iterdir() if path.name != "metadata.yaml")
    assert len(list(Bag(file).messages(["/eye/image"]))) == 3


def test_images_after_what_was_recorded_a_little_later():
    listed = [
        Recorded(topic, t, b"")
        for topic, t in (("i", 0), ("a", 0), ("a", 10), ("a", 11), ("i", 20), ("i", 21), ("a", 40))
    ]
    order = [(message.topic, message.time_ns) for message in delayed(listed, "i", 10)]
    assert order == [("a", 0), ("a", 10), ("i", 0), ("a", 11), ("i", 20), ("i", 21), ("a", 40)]
    assert list(delayed(listed, "i", 0)) == [listed[1], listed[0], *listed[2:]]
    assert sorted(delayed(listed, "i", 1000)) == sorted(listed)


def test_what_is_no_bag_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(RecordingError, match="there is no bag"):
        Bag(tmp_path / "nothing")
    with pytest.raises(RecordingError, match=r"metadata\.yaml"):
        Bag(tmp_path)
    old = tmp_path / "old.bag"
    old.write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(RecordingError, match="rosbags-convert"):
        Bag(old)
    for name in ("half.mcap", "half.db3", "half.txt"):
        (tmp_path / name).write_bytes(b"\x89MCAP0\r\n and no more")
        with pytest.raises(RecordingError, match=name):
            Bag(tmp_path / name)


@PLUGINS
def test_a_source_of_frames_says_how_to_play_a_bag(tmp_path, plugin, messages):
    folder = written(tmp_path / "bag", plugin, messages)
    for path in folder, next(path for path in folder.iterdir() if path.name != "metadata.yaml"):
        with pytest.raises(ValueError, match="bag_player"):
            open_source(str(path))
