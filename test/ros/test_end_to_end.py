"""Real nodes in processes of their own over real DDS: a recording is mapped, questions are answered, and whatever can
be wrong with the input gets a clear answer and harms nothing."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.client import ClientError, LerfClient  # noqa: E402

TOPICS = ("image", "camera_info", "depth", "pose")
pytestmark = [pytest.mark.ros, pytest.mark.slow]
TIMEOUT = 90.0  # s, for a loaded machine
CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH = np.full((120, 160), 2.0, np.float32)
FRAMES = 12  # of the recording


def interrupted(process: subprocess.Popen) -> int:
    """Exit status after SIGINT."""
    process.send_signal(signal.SIGINT)
    return process.wait(TIMEOUT)


class Peer:
    """A node of the test's own, in a context of its own."""

    def __enter__(self):
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        return self

    def __exit__(self, *_):
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    def spin_until(self, condition) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            self.executor.spin_once(timeout_sec=0.1)


class ScriptedCamera(Peer):
    """Publishes one frame at a time to /lerf, with faults on request."""

    def __enter__(self):
        super().__enter__()
        kinds = {"camera_info": CameraInfo, "pose": PoseStamped, "depth": Image, "image": Image}
        self.publishers = {name: self.node.create_publisher(kind, f"/lerf/{name}", 10) for name, kind in kinds.items()}
        self.spin_until(lambda: all(p.get_subscription_count() for p in self.publishers.values()))
        return self

    def publish(
        self,
        without="",
        depth=DEPTH,
        position=(0.0, 0.0, 0.0),
        quaternion=(0.0, 0.0, 0.0, 1.0),
        pose_frame="map",
        **fields,
    ):
        """One frame; `fields` are set on the image or the camera_info, whichever has them."""
        stamped = c.header(self.node.get_clock().now().nanoseconds, "camera")
        texture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        messages = {
            "camera_info": c.camera_info_message(CAMERA, stamped),
            "pose": c.pose_stamped_message(np.eye(4), stamped),
            "depth": c.depth_message(depth, stamped),
            "image": c.image_message(texture, stamped),
        }
        messages["pose"].pose = c.pose_message(position, quaternion)
        messages["pose"].header = c.header(c.stamp_to_ns(stamped.stamp), pose_frame)
        for name, value in fields.items():
            setattr(messages["image" if name in ("encoding", "height") else "camera_info"], name, value)
        for name, message in messages.items():
            if name != without:
                self.publishers[name].publish(message)


class Listener(Peer):
    """Subscribes to the camera node."""

    def collect(self, count: int) -> list[int]:
        """Stamps of the first images."""
        stamps = []
        kinds = {"camera_info": CameraInfo, "pose": PoseStamped, "depth": Image, "image": Image}
        for name, kind in kinds.items():
            add = (lambda m: stamps.append(c.stamp_to_ns(m.header.stamp))) if name == "image" else (lambda m: None)
            self.node.create_subscription(kind, f"/camera/{name}", add, 10)
        self.spin_until(lambda: len(stamps) >= count)
        return stamps


class TargetListener(Peer):
    """Subscribes to the best target and receives the last one, however late it comes."""

    def latest(self, stamp) -> tuple[PoseStamped, PoseWithCovarianceStamped]:
        """The best target on both topics, which was published at this stamp or later."""
        received = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        for name, kind in (("target", PoseStamped), ("target_with_covariance", PoseWithCovarianceStamped)):
            self.node.create_subscription(
                kind, f"/lerf/{name}", lambda message, name=name: received.update({name: message}), latched
            )
        wanted = c.stamp_to_ns(stamp)
        self.spin_until(
            lambda: len(received) == 2 and all(c.stamp_to_ns(m.header.stamp) >= wanted for m in received.values())
        )
        return received["target"], received["target_with_covariance"]


@pytest.fixture
def client(domain) -> Iterator[LerfClient]:
    with LerfClient(timeout=TIMEOUT) as client:
        yield client


