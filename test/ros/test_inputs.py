"""The node's inputs over real DDS: each kind of pose message, TF where it is installed, compressed images, several
cameras, a calibration that changes, time that jumps back."""

from __future__ import annotations

import re
import time
from importlib.util import find_spec
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from rclpy.time import Time  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.geometry.lens import Lens, Rectification  # noqa: E402
from lerf_ros.geometry.poses import quaternion_from_pose, to_optical  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.assembly import FrameAssembler  # noqa: E402
from lerf_ros.ros.declarations import ParameterError, Parameters  # noqa: E402
from lerf_ros.ros.drops import DropCounter, DroppedFrame  # noqa: E402
from lerf_ros.ros.inputs import CameraInputs  # noqa: E402
from lerf_ros.ros.parameters import LERF_PARAMETERS  # noqa: E402
from lerf_ros.ros.pose_sources import POSE_MESSAGES, PoseTopic  # noqa: E402

pytestmark = pytest.mark.ros
TIMEOUT = 60.0  # s, for a loaded machine
DOMAIN = 86
CAMERA = Camera(60.0, 60.0, 31.5, 23.5, 64, 48)
MS = 1_000_000
T0 = 100_000 * MS


class Rig:
    """`CameraInputs` in a node `lerf`, and a node that publishes to it."""

    def __init__(self, context, heard, remapped=(), **parameters):
        self.heard = heard  # names of the messages that the inputs have taken
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in parameters.items()]
        rules = ["--ros-args", *(part for rule in remapped for part in ("-r", rule))]
        self.node = rclpy.create_node("lerf", context=context, cli_args=rules, parameter_overrides=overrides)
        self.camera = rclpy.create_node("camera", context=context)
        self.executor = SingleThreadedExecutor(context=context)
        self.executor.add_node(self.node)
        self.executor.add_node(self.camera)
        self.drops, self.frames, self.publishers = DropCounter(), [], {}
        try:
            settings = Parameters(self.node, LERF_PARAMETERS)
            group = ReentrantCallbackGroup()
            self.inputs = CameraInputs(self.node, settings, self.drops, self.take, group)
        except ParameterError:
            self.close()
            raise

    def take(self, build, camera):
        try:
            self.frames.append((camera, build()))
        except DroppedFrame as drop:
            self.drops.add(drop.reason, str(drop))

    def send(self, name, *messages):
        """Publishes on /lerf/NAME or /NAME, one after the other: DDS keeps no order between topics."""
        for message in messages:
            if name not in self.publishers:
                self.publishers[name] = self.camera.create_publisher(type(message), absolute(name), 10)
                self.spin_until(lambda: self.publishers[name].get_subscription_count())
            before = len(self.heard)
            self.publishers[name].publish(message)
            self.spin_until(lambda before=before: len(self.heard) > before)

    def spin_until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, f"waited too long; drops: {self.drops.snapshot()}"
            self.executor.spin_once(timeout_sec=0.1)

    def expect(self, frames, drops=0):
        """Spins until as many frames and drops are there."""
        self.spin_until(lambda: len(self.frames) >= frames and self.drops.total() >= drops)
        assert (len(self.frames), self.drops.total()) == (frames, drops), self.drops.snapshot()

    def close(self):
        self.node.destroy_node()
        self.camera.destroy_node()
        self.executor.shutdown()


def absolute(name):
    return name if name.startswith("/") else f"/lerf/{name}"


def noting(heard, name, add):
    def noted(self, *arguments):
        add(self, *arguments)
        heard.append(name)

    return noted


