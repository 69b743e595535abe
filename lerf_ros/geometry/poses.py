"""Rigid transforms as (4, 4) float64 numpy arrays. ``T_to_from``: ``p_to = T_to_from @ p_from``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

Pose = NDArray[np.float64]

# How far R R^T may be from the identity, and a quaternion's norm from one. Poses written as text with a few digits
# stay well inside; a scale, a shear or a forgotten normalisation does not.
RIGID_TOLERANCE = 1e-3

AXES = ("optical", "body")


def check_pose(T: ArrayLike) -> Pose:
    """A rigid transform as a new (4, 4) float64 array.

    Raises:
        ValueError: wrong shape, NaN or infinite, or not a rotation plus a translation (to RIGID_TOLERANCE).
    """
    pose = np.array(T, dtype=np.float64)
    if pose.shape != (4, 4):
        raise ValueError(f"a pose must be a (4, 4) matrix, got shape {pose.shape}")
    if not np.isfinite(pose).all():
        raise ValueError("the pose contains NaN or infinite values (tracking lost?)")
    if np.abs(pose[3] - (0.0, 0.0, 0.0, 1.0)).max() > RIGID_TOLERANCE:
        raise ValueError(f"the last row of a pose must be [0, 0, 0, 1], got {pose[3].tolist()}")
    rotation = pose[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > RIGID_TOLERANCE:
        raise ValueError(
            f"the pose is not rigid: R R^T differs from the identity by {error:.3g} (tolerance {RIGID_TOLERANCE}); "
            "scale and shear are not allowed"
        )
    if np.linalg.det(rotation) < 0.0:
        raise ValueError("the pose mirrors space (det R = -1): one axis is flipped")
    return pose


def rotation_angle(R_a: ArrayLike, R_b: ArrayLike) -> float:
    """Angle of the rotation between two (3, 3) rotations, rad in [0, pi].

    From ``|R_a - R_b|_F = 2 sqrt(2) sin(angle / 2)``, which stays accurate for small angles, where the arccosine of
    the trace does not.
    """
    chord = np.linalg.norm(np.asarray(R_a, dtype=np.float64) - np.asarray(R_b, dtype=np.float64)) / np.sqrt(8.0)
    return float(2.0 * np.arcsin(min(chord, 1.0)))


def pose_from_quaternion(position: ArrayLike, quaternion_xyzw: ArrayLike) -> Pose:
    """Pose (4, 4) from a position (3,) in metres and a unit quaternion (x, y, z, w), as ROS messages carry them.

    Raises:
        ValueError: wrong shape, NaN or infinite, or a quaternion whose norm is not one to RIGID_TOLERANCE (an all-zero
            quaternion is what an unset message field holds). Within the tolerance it is normalised.
    """
    translation = np.asarray(position, dtype=np.float64)
    quaternion = np.asarray(quaternion_xyzw, dtype=np.float64)
    if translation.shape != (3,) or quaternion.shape != (4,):
        raise ValueError(f"need a position (3,) and a quaternion (4,), got {translation.shape} and {quaternion.shape}")
    if not (np.isfinite(translation).all() and np.isfinite(quaternion).all()):
        raise ValueError("the pose contains NaN or infinite values (tracking lost?)")
    norm = float(np.linalg.norm(quaternion))
    if abs(norm - 1.0) > RIGID_TOLERANCE:
        raise ValueError(
            f"the orientation is not a unit quaternion: {quaternion.tolist()} has norm {norm:.6g} "
            f"(tolerance {RIGID_TOLERANCE}); an unset orientation is (0, 0, 0, 1), not zeros"
        )
    x, y, z, w = quaternion / norm
    pose = np.eye(4)
    pose[:3, :3] = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
    ]
    pose[:3, 3] = translation
    return pose


def quaternion_from_pose(T: ArrayLike) -> tuple[Pose, Pose]:
    """Position (3,) and unit quaternion (x, y, z, w) with w >= 0 of a pose.

    The quaternion is the eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix (J. Guidance 2000):
    no case distinction, and the nearest rotation when R is slightly off.

    Raises:
        ValueError: as :func:`check_pose`.
    """
    pose = check_pose(T)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = pose[:3, :3]
    K = np.array(
        [
            [xx - yy - zz, xy + yx, xz + zx, zy - yz],
            [xy + yx, yy - xx - zz, yz + zy, xz - zx],
            [xz + zx, yz + zy, zz - xx - yy, yx - xy],
            [zy - yz, xz - zx, yx - xy, xx + yy + zz],
        ]
    )
    quaternion = np.linalg.eigh(K)[1][:, -1]
    return pose[:3, 3].copy(), np.where(quaternion[3] < 0.0, -quaternion, quaternion)


def T_optical_from_body() -> Pose:
    """REP 103 body axes (x forward, y left, z up) to optical axes (x right, y down, z forward): (4, 4)."""
    return np.array(
        [
            [0.0, -1.0, 0.0, 0.0],
            [0.0, 0.0, -1.0, 0.0],
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def to_optical(T_world_child: ArrayLike, axes: str) -> Pose:
    """T_world_camera (optical axes) of a camera whose pose was given with the axes ``"optical"`` or ``"body"``.

    Raises:
        ValueError: as :func:`check_pose`, or unknown axes.
    """
    pose = check_pose(T_world_child)
    if axes == "optical":
        return pose
    if axes == "body":
        return pose @ T_optical_from_body().T
    raise ValueError(f"unknown camera axes {axes!r}: use one of {', '.join(AXES)}")


def interpolated(T_before: ArrayLike, T_after: ArrayLike, share: float) -> Pose:
    """The pose a share in [0, 1] of the way between two: linear in position, constant angular velocity in rotation."""
    before, after = check_pose(T_before), check_pose(T_after)
    turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
    pose = np.eye(4)
    pose[:3, :3] = before[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    pose[:3, 3] = (1.0 - share) * before[:3, 3] + share * after[:3, 3]
    return pose
