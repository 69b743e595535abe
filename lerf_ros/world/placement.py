"""Where things stand: footprints that do not meet, on floors and surfaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Footprint:
    """An upright box from above: centre (2,), half extents (2,), yaw rad, and its lowest and highest z."""

    centre: np.ndarray
    half: np.ndarray
    yaw: float
    low: float
    high: float

    @cached_property
    def axes(self) -> np.ndarray:
        """Its two axes as rows (2, 2)."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[c, s], [-s, c]])

    @cached_property
    def corners(self) -> np.ndarray:
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        return self.centre + (signs * self.half) @ self.axes

    def gap(self, other: Footprint) -> float:
        """Separation (m) of the two boxes along their best separating axis; negative when they overlap."""
        apart = math.dist(self.centre, other.centre) - math.hypot(*self.half) - math.hypot(*other.half)
        best = max(apart, self.low - other.high, other.low - self.high)
        if best > 0:
            return best
        for axis in (*self.axes, *other.axes):
            a, b = self.corners @ axis, other.corners @ axis
            best = max(best, a.min() - b.max(), b.min() - a.max())
        return best

    def inside(self, low: np.ndarray, high: np.ndarray) -> bool:
        return bool((self.corners >= low).all() and (self.corners <= high).all())


def best_spot(
    rng: np.random.Generator, propose, obstacles: list[Footprint], gap: float, tries: int = 40
) -> Footprint | None:
    """The proposal that keeps farthest (up to 4 x `gap`) from all obstacles; None when none keeps `gap`.

    `propose(rng)` returns a `Footprint` or None.
    """
    best, best_gap = None, gap
    for _ in range(tries):
        spot = propose(rng)
        if spot is None:
            continue
        clearance = min((spot.gap(other) for other in obstacles), default=np.inf)
        if clearance >= best_gap:
            best, best_gap = spot, min(clearance, 4 * gap) + 1e-9
            if clearance >= 4 * gap:
                break
    return best