@pytest.fixture
def make_rig(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = rclpy.Context()
    context.init(domain_id=DOMAIN)
    heard, rigs = [], []
    for kind, name in ((FrameAssembler, "image"), (FrameAssembler, "camera_info"), (FrameAssembler, "depth")):
        monkeypatch.setattr(kind, f"add_{name}", noting(heard, name, getattr(kind, f"add_{name}")))
    monkeypatch.setattr(PoseTopic, "add", noting(heard, "pose", PoseTopic.add))

    def make(**parameters):
        rigs.append(Rig(context, heard, **{"sync__wait": 60.0, **parameters}))  # nothing here depends on time
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.inputs.close()
        rig.close()
    context.try_shutdown()


def stamped(ms=0.0, frame="camera"):
    return c.header(T0 + round(ms * MS), frame)


def picture(value=90) -> np.ndarray:
    return np.full((48, 64, 3), (value, 120, 30), np.uint8)


def image(ms=0.0, value=90, frame="camera") -> Image:
    return c.image_message(picture(value), stamped(ms, frame))


def info(ms=0.0, camera=CAMERA, **fields) -> CameraInfo:
    message = c.camera_info_message(camera, stamped(ms))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def pose(x: float, degrees: float = 0.0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    T[0, 3] = x
    return T


def pose_message(kind, T, ms, child="base_link"):
    message = c.pose_stamped_message(T, stamped(ms, "map"))
    if kind == "pose":
        return message
    wrapper = PoseWithCovarianceStamped if kind == "pose_with_covariance" else Odometry
    wrapped = wrapper(header=message.header)
    wrapped.pose.pose = message.pose
    if kind == "odometry":
        wrapped.child_frame_id = child
    return wrapped


@pytest.mark.parametrize("kind", list(POSE_MESSAGES))
def test_every_kind_of_pose_message_is_interpolated_and_carried_to_the_camera(make_rig, kind):
    quarter = [0.0, 0.0, float(np.sqrt(0.5)), float(np.sqrt(0.5))]  # about z
    rig = make_rig(
        pose__source=kind, pose__child_frame="base_link", pose__xyz=[1.0, 0.0, 0.5], pose__quaternion=quarter
    )
    rig.send("camera_info", info())
    rig.send("pose", pose_message(kind, pose(0.0), -10.0), pose_message(kind, pose(4.0, 80.0), 30.0))
    rig.send("image", image())
    rig.expect(frames=1)
    T_base_camera = pose(1.0, 90.0)
    T_base_camera[2, 3] = 0.5
    np.testing.assert_allclose(rig.frames[0][1].T_world_camera, pose(1.0, 20.0) @ T_base_camera, atol=1e-9)


def compressed(picture, extension, described, header=b"", ms=0.0) -> CompressedImage:
    message = CompressedImage(header=stamped(ms), format=described)
    message.data.frombytes(header + cv2.imencode(extension, picture)[1].tobytes())
    return message


def test_compressed_colour_and_depth(make_rig):
    rig = make_rig(image__transport="compressed", depth__transport="compressedDepth", depth__use="required")
    rig.send("camera_info", info())
    rig.send("pose", pose_message("pose", pose(0.0), 0.0))
    counts = np.full((48, 64), 1500, np.uint16)
    rig.send("depth/compressedDepth", compressed(counts, ".png", "16UC1; compressedDepth png", bytes(12)))
    rig.send("image/compressed", compressed(picture()[..., ::-1], ".jpg", "rgb8; jpeg compressed bgr8"))
    rig.expect(frames=1)
    frame = rig.frames[0][1]
    assert np.abs(frame.image.astype(int) - picture()).max() <= 3
    np.testing.assert_allclose(frame.depth_z, 1.5, rtol=1e-6)


def test_transports_lie_below_the_remapped_topic(make_rig):
    """As image_transport has it: one rule serves every transport."""
    rig = make_rig(remapped=["~/image:=/camera/color/image_raw"], image__transport="compressed")
    rig.send("camera_info", info())
    rig.send("pose", pose_message("pose", pose(0.0), 0.0))
    rig.send("/camera/color/image_raw/compressed", compressed(picture()[..., ::-1], ".png", "png"))
    rig.expect(frames=1)
    np.testing.assert_array_equal(rig.frames[0][1].image, picture())
    names = {report.name: report.topic for report in rig.inputs.health().reports}
    assert names["image"] == "/camera/color/image_raw/compressed"


def test_two_cameras_on_one_robot(make_rig):
    rig = make_rig(
        cameras=["front", "rear"],
        pose__source="odometry",
        front__pose__xyz=[0.5, 0.0, 0.0],
        rear__pose__xyz=[-0.5, 0.0, 0.0],
    )
    for name, camera in (("front", CAMERA), ("rear", CAMERA.scaled(0.5))):
        rig.send(f"{name}/camera_info", info(camera=camera))
    rig.send("pose", *(pose_message("odometry", pose(x), ms) for x, ms in ((1.0, 0.0), (2.0, 20.0))))
    rig.send("front/image", image(0.0, frame="front"))
    small = c.image_message(picture()[::2, ::2], stamped(10.0, "rear"))
    rig.send("rear/image", small)
    rig.expect(frames=2)
    frames = dict(rig.frames)
    np.testing.assert_allclose(frames["front"].T_world_camera[:3, 3], (1.5, 0.0, 0.0))
    np.testing.assert_allclose(frames["rear"].T_world_camera[:3, 3], (1.0, 0.0, 0.0))
    assert [frame.stream for _, frame in rig.frames] == [name for name, _ in rig.frames]
    assert frames["rear"].camera == CAMERA.scaled(0.5) and frames["front"].camera == CAMERA


def test_calibration_and_resolution_change_in_mid_run(make_rig):
    rig = make_rig()
    bent = (-0.1, 0.02, 0.0, 0.0, 0.0)
    stages = [(CAMERA, ()), (CAMERA, bent), (CAMERA.scaled(2.0), bent)]
    for i, (camera, d) in enumerate(stages):
        rig.send("camera_info", info(100.0 * i, camera, d=list(d)))
        rig.send("pose", pose_message("pose", pose(0.0), 100.0 * i))
        pixels = cv2.resize(picture(), (camera.width, camera.height))
        rig.send("image", c.image_message(pixels, stamped(100.0 * i)))
        rig.expect(frames=i + 1)
    assert [f.camera for _, f in rig.frames] == [Rectification(Lens(camera, d)).camera for camera, d in stages]


def test_a_bag_that_loops_while_time_is_simulated(make_rig):
    """Time stands still, goes on and jumps back; images that wait for a pose of the former round are given up."""
    rig = make_rig(use_sim_time=True, depth__use="required")
    clock = rig.camera.create_publisher(Clock, "/clock", 10)
    for round_ in range(3):
        for ms in (0.0, 2000.0):
            clock.publish(Clock(clock=stamped(ms).stamp))
            rig.send("camera_info", info(ms))
            rig.send("pose", pose_message("pose", pose(ms), ms))
            rig.send("depth", c.depth_message(np.full((48, 64), 2.0, np.float32), stamped(ms)))
            rig.send("image", image(ms))
            rig.expect(frames=3 * round_ - round_ + (1 if ms == 0.0 else 2), drops=round_)
        rig.send("image", image(2500.0))  # its depth and pose never come
        rig.spin_until(lambda: rig.inputs.health().missing)
    assert rig.drops.snapshot() == [("stale: time jumped back while the image waited", 2)]


def test_late_and_missing_depth(make_rig):
    rig = make_rig(depth__use="required", sync__wait=0.2)
    rig.send("camera_info", info())
    for ms in (0.0, 100.0):
        rig.send("pose", pose_message("pose", pose(0.0), ms))
    rig.send("image", image(0.0))
    rig.expect(frames=0, drops=1)
    rig.send("depth", c.depth_message(np.full((48, 64), 2.0, np.float32), stamped(100.0)))
    rig.send("image", image(100.0))
    rig.expect(frames=1, drops=1)
    assert rig.drops.snapshot()[0][0].startswith("no_depth: nothing on ~/depth within 0.02 s")


@pytest.mark.parametrize(
    ("T", "frame", "words"),
    [
        (to_optical(pose(0.0, 90.0), "body"), "camera", ""),
        (pose(0.0, 90.0), "camera", "/lerf/image: it seems to look straight up: .*pose.axes"),
        (to_optical(pose(0.0), "body"), "depth", "camera_info is of frame 'depth', its images of 'camera'"),
    ],
)
def test_frames_that_seem_mixed_up_are_said_once(make_rig, monkeypatch, T, frame, words):
    rig, said = make_rig(), []
    monkeypatch.setattr(rig.node, "get_logger", lambda: SimpleNamespace(warning=said.append))
    message = info()
    message.header.frame_id = frame
    rig.send("camera_info", message)
    for i in range(15):
        rig.send("pose", pose_message("pose", T, i))
        rig.send("image", image(i))
        rig.expect(frames=i + 1)
        assert len(said) == (1 if words and i >= 9 else 0)
    assert not words or re.search(words, said[0])


def test_what_is_missing_is_said(make_rig):
    rig = make_rig()
    assert rig.inputs.health().trouble.startswith("nobody publishes /lerf/camera_info, /lerf/pose, /lerf/image")
    rig.send("pose", pose_message("pose", pose(0.0), -900.0))
    rig.send("camera_info", info())
    rig.send("image", image())
    rig.spin_until(lambda: rig.inputs.health().missing == "poses")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"pose__source": "telepathy"}, "pose, pose_with_covariance, odometry, tf"),
        ({"pose__xyz": [1.0, 2.0]}, r"pose\.xyz"),
        ({"cameras": ["a", "b"]}, r"pose\.child_frame"),
        ({"cameras": ["a", "a"]}, "different names"),
        ({"cameras": ["front left"]}, "letters, digits"),
        ({"cameras": ["a"], "a__pose__quaternion": [0.0, 0.0, 0.0, 0.0]}, r"a\.pose\.quaternion"),
    ],
)
def test_unusable_parameters_are_refused_by_name(make_rig, parameters, words):
    with pytest.raises(ParameterError, match=words):
        make_rig(**parameters)


