"""The pose of a target: where it is, and from which side to approach it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UPRIGHT = (
    0.9  # |cos| between normal and map-up above which "as close to map-up as possible" no longer says where z points
)

Vector = NDArray[np.float64]


def target_axes(normal: Vector, view_direction: Vector, up: Vector) -> NDArray[np.float64]:
    """Rotation (3, 3) of the target in the map frame; its columns are the target's x, y and z axes.

    x is the outward surface normal, so that a gripper approaches along -x. z is as close to map-up as possible; where
    the normal itself is map-up (table tops), z leans away from the viewer, along the mean viewing direction.

    Args:
        normal: (3,) outward surface normal.
        view_direction: (3,) mean direction from the cameras to the target.
        up: (3,) map-up.
    """
    x = _unit(normal)
    up = _unit(up)
    lean = up if abs(float(x @ up)) < UPRIGHT else view_direction - (view_direction @ up) * up
    z = lean - (lean @ x) * x
    if np.linalg.norm(z) < 1e-6:  # seen from straight above: any horizontal direction is as good as another
        z = np.eye(3)[int(np.argmin(np.abs(x)))]
        z = z - (z @ x) * x
    z = _unit(z)
    return np.stack([x, np.cross(z, x), z], axis=1)


def plane_normal(points: Vector, view_direction: Vector) -> Vector:
    """Unit normal (3,) of the plane through points (N, 3), turned against the viewing direction (3,).

    It is the eigenvector of the smallest eigenvalue of their covariance (Hoppe et al. 1992). Fewer than three points
    have no plane: the reversed viewing direction stands in.
    """
    if len(points) < 3:
        return -view_direction
    centred = points - points.mean(axis=0)
    normal = np.linalg.eigh(centred.T @ centred).eigenvectors[:, 0]
    return -normal if normal @ view_direction > 0 else normal


def extent(points: Vector, axes: NDArray[np.float64]) -> Vector:
    """Size (3,) in m of a region (N, 3) along the axes: the 2 to 98 % range, so that stray points do not count."""
    low, high = np.percentile(points @ axes, [2.0, 98.0], axis=0)
    return high - low


def _unit(vector: Vector) -> Vector:
    length = float(np.linalg.norm(vector))
    if not np.isfinite(length) or length < 1e-12:
        raise ValueError(f"a direction needs a length, got {vector}")
    return np.asarray(vector, dtype=np.float64) / length
