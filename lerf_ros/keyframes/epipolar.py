"""The relative pose of two images from correspondences, near a pose that is roughly known.

A point at the bearing ``p_a`` and inverse depth ``rho`` of camera a projects into camera b at ``pi(R p_a + rho t)``,
with ``T_b_a = (R, t)``. For rho from 0 to 1 / NEAREST these projections are a segment of the epipolar line. The error
of a correspondence is its offset from the nearest point of that segment. Unlike the algebraic epipolar error it is
defined without a baseline, too, where the segment is one point. The pose is perturbed as ``R <- exp(w) R``, ``t <- t +
v``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lerf_ros.geometry.poses import Pose

NEAREST = 0.2  # m: no surface is closer to a camera
CHI2_99 = 6.635  # 99 % quantile, one degree of freedom: errors across epipolar lines
SAMPLE_SIZE = 4  # correspondences of a hypothesis, beside the prior
HYPOTHESES = 64  # 98 % sure that one has no wrong correspondence where half of all are wrong: 1 - (1 - 0.5^4)^64
_SAMPLE_STEPS = 2  # of Gauss-Newton
_REFINED_HYPOTHESES = 4
_INFLATIONS = (4.0, 1.0, 1.0, 1.0)  # of the variance, one Gauss-Newton step each
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


class _SegmentPoint(NamedTuple):
    """The point of each epipolar segment that is nearest to its correspondence.

    Attributes, of (..., M) correspondences:
        q: bearings of a in the axes of b (..., 3); rho: inverse depths in a, 1/m; inside: whether rho is within the
        segment; z: of the point in b, where it is 1 in a; projection: into b (..., 2), normalised image plane.
    """

    q: NDArray[np.float64]
    rho: NDArray[np.float64]
    inside: NDArray[np.bool_]
    z: NDArray[np.float64]
    projection: NDArray[np.float64]


def _nearest_on_segment(
    T_b_a: NDArray[np.float64], p_a: NDArray[np.float64], p_b: NDArray[np.float64]
) -> _SegmentPoint:
    R, t, xy = T_b_a[..., :3, :3], T_b_a[..., None, :3, 3], p_b[..., :2]
    q = p_a @ np.swapaxes(R, -1, -2)
    # The error is (offset + rho slope) / z.
    slope, offset = t[..., :2] - xy * t[..., 2:], q[..., :2] - xy * q[..., 2:]
    rho = -(slope * offset).sum(axis=-1) / np.maximum((slope**2).sum(axis=-1), np.finfo(np.float64).tiny)
    inside = (rho > 0.0) & (rho < 1.0 / NEAREST)
    rho = np.clip(rho, 0.0, 1.0 / NEAREST)
    z = np.maximum(q[..., 2] + rho * t[..., 2], _MIN_Z)
    return _SegmentPoint(q, rho, inside, z, (q[..., :2] + rho[..., None] * t[..., :2]) / z[..., None])


def segment_distances(
    T_b_a: NDArray[np.float64], p_a: NDArray[np.float64], p_b: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Distances (..., M) of bearings p_b (..., M, 3) from the epipolar segments of p_a (..., M, 3), in the normalised
    image plane; T_b_a (..., 4, 4)."""
    return np.linalg.norm(_nearest_on_segment(T_b_a, p_a, p_b).projection - p_b[..., :2], axis=-1)


def segment_errors(T_b_a: NDArray[np.float64], p_a: NDArray[np.float64], p_b: NDArray[np.float64]) -> SegmentErrors:
    """Offsets of bearings p_b (..., M, 3) from the epipolar segments of p_a (..., M, 3); T_b_a (..., 4, 4)."""
    point, t = _nearest_on_segment(T_b_a, p_a, p_b), T_b_a[..., None, :3, 3]
    along = t[..., :2] - point.projection * t[..., 2:]
    norm = np.linalg.norm(along, axis=-1, keepdims=True)
    along = np.where(norm > 0.0, along / np.maximum(norm, np.finfo(np.float64).tiny), [1.0, 0.0])
    # Rows: across the segment; along it, where the inverse depth does not take the error up.
    across = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    axes = np.stack([across, along * ~point.inside[..., None]], axis=-2)
    of_point = np.concatenate([axes, -(axes @ point.projection[..., None])], axis=-1) / point.z[..., None, None]
    jacobian = np.concatenate(
        [point.rho[..., None, None] * of_point, np.cross(point.q[..., None, :], of_point)], axis=-1
    )
    return SegmentErrors((axes @ (point.projection - p_b[..., :2])[..., None])[..., 0], jacobian)