def transform(parent, child, T, ms=0.0):
    message = TransformStamped(header=stamped(ms, parent), child_frame_id=child)
    position, orientation = quaternion_from_pose(T)
    t, r = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, position)
    r.x, r.y, r.z, r.w = map(float, orientation)
    return message


@pytest.fixture
def broadcast(make_rig):
    """(parameters) -> a rig, and a function that publishes transforms and lets them be heard."""
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="needs tf2_ros")
    tf2_ros = pytest.importorskip("tf2_ros", reason="needs tf2_ros")

    def make(**parameters):
        rig = make_rig(**parameters)
        latched = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        topics = {False: ("/tf", 10), True: ("/tf_static", latched)}
        publishers = {key: rig.camera.create_publisher(tf2_msgs.TFMessage, *topic) for key, topic in topics.items()}
        rig.spin_until(lambda: all(publisher.get_subscription_count() for publisher in publishers.values()))
        buffer = rig.inputs._transforms._buffer

        def send(*transforms, static=False):
            publishers[static].publish(tf2_msgs.TFMessage(transforms=list(transforms)))
            last = transforms[-1]
            at = Time.from_msg(last.header.stamp)
            rig.spin_until(lambda: buffer.can_transform(last.header.frame_id, last.child_frame_id, at))

        assert isinstance(buffer, tf2_ros.Buffer)
        return rig, send

    return make


