import numpy as np
import pytest
from scipy.spatial.transform import Rotation, Slerp

from lerf_ros.geometry.poses import (
    T_optical_from_body,
    check_pose,
    interpolated,
    pose_from_quaternion,
    quaternion_from_pose,
    rotation_angle,
    to_optical,
)


def random_pose(seed):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return pose


@pytest.mark.parametrize("seed", range(10))
def test_quaternion_conversions_agree_with_scipy(seed):
    pose = random_pose(seed)
    quaternion = Rotation.from_matrix(pose[:3, :3]).as_quat(canonical=True)
    np.testing.assert_allclose(pose_from_quaternion(pose[:3, 3], quaternion), pose, atol=1e-12)
    position, back = quaternion_from_pose(pose)
    np.testing.assert_allclose(position, pose[:3, 3])
    np.testing.assert_allclose(back, quaternion, atol=1e-12)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_quaternion_of_a_half_turn(axis):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler(axis, np.pi).as_matrix()
    _, quaternion = quaternion_from_pose(pose)
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), pose[:3, :3], atol=1e-12)


@pytest.mark.parametrize("angle", [1e-7, 1e-3, 0.5, 3.0, np.pi])
def test_rotation_angle(angle):
    base = Rotation.random(random_state=3)
    turned = base * Rotation.from_rotvec(angle * np.array([0.6, 0.0, 0.8]))
    assert rotation_angle(base.as_matrix(), turned.as_matrix()) == pytest.approx(angle, rel=1e-7)


def test_a_level_robot_looking_along_map_x():
    """Body axes: forward is map x. The optical axis must be map x, image-down must be map -z."""
    T_world_camera = to_optical(np.eye(4), "body")
    np.testing.assert_allclose(T_world_camera[:3, 2], [1, 0, 0])
    np.testing.assert_allclose(T_world_camera[:3, 1], [0, 0, -1])
    np.testing.assert_allclose(T_world_camera @ T_optical_from_body(), np.eye(4))
    np.testing.assert_allclose(to_optical(random_pose(1), "optical"), random_pose(1))


def test_check_pose_copies():
    pose = random_pose(0)
    checked = check_pose(pose.astype(np.float32).tolist())
    assert checked.dtype == np.float64
    checked = check_pose(pose)
    checked[0, 3] = 99.0
    assert pose[0, 3] != 99.0


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda T: T[:3], "shape"),
        (lambda T: np.where(np.eye(4, k=1) > 0, np.nan, T), "NaN"),
        (lambda T: T * np.array([1.1, 1.1, 1.1, 1.0])[:, None], "not rigid"),
        (lambda T: T @ np.diag([1.0, -1.0, 1.0, 1.0]), "mirrors"),
        (lambda T: T.T, "last row"),
    ],
)
def test_bad_poses_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        check_pose(spoil(random_pose(0)))


def test_bad_quaternions_and_axes_are_refused():
    with pytest.raises(ValueError, match=r"norm 0 .*tolerance"):
        pose_from_quaternion([0, 0, 0], [0, 0, 0, 0])
    with pytest.raises(ValueError, match="unit quaternion"):
        pose_from_quaternion([0, 0, 0], [0, 0, 0, 1.01])
    with pytest.raises(ValueError, match="NaN"):
        pose_from_quaternion([0, np.nan, 0], [0, 0, 0, 1])
    with pytest.raises(ValueError, match="optical, body"):
        to_optical(np.eye(4), "opengl")


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_interpolation_agrees_with_scipys_slerp(share):
    rng = np.random.default_rng(5)
    ends = Rotation.random(2, random_state=5)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = ends.as_matrix(), rng.normal(size=(2, 3))
    between = interpolated(*poses, share)
    np.testing.assert_allclose(between[:3, :3], Slerp([0, 1], ends)(share).as_matrix(), atol=1e-12)
    np.testing.assert_allclose(between[:3, 3], (1 - share) * poses[0, :3, 3] + share * poses[1, :3, 3])