def test_a_recording_is_mapped_asked_saved_reset_and_loaded(processes, tiny, recording, client, tmp_path):
    node = processes.start("lerf_node", "autostart:=true", f"map.path:={tmp_path / 'map'}", *tiny, remap=True)
    early = client.wait_for_status(lambda status: status.state == "active")
    assert early.keyframes == 0 and "nobody publishes /camera/camera_info" in early.message
    answer = client.query("a chair")
    assert not answer.success and answer.message.startswith("no keyframe yet: nobody publishes")

    camera = processes.start(
        "camera_node", f"source:={recording}", "pace:=consumed", "rate:=100.0", "holdout:=4", "once:=true"
    )
    assert camera.wait(TIMEOUT) == 0, camera.log.read_text()
    status = client.wait_for_status(lambda status: status.steps > 5)
    assert status.frames_received == FRAMES * 3 // 4, status
    assert 3 <= status.keyframes <= 8 == status.keyframe_capacity
    assert not status.drop_reasons and status.device == "cpu" and status.memory_mb > 0
    status = client.wait_for_status(lambda status: status.pyramid_progress == 1 and status.steps > 0)

    texts = ["a chair", "a red mug"] * 32
    answers = client.query_all(texts)
    assert all(answer.success or "the map is young" in answer.message for answer in answers)
    assert all(0 <= answer.best_relevancy <= 1 for answer in answers)
    assert client.wait_for_status().last_query in texts
    while not (anything := client.query("a chair", max_targets=2, min_relevancy=0.0)).found:
        assert status.steps < 3000, "training brought up no surface"
        status = client.wait_for_status(lambda now, before=status.steps: now.steps > before + 100)
    assert 1 <= len(anything.targets) <= 2
    position = anything.targets[0].pose.pose.position
    assert anything.targets[0].pose.header.frame_id == "map"
    assert -1.5 < position.x < 4.0 and abs(position.y) < 1.5 and abs(position.z - 2.0) < 0.3  # on the wall
    with TargetListener() as listener:
        target, with_covariance = listener.latest(anything.targets[0].pose.header.stamp)
    assert target == anything.targets[0].pose
    assert (with_covariance.header, with_covariance.pose.pose) == (target.header, target.pose)
    covariance = np.array(with_covariance.pose.covariance).reshape(6, 6)
    np.testing.assert_array_equal(covariance[:3, :3], np.reshape(anything.targets[0].covariance, (3, 3)))
    assert (np.linalg.eigvalsh(covariance) > 0).all()
    deviations = np.sqrt(np.diag(covariance))
    assert deviations[2] > max(deviations[:2])  # all cameras look along z

    for text, words in (("", "empty"), ("   ", "empty"), ("a purple zorble", "'zorble'")):
        answer = client.query(text)
        assert not answer.success and words in answer.message
    assert not client.query("a chair", min_relevancy=7.0).success

    assert client.save_map().success and (tmp_path / "map").is_dir()
    missing = client.load_map(str(tmp_path / "nothing"))
    assert not missing.success and "nothing" in missing.message
    damaged = shutil.copytree(tmp_path / "map", tmp_path / "damaged")
    largest = max(damaged.iterdir(), key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    refused = client.load_map(str(damaged))
    assert not refused.success and "damaged" in refused.message
    assert client.query("a chair").success  # the present map stays
    assert client.reset().success
    assert client.wait_for_status().keyframes == 0
    assert "no keyframe yet" in client.query("a chair").message
    loaded = client.load_map()
    assert loaded.success, loaded.message
    assert client.wait_for_status(lambda s: s.keyframes > 0).keyframes == status.keyframes
    assert client.query("a chair").success

    steps = client.wait_for_status().steps
    client.wait_for_status(lambda status: status.steps > steps)  # in the middle of training
    assert interrupted(node) == 0, node.log.read_text()
    assert "Traceback" not in node.log.read_text()


def test_a_young_map_says_so_and_no_longer_when_it_has_learned(processes, tiny, recording, client, set_parameters):
    once_an_hour = "training.max_rate:=0.0003"
    processes.start("lerf_node", "autostart:=true", once_an_hour, *tiny, remap=True)
    processes.start("camera_node", f"source:={recording}", "pace:=consumed", "rate:=100.0", "once:=true")
    status = client.wait_for_status(lambda status: status.frames_received == FRAMES and status.pyramid_progress == 1)
    assert status.steps <= 1
    for min_relevancy in (-1.0, 0.0):
        answer = client.query("a chair", min_relevancy=min_relevancy)
        assert f"the map is young: after {status.steps} training step" in answer.message
        assert f" on {status.keyframes} keyframes its geometry is still uncertain" in answer.message
        assert "not found:" not in answer.message
        assert answer.success == (answer.found or answer.best_relevancy > 0)  # else it could not be answered

    assert set_parameters(client, training__max_rate=0.0) == ""
    while not (answer := client.query("a chair", min_relevancy=0.0)).found or "young" in answer.message:
        assert status.steps < 3000, answer.message
        status = client.wait_for_status(lambda now, before=status.steps: now.steps > before + 100)
    assert answer.message.startswith(f"{len(answer.targets)} found")


def test_lifecycle_and_bad_inputs(processes, tiny, client):
    surely = [f"qos.{topic}.reliability:=reliable" for topic in TOPICS]  # each message is sent once
    node = processes.start("lerf_node", "sync.wait:=2.0", *surely, *tiny)
    assert client.state() == "unconfigured"
    answer = client.query("a chair")
    assert not answer.success and "ros2 lifecycle set /lerf configure" in answer.message
    assert not client.change_state("activate")
    assert client.change_state("configure") and client.state() == "inactive"
    for response in (client.query("a chair"), client.save_map(), client.load_map("x"), client.reset()):
        assert not response.success
        assert response.message == "lerf is inactive: ros2 lifecycle set /lerf activate"
    assert client.change_state("activate") and client.state() == "active"

    with ScriptedCamera() as camera:
        for fields, reason in (
            ({"encoding": "h264"}, "bad_image: image encoding 'h264' is not supported; supported: rgb8"),
            ({"height": 0}, "bad_image: the image is empty"),
            ({"k": [0.0] * 9}, "bad_camera_info: the camera is uncalibrated"),
            ({"d": [0.3]}, "bad_camera_info: CameraInfo: 1 distortion coefficients"),
            ({"depth": np.ones((60, 70), np.float32)}, "unregistered_depth: 70x60 vs image 160x120"),
            ({"position": (float("nan"), 0.0, 0.0)}, "bad_pose: the pose contains NaN"),
            ({"quaternion": (0.0, 0.0, 0.0, 0.0)}, "bad_pose: the orientation is not a unit quaternion"),
            ({"pose_frame": "odom"}, "bad_pose: poses are given in frame 'odom'"),
            ({"without": "pose"}, "no_pose"),
        ):
            camera.publish(**fields)
            status = client.wait_for_status(
                lambda status, reason=reason: any(text.startswith(reason) for text in status.drop_reasons)
            )
            assert status.state == "active" and status.frames_received == 0
        assert sum(status.drop_counts) == 9
        camera.publish()
        assert client.wait_for_status(lambda status: status.frames_received == 1).keyframes == 1

    assert client.change_state("deactivate") and client.state() == "inactive"
    assert client.change_state("cleanup") and client.state() == "unconfigured"
    assert client.wait_for_status().keyframes == 0
    assert interrupted(node) == 0, node.log.read_text()


def test_an_encoder_that_does_not_exist_fails_configure_and_can_be_tried_again(processes, tiny, client):
    node = processes.start("lerf_node", "encoder.model:=ViT-Z-99", *tiny)
    assert not client.change_state("configure")
    assert client.state() == "unconfigured"
    assert "ViT-Z-99" in node.log.read_text()
    assert not client.change_state("configure")
    assert interrupted(node) == 0


@pytest.mark.parametrize(
    ("executable", "parameter", "words"),
    [
        ("lerf_node", "status.rate:=-1.0", "status.rate"),
        ("camera_node", "source:=/there/is/nothing", "/there/is/nothing"),
    ],
)
def test_unusable_parameters_end_a_node_with_a_reason(processes, executable, parameter, words):
    process = processes.start(executable, parameter)
    assert process.wait(TIMEOUT) == 2
    assert words in process.log.read_text() and "Traceback" not in process.log.read_text()


def test_camera_node_ends_cleanly_on_sigint(processes, recording, client):
    camera = processes.start("camera_node", f"source:={recording}", "loop:=true", "rate:=50.0")
    with Listener() as listener:
        stamps = listener.collect(FRAMES + 3)  # beyond the end: it began again
    assert len(set(stamps)) == len(stamps)
    assert interrupted(camera) == 0, camera.log.read_text()
    assert "Traceback" not in camera.log.read_text()


def test_client_says_what_is_missing(domain):
    with LerfClient("/nobody", timeout=0.5) as client:
        with pytest.raises(ClientError, match="is the node running"):
            client.query("a chair")
        with pytest.raises(ClientError, match="nothing on /nobody/status"):
            client.wait_for_status()
