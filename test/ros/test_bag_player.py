"""A bag recorded from the camera node and played back gives the keyframes of the live run; topics, pace and time."""

from __future__ import annotations

import json
import re
import time
from functools import partial

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_typestore  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.bag_player import BagPlayer  # noqa: E402
from lerf_ros.ros.client import LerfClient  # noqa: E402

pytestmark = pytest.mark.ros
TIMEOUT = 90.0  # s, for a loaded machine
KINDS = {
    "/camera/image": Image,
    "/camera/camera_info": CameraInfo,
    "/camera/depth": Image,
    "/camera/pose": PoseStamped,
}
RELIABLE = [f"qos.{name}.reliability:=reliable" for name in ("image", "camera_info", "depth", "pose")]


class Recorder:
    """Collects what is published, as it was sent."""

    def __init__(self):
        self.heard = []  # (topic, bytes)

    def __enter__(self):
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("recorder", context=self.context)
        for topic, kind in (KINDS | {"/clock": Clock}).items():
            keep = partial(lambda topic, data: self.heard.append((topic, bytes(data))), topic)
            self.node.create_subscription(kind, topic, keep, QoSProfile(depth=1000), raw=True)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        return self

    def __exit__(self, *_):
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    def of(self, topic):
        return [data for name, data in self.heard if name == topic]

    def spin_until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            self.executor.spin_once(timeout_sec=0.1)

    def write(self, folder, plugin):
        """A bag of it, a tenth of a second between two messages."""
        with Writer(folder, version=9, storage_plugin=plugin) as bag:
            store = get_typestore(Stores.ROS2_KILTED)
            connections = {
                topic: bag.add_connection(
                    topic, "/msg/".join((kind.__module__.split(".")[0], kind.__name__)), typestore=store
                )
                for topic, kind in KINDS.items()
            }
            for i, (topic, data) in enumerate(self.heard):
                bag.write(connections[topic], (i + 1) * 100_000_000, data)
        return folder


@pytest.fixture
def keyframes(processes, tiny, tmp_path):
    """(program that publishes, its parameters) -> stamps of the keyframes of a new map that takes 12 frames."""

    def of(executable, *parameters, spin=lambda process: process.wait(TIMEOUT)):
        wanted = ["autostart:=true", "keyframe.translation:=0.3", "keyframe.rotation:=3.0"]
        node = processes.start("lerf_node", *wanted, *tiny, *RELIABLE, remap=True)
        with LerfClient(timeout=TIMEOUT) as client:
            client.wait_for_status(lambda status: status.state == "active")
            publisher = processes.start(executable, *parameters, "pace:=consumed", "once:=true")
            spin(publisher)
            assert publisher.wait(TIMEOUT) == 0, publisher.log.read_text()
            status = client.wait_for_status()
            assert status.frames_received == 12 and not status.drop_reasons, publisher.log.read_text()
            saved = client.save_map(str(tmp_path / "map"))
            assert saved.success, saved.message
        node.terminate()
        assert node.wait(TIMEOUT) == 0
        return json.loads((tmp_path / "map" / "map.json").read_text())["keyframes"]["stamps_ns"]

    return of


@pytest.mark.slow
def test_a_bag_of_a_live_run_gives_its_keyframes(keyframes, recording, tmp_path):
    with Recorder() as recorder:
        live = keyframes(
            "camera_node",
            f"source:={recording}",
            "rate:=100.0",
            "subscribers:=2",  # the map and the recorder
            spin=lambda camera: recorder.spin_until(lambda: camera.poll() is not None),
        )
        recorder.spin_until(lambda: all(len(recorder.of(topic)) == 12 for topic in KINDS))
        stamps = [stamp(data) for data in recorder.of("/camera/image")]
        assert 3 <= len(live) < 12 and set(live) < set(stamps)
        bag = recorder.write(tmp_path / "bag", StoragePlugin.MCAP)
    assert keyframes("bag_player", f"bag:={bag}") == live


def stamp(data):
    """ns, of a message with a header."""
    message = deserialize_message(data, Image)
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


@pytest.fixture
def bag(tmp_path):
    """Two images, a depth image and a pose before each, from 0.1 s to 0.6 s."""
    recorder = Recorder()
    for i in range(2):
        stamped = c.header(10**9 * (i + 1), "camera")
        depth, image = np.full((2, 3), 1.0 + i, np.float32), np.full((2, 3, 3), i, np.uint8)
        for topic, message in (
            ("/camera/depth", c.depth_message(depth, stamped)),
            ("/camera/pose", c.pose_stamped_message(np.eye(4), stamped)),
            ("/camera/image", c.image_message(image, stamped)),
        ):
            recorder.heard.append((topic, serialize_message(message)))
    return recorder.write(tmp_path / "bag", StoragePlugin.MCAP), recorder.heard


@pytest.fixture
def player(domain):
    """(parameters) -> a player in this process, in the default context."""
    players = []

    def play(*parameters):
        rclpy.init(args=["--ros-args", *(part for parameter in parameters for part in ("-p", parameter))])
        players.append(BagPlayer())
        return players[-1]

    yield play
    for player in players:
        player.destroy_node()
    rclpy.try_shutdown()


def test_what_was_recorded_is_sent_again_in_its_order_and_time(player, bag):
    folder, recorded = bag
    node = player(f"bag:={folder}", "speed:=10.0", "loop:=true")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with Recorder() as recorder:

        def all_twice():
            executor.spin_once(timeout_sec=0.01)
            topics = ("/camera/depth", "/camera/pose", "/camera/image")
            return len(recorder.of("/clock")) >= 12 and all(len(recorder.of(topic)) >= 4 for topic in topics)

        recorder.spin_until(all_twice)
    executor.shutdown()
    for topic in ("/camera/depth", "/camera/pose", "/camera/image"):
        sent = [data for name, data in recorded if name == topic]
        messages = [
            [deserialize_message(data, KINDS[topic]) for data in some] for some in (recorder.of(topic)[:4], sent)
        ]
        assert messages[0] == messages[1] * 2  # it began again
    times = [deserialize_message(data, Clock).clock for data in recorder.of("/clock")[:12]]
    assert [round(time.sec * 10 + time.nanosec * 1e-8) for time in times] == [1, 2, 3, 4, 5, 6] * 2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ((), "parameter bag is empty"),
        (("bag:=/there/is/nothing",), "there is no bag /there/is/nothing"),
        (("bag:={bag}", "topics:=['/eye']"), "no messages on /eye; it has /camera/image, /camera/depth, /camera/pose"),
        (("bag:={bag}", "topics:=['/camera/depth']"), "none of its topics has colour images"),
        (("bag:={bag}", "image:=/camera/depth"), "the parameter image; its topics with colour images: /camera/image"),
    ],
)
def test_what_cannot_be_played_is_said(player, bag, parameters, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        player(*(parameter.format(bag=bag[0]) for parameter in parameters))
