"""What a subscription says about how it is served: two nodes over real DDS, and arithmetic on what has arrived."""

from __future__ import annotations

import math
import random
import time
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from lerf_ros.ros import watched_input as w  # noqa: E402
from lerf_ros.ros.conversions import header  # noqa: E402
from lerf_ros.ros.input_health import InputHealth  # noqa: E402

pytestmark = pytest.mark.ros
TIMEOUT = 60.0  # s
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """A listening node and a publishing one, each in a context of its own, as in two processes."""

    def __init__(self) -> None:
        self.contexts = [rclpy.Context(), rclpy.Context()]
        self.executors = []
        for context in self.contexts:
            context.init()
            self.executors.append(SingleThreadedExecutor(context=context))
        self.listener, self.publisher = (
            rclpy.create_node(name, context=context, enable_rosout=False)
            for name, context in zip(("lerf", "camera"), self.contexts, strict=True)
        )
        for executor, node in zip(self.executors, (self.listener, self.publisher), strict=True):
            executor.add_node(node)

    def watch(self, qos=RELIABLE, name="image", callback=lambda message, now: None, **nature) -> w.WatchedInput:
        return w.WatchedInput(
            self.listener, Image, f"~/{name}", callback, qos, name, ReentrantCallbackGroup(), **nature
        )

    def spin_until(self, condition) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            self.executors[0].spin_once(timeout_sec=0.05)

    def end(self) -> None:
        for context, executor, node in zip(self.contexts, self.executors, (self.listener, self.publisher), strict=True):
            executor.shutdown()
            node.destroy_node()
            context.try_shutdown()


@pytest.fixture
def rig(monkeypatch):
    monkeypatch.setenv("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rig = Rig()
    yield rig
    rig.end()


def test_nobody_publishes_and_what_could_be_meant(rig):
    watched = rig.watch()
    assert watched.report().problem == "nobody publishes /lerf/image: start the camera, or remap ~/image"
    rig.publisher.create_publisher(CompressedImage, "/camera/image/compressed", 1)
    rig.publisher.create_publisher(Image, "/camera/depth", 1)
    rig.publisher.create_publisher(Image, "/camera/image", 1)
    rig.spin_until(lambda: len(watched.report().alternatives) == 2)
    assert watched.report().problem == (
        "nobody publishes /lerf/image, but messages of that type come on /camera/image, /camera/depth: remap ~/image"
    )


@pytest.mark.parametrize(
    ("offered", "ours", "words"),
    [
        (
            BEST_EFFORT,
            RELIABLE,
            "publishers: 1, its reliability is BEST_EFFORT, ours RELIABLE: incompatible; "
            "set qos.image.reliability to best_effort",
        ),
        (RELIABLE, LATCHED, "publishers: 1, its durability is VOLATILE, ours TRANSIENT_LOCAL: incompatible"),
        (RELIABLE, BEST_EFFORT, ""),
        (LATCHED, RELIABLE, ""),
    ],
)
def test_incompatible_qos_is_said_at_once(rig, offered, ours, words):
    watched = rig.watch(ours)
    rig.publisher.create_publisher(Image, "/lerf/image", offered)
    rig.spin_until(lambda: watched.report().publishers == 1)
    problem = watched.report().problem
    assert problem.endswith(words) and bool(problem) == bool(words)


def test_another_type_is_named(rig):
    watched = rig.watch()
    rig.publisher.create_publisher(CompressedImage, "/lerf/image", 1)
    rig.spin_until(lambda: watched.report().publishers == 1)
    assert "its type is sensor_msgs/msg/CompressedImage, ours sensor_msgs/msg/Image" in watched.report().problem


def test_one_fitting_publisher_is_enough(rig):
    watched = rig.watch()
    for qos in (BEST_EFFORT, RELIABLE):
        rig.publisher.create_publisher(Image, "/lerf/image", qos)
    rig.spin_until(lambda: watched.report().publishers == 2)
    assert watched.report().problem == ""


def test_messages_are_counted_and_handed_on_and_silence_is_noticed(rig, monkeypatch):
    arrived = []
    watched = rig.watch(callback=lambda message, now: arrived.append((message, now)))
    publisher = rig.publisher.create_publisher(Image, "/lerf/image", RELIABLE)
    rig.spin_until(lambda: publisher.get_subscription_count() == 1 and watched.report().publishers == 1)
    publisher.publish(Image(header=header(rig.publisher.get_clock().now().nanoseconds - 3_000_000_000, "camera")))
    rig.spin_until(lambda: arrived)
    report = watched.report()
    assert (report.received, report.lost, report.problem) == (1, 0, "")
    assert report.delay > 3.0
    later = SimpleNamespace(monotonic=lambda: arrived[0][1] + 12.0)
    monkeypatch.setattr(w, "time", later)
    report = watched.report()
    assert report.silence == pytest.approx(12.0) and report.rate == 0.0
    assert report.problem.startswith("no message on /lerf/image for 12 s; publishers: 1, type and QoS fit")


def test_rate_and_offsets_are_those_of_the_stamps(rig, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(w, "time", SimpleNamespace(monotonic=lambda: clock.now))
    image, depth = rig.watch(), rig.watch(name="depth", optional=True)
    assert math.isnan(depth.report(image).offset)
    for i in range(20):  # 10 Hz; the depth's stamps are 4 ms later, and every other one is missing
        clock.now += 0.1
        image._on_message(Image(header=header(i * 100_000_000, "camera")))
        depth._on_message(Image(header=header(i * 100_000_000 + 4_000_000, "camera")))
    assert image.report().rate == pytest.approx(10.0)
    assert depth.report(image).offset == pytest.approx(0.004)


def test_losses_are_counted_and_a_warning_says_what_helps(rig, monkeypatch):
    said = []
    monkeypatch.setattr(
        rig.listener, "get_logger", lambda: SimpleNamespace(warning=lambda text, **_: said.append(text))
    )
    watched = rig.watch()
    for _ in range(99):
        watched._on_message(Image(header=header(0, "camera")))
    watched._on_lost(SimpleNamespace(total_count_change=1))
    assert not said and not watched.report().loses  # one of a hundred
    watched._on_lost(SimpleNamespace(total_count_change=30))
    assert watched.report().lost == 31 and watched.report().loses
    assert "31 messages of /lerf/image have been lost in transport, 99 have come: use config/fastdds.xml" in said[0]


def test_optional_inputs_are_no_trouble_and_those_that_nobody_publishes_share_a_sentence(rig):
    needed = [rig.watch(name=name).report() for name in ("image", "pose")]
    optional = rig.watch(name="depth", optional=True).report()
    assert optional.problem and InputHealth((optional,)).trouble == ""
    assert InputHealth((*needed, optional)).trouble == (
        "nobody publishes /lerf/image, /lerf/pose: start the camera, or remap the topics"
    )
    assert InputHealth((needed[1],)).trouble.endswith("remap ~/pose")
