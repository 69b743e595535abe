"""Reprojection errors of points in inverse depth, their derivatives and the reduced camera system, compiled by Numba.

A point has fixed axes A_p (3, 3) and a fixed origin o_p, those of one camera that sees it as it was at the start, and
the unknowns y = (a, b, rho): it lies at ``o_p + A_p (a, b, 1) / rho`` (Civera, Davison and Montiel 2008). In camera i,
with ``T_world_camera = (R_i, c_i)``, it has the homogeneous coordinates ``q = R_i^T (A_p (a, b, 1) + rho (o_p -
c_i))``, which are defined for points at infinity, too. A pose is perturbed in its own axes: ``c_i <- c_i + R_i v``,
``R_i <- R_i exp(w)``; a common focal length correction s scales fx and fy by exp(s). Camera unknowns are
(v_0, w_0, v_1, ..., s): 6 N + 1.

The loss of an observation is that of Geman and McClure, ``r^2 / 2 / (1 + r^2 / c^2)``, where r is its error in standard
deviations and c^2 the 99 % quantile of r^2. Unlike Cauchy's it lets a coherent group of wrong matches pull no more
than a few right ones do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lerf_ros.keyframes.epipolar import NEAREST
from lerf_ros.keyframes.tracks import Tracks

CHI2_99 = 9.21  # 99 % quantile, two degrees of freedom
_C2 = CHI2_99
_MIN_Z = 1e-3  # of a bearing with z = 1: a point that is not before a camera is an outlier there ...
_BEHIND_PX = 1e3  # ... with this error
_POINT_TRUST = NEAREST**2  # inverse variance of inverse depths about zero; keeps those without parallax determined
_POINT_STEPS = 10

_compile: Any = njit(nogil=True, cache=True, error_model="numpy")


class Points(NamedTuple):
    """Points of P tracks: origins (P, 3) m, axes (P, 3, 3) and unknowns (P, 3); see the module."""

    origins: NDArray[np.float64]
    axes: NDArray[np.float64]
    unknowns: NDArray[np.float64]


class Cameras(NamedTuple):
    """N cameras: T_world_camera (N, 4, 4), intrinsics (N, 4) in pixels and the logarithm of the common focal scale."""

    T_world_camera: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    log_focal: float

    @property
    def scaled_intrinsics(self) -> NDArray[np.float64]:
        """(N, 4) fx, fy, cx, cy with the focal scale."""
        return self.intrinsics * np.array([np.exp(self.log_focal)] * 2 + [1.0] * 2)


class ReducedSystem(NamedTuple):
    """Normal equations of the cameras after the points have been eliminated (Schur complement), and what the points'
    steps follow from.

    Attributes:
        hessian: (6 N + 1, 6 N + 1); gradient: (6 N + 1,).
        point_inverses: (P, 3, 3) inverses of the points' own blocks; point_gradients: (P, 3).
        coupling: (O, 7, 3) block of an observation's camera unknowns and its point's.
    """

    hessian: NDArray[np.float64]
    gradient: NDArray[np.float64]
    point_inverses: NDArray[np.float64]
    point_gradients: NDArray[np.float64]
    coupling: NDArray[np.float64]


def triangulate(tracks: Tracks, cameras: Cameras) -> Points:
    """Points at the first observation of each track, at the inverse depth that the others agree on most (linear least
    squares), at least 0 and at most 1 / NEAREST."""
    T, K, first = cameras.T_world_camera, cameras.scaled_intrinsics, tracks.image[tracks.start[:-1]]
    xy = (tracks.uv - K[tracks.image, 2:]) / K[tracks.image, :2]
    axes, origins = T[first, :3, :3], T[first, :3, 3]
    direction = np.einsum("pij,pj->pi", axes, np.c_[xy[tracks.start[:-1]], np.ones(len(first))])[tracks.track]
    R = T[tracks.image, :3, :3]
    q = np.einsum("oji,oj->oi", R, direction)
    t = np.einsum("oji,oj->oi", R, origins[tracks.track] - T[tracks.image, :3, 3])
    slope, offset = t[:, :2] - xy * t[:, 2:], q[:, :2] - xy * q[:, 2:]
    numerator = np.bincount(tracks.track, -(slope * offset).sum(axis=1), len(first))
    denominator = np.bincount(tracks.track, (slope**2).sum(axis=1), len(first))
    rho = np.clip(numerator / np.maximum(denominator, np.finfo(np.float64).tiny), 0.0, 1.0 / NEAREST)
    return Points(origins, axes, np.c_[xy[tracks.start[:-1]], rho])


def reprojection_errors(tracks: Tracks, cameras: Cameras, points: Points) -> NDArray[np.float64]:
    """Projection minus observation (O, 2), pixels."""
    return _errors(*_arrays(tracks, cameras, points))


def observed_depths(tracks: Tracks, cameras: Cameras, points: Points) -> NDArray[np.float64]:
    """Depth z (O,) of the points in the cameras that observe them, m; infinite without parallax."""
    T, origins, axes = cameras.T_world_camera, points.origins, points.axes
    a_b_1 = np.c_[points.unknowns[:, :2], np.ones(len(origins))]
    z_axis, track, rho = T[tracks.image, :3, 2], tracks.track, points.unknowns[tracks.track, 2]
    along = (z_axis * np.einsum("pij,pj->pi", axes, a_b_1)[track]).sum(axis=1)
    offset = (z_axis * (origins[track] - T[tracks.image, :3, 3])).sum(axis=1)
    return np.where(rho > 0.0, along / np.where(rho > 0.0, rho, 1.0) + offset, np.inf)


def reprojection_jacobians(
    tracks: Tracks, cameras: Cameras, points: Points
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Derivatives (O, 2, 7) of the errors with respect to (v, w, s) and (O, 2, 3) to (a, b, rho)."""
    return _jacobians(*_arrays(tracks, cameras, points))