def test_poses_from_tf_at_the_stamp_of_the_image(broadcast):
    rig, send = broadcast(pose__source="tf", pose__axes="body")
    T_base_camera = pose(0.3, 30.0)
    send(transform("base_link", "camera", T_base_camera), static=True)
    rig.send("camera_info", info())
    rig.send("image", image())
    send(transform("map", "odom", pose(0.0), -100.0), transform("odom", "base_link", pose(1.0), -100.0))
    rig.spin_until(lambda: rig.inputs.health().missing == "poses")  # of the past: it waits
    send(transform("map", "odom", pose(2.0), 100.0), transform("odom", "base_link", pose(3.0, 40.0), 100.0))
    rig.expect(frames=1)
    expected = to_optical(pose(1.0) @ pose(2.0, 20.0) @ T_base_camera, "body")
    np.testing.assert_allclose(rig.frames[0][1].T_world_camera, expected, atol=1e-9)


def test_a_bag_of_transforms_that_loops(broadcast):
    rig, send = broadcast(pose__source="tf")
    send(transform("base_link", "camera", pose(0.5), 0.0), static=True)
    rig.send("camera_info", info())
    for round_ in range(2):
        for ms in (0.0, 60_000.0):
            rig.send("image", image(ms))
            send(transform("map", "base_link", pose(ms), ms))
            rig.expect(frames=2 * round_ + (1 if ms == 0.0 else 2))
    assert [frame.T_world_camera[0, 3] for _, frame in rig.frames] == [0.5, 60_000.5] * 2


def test_a_frame_that_tf_does_not_know_is_named(broadcast):
    rig, send = broadcast(pose__source="tf", sync__wait=0.2)
    send(transform("map", "base_link", pose(0.0)))
    rig.send("camera_info", info())
    rig.send("image", image(frame="lidar"))
    rig.expect(frames=0, drops=1)
    assert rig.drops.snapshot()[0][0].startswith("no_pose: TF from 'lidar' to 'map': ")


def test_extrinsics_from_tf_under_odometry(broadcast):
    rig, send = broadcast(pose__source="odometry", pose__extrinsics="tf", cameras=["front", "rear"])
    mounts = {"front": pose(0.5), "rear": pose(-0.5, 90.0)}
    send(*(transform("base_link", f"{name}_camera", T) for name, T in mounts.items()), static=True)
    rig.send("pose", *(pose_message("odometry", pose(x), ms) for x, ms in ((1.0, -10.0), (2.0, 10.0))))
    for name in mounts:
        rig.send(f"{name}/camera_info", info())
        rig.send(f"{name}/image", image(frame=f"{name}_camera"))
    rig.expect(frames=2)
    for name, frame in rig.frames:
        np.testing.assert_allclose(frame.T_world_camera, pose(1.5) @ mounts[name], atol=1e-9)


@pytest.mark.skipif(find_spec("tf2_ros") is not None, reason="tf2_ros is installed")
@pytest.mark.parametrize("name", ["pose__source", "pose__extrinsics"])
def test_tf_without_tf2_is_refused_with_what_to_do(make_rig, name):
    with pytest.raises(ParameterError, match="TF needs tf2_ros.*install"):
        make_rig(**{name: "tf"})
