"""How much of the scene two posed cameras share, without knowing its depth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.poses import Pose

DEPTHS = (0.5, 1.0, 2.0, 4.0)  # m: where indoor surfaces are
_GRID = (4, 3)  # pixels per row and column that stand for all


def predicted_overlap(
    T_world_camera: Pose, others: NDArray[np.float64], intrinsics: NDArray[np.float64], width: int, height: int
) -> NDArray[np.float64]:
    """Fraction (N,) in [0, 1] of one camera's pixels that others (N, 4, 4) see, were the surface at one of `DEPTHS`;
    the smaller of both directions, so that a distant view of a close one counts little.

    Args:
        intrinsics: (4,) of all cameras: fx, fy, cx, cy, pixels.
    """
    T_other_camera: NDArray[Any] = np.linalg.inv(others) @ T_world_camera
    forward = _visible(T_other_camera, intrinsics, width, height)
    return np.minimum(
        forward, _visible(np.asarray(np.linalg.inv(T_other_camera), np.float64), intrinsics, width, height)
    )


def _visible(T_to_from: NDArray[Any], intrinsics: NDArray[np.float64], width: int, height: int) -> NDArray[np.float64]:
    """Mean over pixels and `DEPTHS` (N,) of what is inside the other image."""
    u, v = np.meshgrid(*(size * (np.arange(n) + 0.5) / n - 0.5 for size, n in zip((width, height), _GRID)))
    xy = (np.stack([u.ravel(), v.ravel()], axis=1) - intrinsics[2:]) / intrinsics[:2]
    points = np.concatenate([np.c_[xy, np.ones(len(xy))] * depth for depth in DEPTHS])
    moved = np.einsum("nij,mj->nmi", T_to_from[:, :3, :3], points) + T_to_from[:, None, :3, 3]
    z = np.maximum(moved[..., 2], 1e-6)
    uv = moved[..., :2] / z[..., None] * intrinsics[:2] + intrinsics[2:]
    inside = (uv >= -0.5).all(axis=-1) & (uv <= np.array([width, height]) - 0.5).all(axis=-1)
    return (inside & (moved[..., 2] > 0.0)).mean(axis=1)
