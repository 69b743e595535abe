"""Robust bundle adjustment of poses and points with a prior of the poses, one iteration at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.transform import Rotation

from lerf_ros.keyframes.epipolar import NEAREST
from lerf_ros.keyframes.reprojection import (
    Cameras,
    Points,
    reduced_system,
    refined_points,
    reprojection_errors,
    stepped_points,
    track_losses,
    triangulate,
)
from lerf_ros.keyframes.tracks import Tracks

MAX_ITERATIONS = 20
_MIN_DAMPING = 1e-5  # below it none: any would slow down the movement of all poses together, which only the prior sees
_CONVERGED = 0.05  # of the prior's standard deviations: after a step in which no pose moves by more, it ends
_RAYLEIGH_MEDIAN = np.sqrt(2.0 * np.log(2.0))  # of the length of a 2D vector with standard normal components
_MIN_SIGMA_PX = 0.05  # no keypoint is located better; avoids a division by zero for perfect data


class PosePrior(NamedTuple):
    """Normal distributions of the cameras about what was given: T_world_camera (N, 4, 4), standard deviations per axis
    in m and rad, and that of the logarithm of the common focal scale (0: the focal length is known)."""

    T_world_camera: NDArray[np.float64]
    translation: float
    rotation: float
    log_focal: float = 0.0

    def deviation(self, cameras: Cameras) -> NDArray[np.float64]:
        """Where cameras are against the given ones, in standard deviations along their own axes: (6 N + 1,)."""
        R, given = cameras.T_world_camera[:, :3, :3], self.T_world_camera
        v = np.einsum("nji,nj->ni", R, cameras.T_world_camera[:, :3, 3] - given[:, :3, 3])
        w = Rotation.from_matrix(np.einsum("nji,njk->nik", given[:, :3, :3], R)).as_rotvec()
        focal = cameras.log_focal / self.log_focal if self.log_focal > 0.0 else 0.0
        return np.append(np.concatenate([v / self.translation, w / self.rotation], axis=1).ravel(), focal)

    @property
    def sigmas(self) -> NDArray[np.float64]:
        """Standard deviations (6 N + 1,)."""
        per_pose = np.repeat([self.translation, self.rotation], 3)
        return np.append(np.tile(per_pose, len(self.T_world_camera)), self.log_focal or 1e-9)


def noise_of(tracks: Tracks, errors: NDArray[np.float64]) -> float:
    """Robust standard deviation, pixels per axis, of observations whose relative noise is 1, from errors (O, 2).

    From the median length of the errors. A point seen n times takes up 3 of its 2 n errors, which makes the others
    smaller.
    """
    if len(errors) == 0:
        return _MIN_SIGMA_PX
    lengths = tracks.lengths[tracks.track]
    scaled = np.linalg.norm(errors, axis=1) / tracks.noise * np.sqrt(2 * lengths / (2 * lengths - 3))
    return max(float(np.median(scaled) / _RAYLEIGH_MEDIAN), _MIN_SIGMA_PX)


class LevenbergMarquardt:
    """Minimises the losses of reprojection errors plus half the squared deviation from the prior.

    The standard deviation of keypoints is estimated anew from the errors before each iteration. It falls with them, so
    that poses that err by degrees are not taken for outliers at first (as in iteratively reweighted scale estimation).

    The prior also settles the gauge. Images leave a similarity transform of all poses and points open; within it the
    prior is least where the poses fit the given ones best in the sense of least squares, so that corrections have mean
    zero. That holds for the scale, too: poses of a robot are metric, and their distances from each other tell the scale
    better than any single one of them.

    Attributes:
        cameras, points: as they are so far.
        sigma: pixels per axis, of observations with noise 1; given at the start, or estimated from the errors.
        iterations: that have been made.
    """

    def __init__(self, tracks: Tracks, start: Cameras, prior: PosePrior, sigma: float | None = None) -> None:
        self._tracks, self._prior = tracks, prior
        self.cameras, self.points = start, triangulate(tracks, start)
        self.sigma = sigma or noise_of(tracks, reprojection_errors(tracks, start, self.points))
        self.points = refined_points(tracks, start, self.points, self.sigma)
        self.iterations, self._damping = 0, 0.0

    def step(self) -> bool:
        """Makes one iteration; returns whether it was the last one."""
        tracks, prior = self._tracks, self._prior
        self.iterations += 1
        errors = reprojection_errors(tracks, self.cameras, self.points)
        self.sigma = noise_of(tracks, errors)
        deviation, sigmas = prior.deviation(self.cameras), prior.sigmas
        loss = self._loss(self.cameras, self.points)
        system = reduced_system(tracks, self.cameras, self.points, self.sigma, self._damping)
        hessian = system.hessian + np.diag(sigmas**-2.0)
        hessian[np.diag_indices_from(hessian)] *= 1.0 + self._damping
        step = -cho_solve(cho_factor(hessian, check_finite=False), system.gradient + deviation / sigmas)
        if prior.log_focal == 0.0:
            step[-1] = 0.0
        cameras = moved_cameras(self.cameras, step)
        points = stepped_points(tracks, self.points, system, step)
        if self._loss(cameras, points) < loss:
            self.cameras, self.points = cameras, points
            self._damping = self._damping * 0.1 if self._damping > _MIN_DAMPING else 0.0
            converged = bool(np.abs(step / sigmas).max() < _CONVERGED)
        else:
            self._damping = max(self._damping * 10.0, _MIN_DAMPING)
            converged = self._damping > 1e6
        return converged or self.iterations >= MAX_ITERATIONS

    def _loss(self, cameras: Cameras, points: Points) -> float:
        losses = track_losses(self._tracks, reprojection_errors(self._tracks, cameras, points), self.sigma)
        of_points = 0.5 * NEAREST**2 * (points.unknowns[:, 2] ** 2).sum()
        return float(losses.sum() + of_points + 0.5 * (self._prior.deviation(cameras) ** 2).sum())


def moved_cameras(cameras: Cameras, step: NDArray[np.float64]) -> Cameras:
    """Cameras after a step (6 N + 1,)."""
    v, w = np.split(step[:-1].reshape(-1, 6), 2, axis=1)
    T = cameras.T_world_camera.copy()
    R = T[:, :3, :3].copy()
    T[:, :3, 3] += np.einsum("nij,nj->ni", R, v)
    T[:, :3, :3] = R @ Rotation.from_rotvec(w).as_matrix()
    return Cameras(T, cameras.intrinsics, cameras.log_focal + float(step[-1]))
