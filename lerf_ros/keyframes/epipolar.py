"""The relative pose of two images from correspondences, near a pose that is roughly known.

A point at the bearing ``p_a`` and inverse depth ``rho`` of camera a projects into camera b at ``pi(R p_a + rho t)``, with
``T_b_a = (R, t)``. For rho from 0 to 1 / NEAREST these projections are a segment of the epipolar line. The error of a
correspondence is its offset from the nearest point of that segment. Unlike the algebraic epipolar error it is defined
without a baseline, too, where the segment is one point. The pose is perturbed as ``R <- exp(w) R``, ``t <- t + v``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lerf_ros.geometry.poses import Pose

NEAREST = 0.2  # m: no surface is closer to a camera
CAUCHY_SCALE = 2.385  # standard deviations, at which the Cauchy loss is 95 % efficient (Holland and Welsch 1977)
_ANNEALED_NOISE_PX = (16.0, 8.0, 4.0, 2.0, 1.0, 1.0)  # halved from what a pose's error of degrees causes to SIFT's noise
_MIN_Z = 1e-3  # of p_a = 1, avoids a division by zero for points beside camera b


class RelativePose(NamedTuple):
    """``T_b_a`` (4, 4) and the covariance (6, 6) of its perturbation (v, w), m and rad."""

    T_b_a: Pose
    covariance: NDArray[np.float64]


class SegmentErrors(NamedTuple):
    """Of M correspondences: offsets (M, 2) from the epipolar segment, across it and along it (zero within the segment),
    in the normalised image plane; and their Jacobian (M, 2, 6) with respect to (v, w)."""

    offset: NDArray[np.float64]
    jacobian: NDArray[np.float64]


def bearings(uv: NDArray[np.float64], intrinsics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rays (M, 3) in the camera frame with z = 1, of pixels (M, 2); intrinsics (4,): fx, fy, cx, cy in pixels."""
    xy = (uv - intrinsics[2:]) / intrinsics[:2]
    return np.concatenate([xy, np.ones_like(xy[:, :1])], axis=1)


def segment_errors(T_b_a: Pose, p_a: NDArray[np.float64], p_b: NDArray[np.float64]) -> SegmentErrors:
    """Offsets of bearings p_b (M, 3) from the epipolar segments of p_a (M, 3)."""
    R, t = T_b_a[:3, :3], T_b_a[:3, 3]
    q, xy = p_a @ R.T, p_b[:, :2]
    slope, offset = t[:2] - xy * t[2], q[:, :2] - xy * q[:, 2:]  # (offset + rho slope) / z is the error
    curvature = (slope**2).sum(axis=1)
    rho = -(slope * offset).sum(axis=1) / np.maximum(curvature, np.finfo(np.float64).tiny)
    inside = (rho > 0.0) & (rho < 1.0 / NEAREST)
    rho = np.clip(rho, 0.0, 1.0 / NEAREST)
    z = np.maximum(q[:, 2] + rho * t[2], _MIN_Z)
    projected = (q[:, :2] + rho[:, None] * t[:2]) / z[:, None]
    error = projected - xy

    along = (t[:2] - projected * t[2]) / z[:, None]
    norm = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(norm > 0.0, along / np.maximum(norm, np.finfo(np.float64).tiny), [1.0, 0.0])
    # Rows: across the segment; along it, which the inverse depth takes up within the segment.
    axes = np.stack([np.stack([-along[:, 1], along[:, 0]], axis=1), along * ~inside[:, None]], axis=1)
    # (M, 2, 3) axes @ d(projected) / d(point)
    of_point = np.concatenate([axes, -(axes @ projected[:, :, None])], axis=2) / z[:, None, None]
    jacobian = np.concatenate([rho[:, None, None] * of_point, np.cross(q[:, None], of_point)], axis=2)
    return SegmentErrors((axes @ error[:, :, None])[..., 0], jacobian)


def perturbed(T_b_a: Pose, step: NDArray[np.float64]) -> Pose:
    """``T_b_a`` after the perturbation (v, w) (6,)."""
    pose = T_b_a.copy()
    pose[:3, :3] = Rotation.from_rotvec(step[3:]).as_matrix() @ T_b_a[:3, :3]
    pose[:3, 3] += step[:3]
    return pose


def refine_relative_pose(
    T_b_a: Pose, prior: NDArray[np.float64], p_a: NDArray[np.float64], p_b: NDArray[np.float64], focal: float
) -> RelativePose:
    """Robust relative pose from correspondences of which a part is wrong.

    Minimises the Cauchy loss of the errors plus the prior by Gauss-Newton steps with reweighting; the assumed noise falls
    from step to step (graduated non-convexity: Blake and Zisserman 1987), so that the start need not be within a pixel.
    Unlike a minimal solver with RANSAC it needs no baseline: what the correspondences leave open, the prior holds.

    Args:
        T_b_a: what the given poses say.
        prior: (6,) standard deviations of its perturbation, m and rad.
        p_a, p_b: (M, 3) bearings.
        focal: pixels.
    """
    information, pose = np.diag(prior**-2.0), T_b_a
    hessian, moved = information, np.zeros(6)
    for noise in _ANNEALED_NOISE_PX:
        errors = segment_errors(pose, p_a, p_b)
        variance = 2.0 * (noise / focal) ** 2  # of keypoints in both images
        squared = (errors.offset**2).sum(axis=1)
        weights = 1.0 / (variance * (1.0 + squared / (variance * CAUCHY_SCALE**2)))
        J = errors.jacobian.reshape(-1, 6)
        weighted = J * np.repeat(weights, 2)[:, None]
        hessian = weighted.T @ J + information
        step = np.linalg.solve(hessian, -(weighted.T @ errors.offset.ravel()) - information @ moved)
        pose, moved = perturbed(pose, step), moved + step
    return RelativePose(pose, np.linalg.inv(hessian))
