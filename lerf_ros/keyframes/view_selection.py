"""Which views are good to find a view's depth with: they see the same, from far enough apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.camera import Camera

BEST_ANGLE = np.radians(5.0)  # between two rays that meet: less is less precise, more looks less alike
_SIGMA = 0.7  # of the logarithms of angle and distance: half and twice the best one are worth 0.6 of it, a quarter 0.14
_GRID = 4  # points per axis, whose share in another image is the overlap


def source_scores(
    camera: Camera,
    T_world_views: NDArray[np.float64],
    depths: NDArray[np.float64],
    T_world_sources: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How well each of V source views suits each of R views, in [0, 1], if there were a wall in front of the view.

    Overlap of the images, times log-normal functions of two quantities: of the angle between rays that meet (MVSNet,
    Yao et al., ECCV 2018, section 4.1, weighs the angle itself, which nearly rules out a camera that turns in place),
    and of the wall's distance from the source over that from the view (Goesele et al., ICCV 2007, section 4.1: what is
    seen at another scale matches worse, and from far away something else may be in front of it).

    Args:
        camera: of all views.
        T_world_views: (R, 4, 4).
        depths: (R,) m along the optical axis, what a view shows is about so far away.
        T_world_sources: (V, 4, 4).

    Returns:
        (R, V); 0 where nothing is common.
    """
    u = (np.arange(_GRID) + 0.5) / _GRID * camera.width - 0.5
    v = (np.arange(_GRID) + 0.5) / _GRID * camera.height - 0.5
    x, y = np.meshgrid((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy)
    rays = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=-1)
    own = depths[:, None, None] * np.einsum("rij,gj->rgi", T_world_views[:, :3, :3], rays)  # (R, G, 3)
    offsets = (own + T_world_views[:, None, :3, 3])[:, None] - T_world_sources[:, None, :3, 3]  # (R, V, G, 3)
    seen = np.einsum("rvgi,vij->rvgj", offsets, T_world_sources[:, :3, :3])
    z = np.maximum(seen[..., 2], 1e-9)
    column, row = camera.fx * seen[..., 0] / z + camera.cx, camera.fy * seen[..., 1] / z + camera.cy
    inside = (seen[..., 2] > 0) & (np.abs(column - camera.width / 2) < camera.width / 2)
    inside &= np.abs(row - camera.height / 2) < camera.height / 2
    lengths = np.linalg.norm(offsets, axis=-1) * np.linalg.norm(own, axis=-1)[:, None]
    cosines = np.einsum("rvgi,rgi->rvg", offsets, own) / np.maximum(lengths, 1e-12)
    angles = np.arccos(np.clip(cosines, -1.0, 1.0))
    deviations = np.log(np.maximum(angles, 1e-9) / BEST_ANGLE), np.log(z / depths[:, None, None])
    worth = np.exp(-(np.square(deviations[0]) + np.square(deviations[1])) / (2 * _SIGMA**2))
    scores: NDArray[np.float64] = (inside * worth).mean(axis=-1)
    return scores
