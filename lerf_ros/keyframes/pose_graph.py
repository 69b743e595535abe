"""Robust pose graph: poses that agree with their priors and with the relative poses of pairs of images.

It starts bundle adjustment close to its optimum, and finds pairs of images whose relative pose contradicts the others:
repeated texture gives such pairs matches that agree with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from lerf_ros.geometry.poses import Pose

CHI2_99, _CHI2_MEDIAN = 16.81, 5.35  # quantiles of 99 % and 50 %, six degrees of freedom
_INFLATIONS = (
    1.0,
    0.5,
    0.25,
    0.125,
    0.0625,
    0.0,
    0.0,
)  # of the prior's deviations that a relative pose is allowed, too
_STEPS = 2  # of Gauss-Newton for each
_OPTIMISM = 4.0  # variances of relative poses are larger than their linearisation at independent noise says


class RelativeConstraint(NamedTuple):
    """A measured ``T_b_a`` (4, 4) of images a and b, and the information (6, 6) about its perturbation (v, w), see
    `epipolar`; singular where images leave the length of the baseline open."""

    a: int
    b: int
    T_b_a: Pose
    information: NDArray[np.float64]


class PoseGraphResult(NamedTuple):
    """T_world_camera (N, 4, 4) and which constraints (C,) agree with them."""

    T_world_camera: NDArray[np.float64]
    consistent: NDArray[np.bool_]


def optimise_pose_graph(
    given: NDArray[np.float64],
    start: NDArray[np.float64],
    constraints: Sequence[RelativeConstraint],
    translation: float,
    rotation: float,
) -> PoseGraphResult:
    """Minimise the deviation from given poses plus the Geman-McClure loss of the constraints by Gauss-Newton steps.

    Constraints are much more precise than given poses. All would be outliers at first. Their covariances are therefore
    enlarged by the prior's, less and less (graduated non-convexity).

    Args:
        given: (N, 4, 4) T_world_camera.
        start: (N, 4, 4), poses from which to start.
        translation, rotation: standard deviations of given poses, m and rad per axis.
    """
    poses = start.copy()
    if not constraints:
        return PoseGraphResult(poses, np.zeros(0, bool))
    a, b = np.array([[each.a, each.b] for each in constraints]).T
    measured = np.stack([each.T_b_a for each in constraints])
    prior = np.repeat([translation, rotation], 3)
    loosest = np.diag(prior**-2.0) * 1e-4  # what images leave open is known to a hundred times the prior
    covariances = _OPTIMISM * np.linalg.inv(np.stack([each.information for each in constraints]) + loosest)
    trust, size = np.tile(prior**-2.0, len(poses)), 6 * len(poses)
    of_a, of_b = 6 * a[:, None] + np.arange(6), 6 * b[:, None] + np.arange(6)
    columns = np.concatenate([of_a, of_b], axis=1)
    chi2 = np.zeros(len(a))
    for inflation in _INFLATIONS:
        information = np.linalg.inv(covariances + np.diag(2.0 * (inflation * prior) ** 2))
        for _ in range(_STEPS):
            residual, J = _linearised(poses, a, b, measured)
            chi2 = np.einsum("ci,cij,cj->c", residual, information, residual)
            weighted = information / (1.0 + chi2 / CHI2_99)[:, None, None] ** 2
            hessian, gradient = np.diag(trust), trust * _deviation(poses, given)
            JtW = np.swapaxes(J, 1, 2) @ weighted
            np.add.at(hessian, (columns[:, :, None], columns[:, None, :]), JtW @ J)
            np.add.at(gradient, columns, (JtW @ residual[..., None])[..., 0])
            step = -cho_solve(cho_factor(hessian, check_finite=False), gradient).reshape(size // 6, 6)
            poses[:, :3, 3] += np.einsum("nij,nj->ni", poses[:, :3, :3], step[:, :3])
            poses[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(step[:, 3:]).as_matrix()
    residual, _ = _linearised(poses, a, b, measured)
    chi2 = np.einsum("ci,cij,cj->c", residual, np.linalg.inv(covariances), residual)
    # Errors common to the matches of a pair make chi2 larger than its model says; the median tells by how much.
    return PoseGraphResult(poses, chi2 <= CHI2_99 * max(float(np.median(chi2)) / _CHI2_MEDIAN, 1.0))


def _deviation(poses: NDArray[np.float64], given: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of poses (N, 4, 4) from given ones along their own axes, m and rad: (6 N,)."""
    v = np.einsum("nji,nj->ni", poses[:, :3, :3], (poses - given)[:, :3, 3])
    w = Rotation.from_matrix(np.einsum("nji,njk->nik", given[:, :3, :3], poses[:, :3, :3])).as_rotvec()
    return np.concatenate([v, w], axis=1).ravel()


def _linearised(
    poses: NDArray[np.float64], a: NDArray[np.int64], b: NDArray[np.int64], measured: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Perturbations (C, 6) that take measured relative poses to those of the poses, and their derivatives (C, 6, 12)
    with respect to movements (v, w) of a and b along their own axes."""
    T_b_a = np.linalg.inv(poses[b]) @ poses[a]
    R, t = T_b_a[:, :3, :3], T_b_a[:, :3, 3]
    w = Rotation.from_matrix(R @ np.swapaxes(measured[:, :3, :3], 1, 2)).as_rotvec()
    J = np.zeros((len(a), 6, 12))
    J[:, :3, :3] = J[:, 3:, 3:6] = R
    J[:, :3, 6:9] = J[:, 3:, 9:] = -np.eye(3)
    J[:, 0, 10], J[:, 0, 11], J[:, 1, 9] = -t[:, 2], t[:, 1], t[:, 2]
    J[:, 1, 11], J[:, 2, 9], J[:, 2, 10] = -t[:, 0], -t[:, 1], t[:, 0]
    return np.concatenate([t - measured[:, :3, 3], w], axis=1), J
