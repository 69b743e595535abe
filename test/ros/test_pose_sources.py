"""Poses of images from each kind of message, against SciPy, and from a buffer with the API of tf2_ros."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rclpy.duration import Duration  # noqa: E402
from rclpy.time import Time  # noqa: E402
from scipy.spatial.transform import Rotation, Slerp  # noqa: E402

from lerf_ros.geometry.poses import to_optical  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros import pose_sources as p  # noqa: E402
from lerf_ros.ros.drops import DroppedFrame, DropReason  # noqa: E402
from lerf_ros.ros.transforms import Transforms, TransformsMissing, open_transforms  # noqa: E402

pytestmark = pytest.mark.ros
MS = 1_000_000
T0 = 100_000 * MS


def random_pose(seed: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return pose


def message(kind: str, T: np.ndarray, ms: float, frame: str = "map", child: str = "base_link"):
    stamped = c.pose_stamped_message(T, c.header(T0 + round(ms * MS), frame))
    if kind == "pose":
        return stamped
    if kind == "pose_with_covariance":
        wrapped = PoseWithCovarianceStamped(header=stamped.header)
    else:
        wrapped = Odometry(header=stamped.header, child_frame_id=child)
    wrapped.pose.pose = stamped.pose
    return wrapped


def topic(mount=None, **options) -> p.PoseTopic:
    return p.PoseTopic(p.PoseOptions(**options), p.FixedMount(mount or c.CameraMount()))


every_message = pytest.mark.parametrize("kind", list(p.POSE_MESSAGES))


@every_message
def test_poses_are_interpolated_at_the_stamp_and_carried_to_the_camera(kind):
    before, after, T_base_camera = random_pose(1), random_pose(2), random_pose(3)
    poses = topic(c.CameraMount("body", T_base_camera))
    poses.add(message(kind, before, -30.0))
    poses.add(message(kind, after, +10.0))
    turn = Slerp([0, 1], Rotation.from_matrix(np.stack([before[:3, :3], after[:3, :3]])))(0.75).as_matrix()
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = turn, 0.25 * before[:3, 3] + 0.75 * after[:3, 3]
    found = poses.at(T0, "camera", expired=False)
    np.testing.assert_allclose(found, to_optical(expected @ T_base_camera, "body"), atol=1e-12)


@every_message
def test_the_very_stamp_needs_no_neighbours(kind):
    poses = topic(c.CameraMount("optical", random_pose(4)))
    poses.add(message(kind, random_pose(1), 0.0))
    np.testing.assert_allclose(poses.at(T0, "camera", expired=False), random_pose(1) @ random_pose(4), atol=1e-12)


def test_the_nearest_pose_serves_within_the_slop_once_no_later_one_can_be_hoped_for():
    poses = topic(slop=0.02)
    poses.add(message("pose", random_pose(1), -10.0))
    assert poses.at(T0, "camera", expired=False) is None
    np.testing.assert_allclose(poses.at(T0, "camera", expired=True), random_pose(1), atol=1e-12)
    late = poses.at(T0 + 9 * MS, "camera", expired=True)
    np.testing.assert_allclose(late, random_pose(1), atol=1e-12)  # held: motion is not carried on
    with pytest.raises(DroppedFrame, match="0.021 s from the image's stamp") as dropped:
        poses.at(T0 + 11 * MS, "camera", expired=True)
    assert dropped.value.reason == DropReason.NO_POSE


def test_poses_far_apart_are_not_interpolated():
    poses = topic(gap=0.1, slop=0.02)
    poses.add(message("pose", random_pose(1), -90.0))
    poses.add(message("pose", random_pose(2), +11.0))
    np.testing.assert_allclose(poses.at(T0, "camera", expired=False), random_pose(2), atol=1e-12)
    assert poses.at(T0 - 40 * MS, "camera", expired=False) is None
    with pytest.raises(DroppedFrame, match="0.050 s"):
        poses.at(T0 - 40 * MS, "camera", expired=True)


def test_poses_out_of_order_and_after_a_jump_back():
    poses = topic(queue=3)
    for ms in (20.0, -20.0, 0.0):
        poses.add(message("pose", random_pose(round(ms) + 30), ms))
    np.testing.assert_allclose(poses.at(T0, "camera", expired=False), random_pose(30), atol=1e-12)
    poses.add(message("pose", random_pose(7), -5000.0))
    assert poses.at(T0, "camera", expired=False) is None
    np.testing.assert_allclose(poses.at(T0 - 5000 * MS, "camera", expired=False), random_pose(7), atol=1e-12)


@every_message
@pytest.mark.parametrize(
    ("T", "frame", "words"),
    [
        (np.eye(4), "odom", "in frame 'odom', the map is in 'map': set map.frame"),
        (None, "map", "unit quaternion"),
    ],
)
def test_bad_poses_are_said_at_once(kind, T, frame, words):
    poses = topic()
    bad = message(kind, np.eye(4), 0.0, frame, child="")
    if T is None:
        (bad.pose if kind == "pose" else bad.pose.pose).orientation.w = 0.0
    poses.add(bad)
    with pytest.raises(DroppedFrame, match=words) as dropped:
        poses.at(T0, "camera", expired=False)
    assert dropped.value.reason == DropReason.BAD_POSE


def test_frames_with_a_leading_slash_are_the_same():
    poses = topic(child_frame="/camera")
    poses.add(message("odometry", np.eye(4), 0.0, "/map", "camera"))
    assert poses.at(T0, "/camera", expired=False) is not None


@pytest.mark.parametrize(
    ("options", "child", "camera_frame", "words"),
    [
        ({}, "base_link", "camera", "poses move 'base_link', images come from 'camera': set pose.xyz"),
        ({"child_frame": "base_link"}, "", "camera", "poses move 'base_link'"),
        ({"child_frame": "camera"}, "base_link", "camera", "odometry moves 'base_link'.*pose.child_frame is 'camera'"),
        ({}, "camera", "camera", ""),
        ({}, "", "camera", ""),
    ],
)
def test_the_child_frame_of_odometry_is_checked(options, child, camera_frame, words):
    poses = topic(**options)
    poses.add(message("odometry", np.eye(4), 0.0, child=child))
    if words:
        with pytest.raises(DroppedFrame, match=words):
            poses.at(T0, camera_frame, expired=False)
    else:
        assert poses.at(T0, camera_frame, expired=False) is not None


class TransformException(Exception):
    pass


class Buffer:
    """What `tf2_ros.Buffer` offers: signatures and exceptions of tf2_ros_py; one moving and one static transform."""

    def __init__(self):
        self.poses = {}  # stamp_ns -> T_map_base

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),  # noqa: B008
    ) -> TransformStamped:
        assert timeout == Duration(), "a callback must not wait"
        known = {"map", "base_link", "camera"}
        if not {target_frame, source_frame} <= known:
            raise TransformException(f'"{source_frame}" passed to lookupTransform does not exist.')
        T_base_camera = random_pose(9)
        if target_frame == "base_link":
            T = T_base_camera
        elif time.nanoseconds not in self.poses:
            raise TransformException("Lookup would require extrapolation into the future.")
        else:
            T = self.poses[time.nanoseconds] @ T_base_camera
        transform = TransformStamped()
        q = Rotation.from_matrix(T[:3, :3]).as_quat()
        t, r = transform.transform.translation, transform.transform.rotation
        t.x, t.y, t.z = map(float, T[:3, 3])
        r.x, r.y, r.z, r.w = map(float, q)
        return transform

    def clear(self) -> None:
        self.poses.clear()


def test_tf_is_asked_again_until_it_knows():
    buffer = Buffer()
    poses = p.TransformPoses(Transforms(buffer, TransformException), "/map", "optical")
    assert poses.at(T0, "camera", expired=False) is None
    buffer.poses[T0] = random_pose(1)
    np.testing.assert_allclose(poses.at(T0, "/camera", expired=False), random_pose(1) @ random_pose(9), atol=1e-12)
    body = p.TransformPoses(Transforms(buffer, TransformException), "map", "body")
    expected = to_optical(random_pose(1) @ random_pose(9), "body")
    np.testing.assert_allclose(body.at(T0, "camera", expired=False), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("camera_frame", "words", "reason"),
    [
        ("camera", "TF from 'camera' to 'map': Lookup would require extrapolation", DropReason.NO_POSE),
        ("lidar", "'lidar' to 'map'.*does not exist", DropReason.NO_POSE),
        ("", "the image has no frame_id", DropReason.BAD_POSE),
    ],
)
def test_what_tf_does_not_know_is_said_in_its_own_words(camera_frame, words, reason):
    poses = p.TransformPoses(Transforms(Buffer(), TransformException), "map", "optical")
    with pytest.raises(DroppedFrame, match=words) as dropped:
        poses.at(T0, camera_frame, expired=True)
    assert dropped.value.reason == reason


def test_a_transform_that_is_no_rotation_is_a_bad_pose(monkeypatch):
    buffer = Buffer()
    monkeypatch.setattr(buffer, "lookup_transform", lambda *_: _unset())
    with pytest.raises(DroppedFrame, match="unit quaternion") as dropped:
        p.TransformPoses(Transforms(buffer, TransformException), "map", "optical").at(T0, "camera", expired=False)
    assert dropped.value.reason == DropReason.BAD_POSE


def _unset() -> TransformStamped:
    transform = TransformStamped()
    transform.transform.rotation.w = 0.0
    return transform


def test_an_image_without_a_stamp_does_not_get_the_latest_transform():
    buffer = Buffer()
    buffer.poses[0] = np.eye(4)  # to tf2, time 0 is "the latest"
    poses = p.TransformPoses(Transforms(buffer, TransformException), "map", "optical")
    with pytest.raises(DroppedFrame, match="the image has no stamp"):
        poses.at(0, "camera", expired=False)


def test_time_that_jumps_back_clears_the_buffer():
    buffer = Buffer()
    buffer.poses[T0] = np.eye(4)
    p.TransformPoses(Transforms(buffer, TransformException), "map", "optical").begin_again()
    assert not buffer.poses


def test_extrinsics_from_tf_under_poses_from_a_topic():
    mount = p.TransformMount(Transforms(Buffer(), TransformException), "optical")
    poses = p.PoseTopic(p.PoseOptions(child_frame="base_link"), mount)
    poses.add(message("pose", random_pose(1), 0.0))
    np.testing.assert_allclose(poses.at(T0, "camera", expired=False), random_pose(1) @ random_pose(9), atol=1e-12)
    assert poses.at(T0, "lidar", expired=False) is None
    with pytest.raises(DroppedFrame, match="does not exist"):
        poses.at(T0, "lidar", expired=True)
    nameless = p.PoseTopic(p.PoseOptions(), mount)
    nameless.add(message("pose", random_pose(1), 0.0))
    with pytest.raises(DroppedFrame, match=r"set pose\.child_frame"):
        nameless.at(T0, "camera", expired=False)


def test_missing_tf2_is_said_with_what_to_install(monkeypatch):
    real = builtins.__import__

    def without_tf2(name, *args, **kwargs):
        if name == "tf2_ros":
            raise ModuleNotFoundError("No module named 'tf2_ros'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_tf2)
    with pytest.raises(TransformsMissing, match=r"install ros-\$ROS_DISTRO-tf2-ros-py .*pose\.source"):
        open_transforms(None)


def test_wrong_axes_look_wrong():
    T_world_body = np.eye(4)
    T_world_body[:3, :3] = Rotation.from_euler("zy", [70, 15], degrees=True).as_matrix()  # level, looking a bit down
    assert not p.doubt_of_axes(to_optical(T_world_body, "body"))
    assert "straight up" in p.doubt_of_axes(T_world_body)  # taken as optical
    optical = to_optical(T_world_body, "body")
    assert "on its side" in p.doubt_of_axes(to_optical(optical, "body"))  # taken as body