def track_losses(tracks: Tracks, errors: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Geman-McClure losses (P,) of the observations of each point; sigma: pixels, of an observation with noise 1."""
    squared = (errors**2).sum(axis=1) / (sigma * tracks.noise) ** 2
    losses: NDArray[Any] = np.bincount(tracks.track, 0.5 * squared / (1.0 + squared / _C2), len(tracks.start) - 1)
    return losses


def refined_points(tracks: Tracks, cameras: Cameras, points: Points, sigma: float) -> Points:
    """Points that minimise the loss for fixed cameras."""
    unknowns = points.unknowns.copy()
    _refine_points(*_arrays(tracks, cameras, points._replace(unknowns=unknowns)), (sigma * tracks.noise) ** -2.0)
    return points._replace(unknowns=unknowns)


def reduced_system(tracks: Tracks, cameras: Cameras, points: Points, sigma: float, damping: float) -> ReducedSystem:
    """Gauss-Newton's normal equations, reweighted for the loss, without any prior of the cameras; damping multiplies
    the diagonals of the points' blocks by 1 + damping."""
    size, count = 6 * len(cameras.T_world_camera) + 1, len(tracks.start) - 1
    system = ReducedSystem(
        np.zeros((size, size)),
        np.zeros(size),
        np.empty((count, 3, 3)),
        np.empty((count, 3)),
        np.empty((len(tracks.uv), 7, 3)),
    )
    _reduce(*_arrays(tracks, cameras, points), (sigma * tracks.noise) ** -2.0, damping, *system)
    return system


def stepped_points(tracks: Tracks, points: Points, system: ReducedSystem, camera_step: NDArray[np.float64]) -> Points:
    """Points after the step that goes with a step (6 N + 1,) of the cameras."""
    per_camera = np.c_[camera_step[:-1].reshape(-1, 6)[tracks.image], np.full(len(tracks.image), camera_step[-1])]
    pull = np.einsum("ock,oc->ok", system.coupling, per_camera)
    total = system.point_gradients + np.add.reduceat(pull, tracks.start[:-1])
    return points._replace(unknowns=points.unknowns - np.einsum("pij,pj->pi", system.point_inverses, total))


def _arrays(tracks: Tracks, cameras: Cameras, points: Points) -> tuple[NDArray, ...]:
    T = np.ascontiguousarray(cameras.T_world_camera)
    return tracks.start, tracks.image, tracks.uv, T, cameras.scaled_intrinsics, *points


@_compile
def _project(T, K, uv, origin, axes, y, error, of_camera, of_point):
    """Error (2,) of an observation and its derivatives (2, 7) and (2, 3); zero derivatives for a point behind."""
    m, t, q, tq = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for k in range(3):
        t[k] = origin[k] - T[k, 3]
        m[k] = axes[k, 0] * y[0] + axes[k, 1] * y[1] + axes[k, 2] + y[2] * t[k]
    for k in range(3):
        q[k] = T[0, k] * m[0] + T[1, k] * m[1] + T[2, k] * m[2]
        tq[k] = T[0, k] * t[0] + T[1, k] * t[1] + T[2, k] * t[2]
    if q[2] < _MIN_Z:
        error[0], error[1] = _BEHIND_PX, 0.0
        of_camera[:] = 0.0
        of_point[:] = 0.0
        return
    for row in range(2):
        x, f = q[row] / q[2], K[row]
        error[row] = f * x + K[2 + row] - uv[row]
        g = f / q[2]
        # The derivative with respect to q is g (e_row - x e_z).
        for k in range(3):
            of_camera[row, k] = 0.0
        of_camera[row, row] = -y[2] * g
        of_camera[row, 2] = y[2] * g * x
        # d q / d w = [q]x: its rows are (0, -q2, q1), (q2, 0, -q0), (-q1, q0, 0).
        if row == 0:
            of_camera[row, 3], of_camera[row, 4], of_camera[row, 5] = g * x * q[1], -g * (q[2] + x * q[0]), g * q[1]
        else:
            of_camera[row, 3], of_camera[row, 4], of_camera[row, 5] = g * (q[2] + x * q[1]), -g * x * q[0], -g * q[0]
        of_camera[row, 6] = f * x
        for k in range(2):
            along = T[0, row] * axes[0, k] + T[1, row] * axes[1, k] + T[2, row] * axes[2, k]
            ahead = T[0, 2] * axes[0, k] + T[1, 2] * axes[1, k] + T[2, 2] * axes[2, k]
            of_point[row, k] = g * (along - x * ahead)
        of_point[row, 2] = g * (tq[row] - x * tq[2])


@_compile
def _errors(start, image, uv, T, K, origins, axes, unknowns):
    errors, of_camera, of_point = np.empty((len(uv), 2)), np.empty((2, 7)), np.empty((2, 3))
    for p in range(len(start) - 1):
        for o in range(start[p], start[p + 1]):
            i = image[o]
            _project(T[i], K[i], uv[o], origins[p], axes[p], unknowns[p], errors[o], of_camera, of_point)
    return errors


@_compile
def _jacobians(start, image, uv, T, K, origins, axes, unknowns):
    of_camera, of_point, error = np.empty((len(uv), 2, 7)), np.empty((len(uv), 2, 3)), np.empty(2)
    for p in range(len(start) - 1):
        for o in range(start[p], start[p + 1]):
            i = image[o]
            _project(T[i], K[i], uv[o], origins[p], axes[p], unknowns[p], error, of_camera[o], of_point[o])
    return of_camera, of_point


@_compile
def _invert(V, inverse):
    """Inverse of a symmetric positive (3, 3) by cofactors."""
    c00, c01 = V[1, 1] * V[2, 2] - V[1, 2] * V[1, 2], V[0, 2] * V[1, 2] - V[0, 1] * V[2, 2]
    c02 = V[0, 1] * V[1, 2] - V[0, 2] * V[1, 1]
    d = 1.0 / (V[0, 0] * c00 + V[0, 1] * c01 + V[0, 2] * c02)
    inverse[0, 0], inverse[0, 1], inverse[0, 2] = d * c00, d * c01, d * c02
    inverse[1, 0], inverse[1, 1] = d * c01, d * (V[0, 0] * V[2, 2] - V[0, 2] * V[0, 2])
    inverse[1, 2] = d * (V[0, 1] * V[0, 2] - V[0, 0] * V[1, 2])
    inverse[2, 0], inverse[2, 1] = d * c02, inverse[1, 2]
    inverse[2, 2] = d * (V[0, 0] * V[1, 1] - V[0, 1] * V[0, 1])


@_compile
def _refine_points(start, image, uv, T, K, origins, axes, unknowns, precision):
    """Levenberg-Marquardt of each point by itself; unknowns are updated in place."""
    error, of_camera, of_point = np.empty(2), np.empty((2, 7)), np.empty((2, 3))
    V, inverse, g = np.empty((3, 3)), np.empty((3, 3)), np.empty(3)
    for p in range(len(start) - 1):
        best, y, damping = np.inf, unknowns[p].copy(), 1e-3
        for _ in range(_POINT_STEPS):
            loss = 0.5 * _POINT_TRUST * y[2] * y[2]
            V_new, g_new = np.zeros((3, 3)), np.zeros(3)
            for o in range(start[p], start[p + 1]):
                i = image[o]
                _project(T[i], K[i], uv[o], origins[p], axes[p], y, error, of_camera, of_point)
                squared = precision[o] * (error[0] ** 2 + error[1] ** 2)
                loss += 0.5 * squared / (1 + squared / _C2)
                weight = precision[o] / (1 + squared / _C2) ** 2
                for k in range(3):
                    g_new[k] += weight * (of_point[0, k] * error[0] + of_point[1, k] * error[1])
                    for j in range(3):
                        V_new[k, j] += weight * (of_point[0, k] * of_point[0, j] + of_point[1, k] * of_point[1, j])
            if loss < best:
                converged = best - loss < 1e-4
                best, damping = loss, damping * 0.1
                unknowns[p] = y
                V[:], g[:] = V_new, g_new
                g[2] += _POINT_TRUST * y[2]
                V[2, 2] += _POINT_TRUST
                if converged:
                    break
            else:
                damping *= 10.0
            for k in range(3):
                V_new[k] = V[k]
                V_new[k, k] = V[k, k] * (1 + damping) + 1e-12
            _invert(V_new, inverse)
            y = unknowns[p].copy()
            for k in range(3):
                y[k] -= inverse[k, 0] * g[0] + inverse[k, 1] * g[1] + inverse[k, 2] * g[2]


@_compile
def _reduce(
    start, image, uv, T, K, origins, axes, unknowns, precision, damping, S, gradient, inverses, of_points, coupling
):
    last = len(gradient) - 1
    error, J, Jp = np.empty(2), np.empty((2, 7)), np.empty((2, 3))
    V, Y = np.empty((3, 3)), np.empty((7, 3))
    for p in range(len(start) - 1):
        V[:] = 0.0
        g = of_points[p]
        g[:] = 0.0
        for o in range(start[p], start[p + 1]):
            i, W = image[o], coupling[o]
            _project(T[i], K[i], uv[o], origins[p], axes[p], unknowns[p], error, J, Jp)
            weight = precision[o] / (1 + precision[o] * (error[0] ** 2 + error[1] ** 2) / _C2) ** 2
            for k in range(3):
                g[k] += weight * (Jp[0, k] * error[0] + Jp[1, k] * error[1])
                for j in range(3):
                    V[k, j] += weight * (Jp[0, k] * Jp[0, j] + Jp[1, k] * Jp[1, j])
            for k in range(7):
                row = 6 * i + k if k < 6 else last
                gradient[row] += weight * (J[0, k] * error[0] + J[1, k] * error[1])
                for j in range(7):
                    column = 6 * i + j if j < 6 else last
                    S[row, column] += weight * (J[0, k] * J[0, j] + J[1, k] * J[1, j])
                for j in range(3):
                    W[k, j] = weight * (J[0, k] * Jp[0, j] + J[1, k] * Jp[1, j])
        g[2] += _POINT_TRUST * unknowns[p, 2]
        V[2, 2] += _POINT_TRUST
        for k in range(3):
            V[k, k] = V[k, k] * (1 + damping) + 1e-12
        inverse = inverses[p]
        _invert(V, inverse)
        for o in range(start[p], start[p + 1]):
            i, W = image[o], coupling[o]
            for k in range(7):
                row = 6 * i + k if k < 6 else last
                for j in range(3):
                    Y[k, j] = W[k, 0] * inverse[0, j] + W[k, 1] * inverse[1, j] + W[k, 2] * inverse[2, j]
                gradient[row] -= Y[k, 0] * g[0] + Y[k, 1] * g[1] + Y[k, 2] * g[2]
            for other in range(start[p], start[p + 1]):
                i2, W2 = image[other], coupling[other]
                for k in range(7):
                    row = 6 * i + k if k < 6 else last
                    for j in range(7):
                        column = 6 * i2 + j if j < 6 else last
                        S[row, column] -= Y[k, 0] * W2[j, 0] + Y[k, 1] * W2[j, 1] + Y[k, 2] * W2[j, 2]