def perturbed(T_b_a: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """``T_b_a`` (..., 4, 4) after the perturbation (v, w) (..., 6)."""
    pose = T_b_a.copy()
    turn = Rotation.from_rotvec(step[..., 3:].reshape(-1, 3)).as_matrix().reshape(*step.shape[:-1], 3, 3)
    pose[..., :3, :3] = turn @ T_b_a[..., :3, :3]
    pose[..., :3, 3] += step[..., :3]
    return pose


def refine_relative_pose(
    T_b_a: Pose,
    prior: NDArray[np.float64],
    p_a: NDArray[np.float64],
    p_b: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> RelativePose:
    """Robust relative pose from correspondences of which a part is wrong.

    MSAC (Torr and Zisserman 2000) whose hypotheses are not minimal solutions, but the poses nearest to the given one
    that a few random correspondences allow: what these leave open, the prior holds. So it needs no baseline. The best
    ones are refined by Gauss-Newton steps with the Geman-McClure loss, first for twice the noise.

    On repeated texture, a pose with a wrong pan may satisfy groups of wrong correspondences along with the right ones,
    but less precisely: the variance decides between them and must not be generous.

    Args:
        T_b_a: what the given poses say.
        prior: (6,) standard deviations of its perturbation, m and rad.
        p_a, p_b: (M, 3) bearings, at least one.
        variance: (M,) of an error in the normalised image plane, per axis.
    """
    information = np.diag(prior**-2.0)
    samples = np.random.default_rng(0).integers(len(p_a), size=(HYPOTHESES, SAMPLE_SIZE))
    poses, moved = np.tile(T_b_a, (HYPOTHESES, 1, 1)), np.zeros((HYPOTHESES, 6))
    for _ in range(_SAMPLE_STEPS):
        poses, moved, _ = _step(poses, moved, information, p_a[samples], p_b[samples], 1.0 / variance[samples])
    best = np.argsort(_msac_loss(poses, moved, information, p_a, p_b, variance))[:_REFINED_HYPOTHESES]
    poses, moved, hessian = poses[best], moved[best], information
    for inflation in _INFLATIONS:
        squared = segment_distances(poses, p_a, p_b) ** 2 / (inflation * variance)
        weights = 1.0 / (inflation * variance * (1.0 + squared / CHI2_99) ** 2)
        poses, moved, hessian = _step(poses, moved, information, p_a, p_b, weights)
    winner = int(np.argmin(_msac_loss(poses, moved, information, p_a, p_b, variance)))
    return RelativePose(poses[winner], np.asarray(np.linalg.inv(hessian[winner]), np.float64))


def _step(
    poses: NDArray[np.float64],
    moved: NDArray[np.float64],
    information: NDArray[np.float64],
    p_a: NDArray[np.float64],
    p_b: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Weighted Gauss-Newton steps of poses (H, 4, 4) that have been moved by (H, 6); with the Hessians (H, 6, 6)."""
    errors = segment_errors(poses, p_a, p_b)
    J, r = errors.jacobian.reshape(len(poses), -1, 6), errors.offset.reshape(len(poses), -1, 1)
    weighted = np.swapaxes(J * np.repeat(weights, 2, axis=-1)[..., None], 1, 2)
    hessian = weighted @ J + information
    step: NDArray[Any] = -np.linalg.solve(hessian, weighted @ r + (moved @ information)[..., None])[..., 0]
    return perturbed(poses, step), moved + step, hessian


def _msac_loss(
    poses: NDArray[np.float64],
    moved: NDArray[np.float64],
    information: NDArray[np.float64],
    p_a: NDArray[np.float64],
    p_b: NDArray[np.float64],
    variance: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Truncated squared errors plus the prior's (H,), of poses (H, 4, 4)."""
    squared = segment_distances(poses, p_a, p_b) ** 2 / variance
    return np.minimum(squared, CHI2_99).sum(axis=1) + np.einsum("hi,ij,hj->h", moved, information, moved)
