"""What a real RGB-D camera makes of a perfect view."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.render import View

NEAREST, FARTHEST = 0.3, 5.0  # m, the range in which a structured-light camera measures


def measure_depth(view: View, rng: np.random.Generator) -> np.ndarray:
    """Measured depth_z (H, W) float32, NaN where the camera gives none.

    Noise grows with distance, sigma = 1.2 mm + 1.9 mm/m^2 (z - 0.4 m)^2 (Nguyen et al., 3DIMPVT 2012);
    pixels are lost at depth edges, at grazing angles and out of range.
    """
    depth = view.depth_z
    sigma = 0.0012 + 0.0019 * (depth - 0.4) ** 2
    measured = depth + sigma * rng.standard_normal(depth.shape, dtype=np.float32)
    jump = np.zeros(depth.shape, dtype=bool)
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis)) > 0.04 * np.minimum(*_neighbours(depth, axis))
        first, second = (slice(None, -1), slice(1, None))
        jump[(first, slice(None)) if axis == 0 else (slice(None), first)] |= step
        jump[(second, slice(None)) if axis == 0 else (slice(None), second)] |= step
    chance = rng.random(depth.shape, dtype=np.float32)
    lost = (jump & (chance < 0.6)) | (chance < 0.9 * np.clip(1 - view.incidence / 0.18, 0, 1)) | (chance < 0.002)
    lost |= ~((depth >= NEAREST) & (depth <= FARTHEST))
    return np.where(lost, np.nan, measured).astype(np.float32)


def _neighbours(depth: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    n = depth.shape[axis]
    return np.take(depth, range(n - 1), axis), np.take(depth, range(1, n), axis)


def expose(image: np.ndarray, rng: np.random.Generator, sigma: float = 2.0) -> np.ndarray:
    """The image (H, W, 3) uint8 with the noise of a sensor, `sigma` grey levels."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    return np.clip(image + noise + 0.5, 0, 255).astype(np.uint8)
