"""Maxima of relevancy on a set of surface points, and the region that belongs to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.relevancy import supervised

REGION_LEVEL = 0.6  # of the height of a maximum above the map's median; what is lower does not belong to its region


@dataclass(frozen=True)
class Region:
    """One maximum.

    Attributes:
        position: (3,) m, map frame: the relevancy-weighted centre, snapped to the nearest surface point of the region.
        normal, view_direction: (3,) unit, of that point.
        covered: (M, 3) m, points around the peak that are more relevant than half way from the map's median to it.
        relevancy: [0, 1], at the peak, averaged over the neighbourhood of a surface point.
        scale: m, at which the region as a whole answers best.
        support: number of points that are relevant by themselves, not by their neighbours.
        floor: the map's median logit, from which heights are measured.
    """

    position: NDArray[np.float64]
    normal: NDArray[np.float64]
    view_direction: NDArray[np.float64]
    covered: NDArray[np.float64]
    relevancy: float
    scale: float
    support: int
    floor: float

    @property
    def largest_extent(self) -> float:
        """m, of the box around what is covered."""
        return float(np.ptp(self.covered, axis=0).max())


class MaximaFinder:
    """Finds maxima on one set of surface points, for any number of texts.

    All values are logits of relevancy, smoothed over the surface: relevancy itself saturates at 1 over whole tables.

    Args:
        min_support, prominence: see `targets.QueryOptions`.
    """

    def __init__(self, points: SurfacePoints, min_support: int, prominence: float) -> None:
        self._points = points
        self._min_support, self._prominence = min_support, prominence
        self._neighbourhood = Neighbourhood(points.x_world)
        self._x_world = points.x_world.detach().cpu().double().numpy()
        self._normals = points.normals.detach().cpu().double().numpy()
        self._view_directions = points.view_directions.detach().cpu().double().numpy()

    def regions(self, scales: Tensor, logits: Tensor, floor: float | None = None) -> Iterator[Region]:
        """Regions of one text, best first.

        Args:
            scales: (S,) m.
            logits: (S, N).
            floor: logit from which heights are measured; None: the median of the best logits of all points.
        """
        values = self._smoothed(scales, logits)
        own = logits.cpu().numpy()
        peak = values.max(axis=0)
        if not np.isfinite(peak).any():
            return
        floor = float(np.median(peak[np.isfinite(peak)])) if floor is None else floor
        candidate = np.isfinite(peak) & (self._neighbourhood.counts >= self._min_support)  # known and not stray
        claimed = np.zeros(peak.shape, bool)  # by a maximum that was looked at
        while (candidate & ~claimed).any():
            seed = int(np.argmax(np.where(candidate & ~claimed, peak, -np.inf)))
            if peak[seed] < floor:
                return
            ridge = self._neighbourhood.component(seed, peak >= _level(peak[seed], floor, self._prominence))
            region, scale_index = self._grown(seed, values, floor)
            # A region that only smoothing has made is a stray value.
            support = int((own[scale_index, region] >= values[scale_index, region].min()).sum())
            if not claimed[ridge].any() and support >= self._min_support:
                yield self._region(region, values[scale_index], float(scales[scale_index]), support, floor)
            claimed[region] = claimed[ridge] = True

    def _smoothed(self, scales: Tensor, logits: Tensor) -> NDArray[np.float32]:
        """Logits (S, N) averaged over each neighbourhood; -inf where a point was never trained at a scale: it neither
        answers there nor counts for its neighbours."""
        valid = supervised(scales, self._points.scale_min, self._points.scale_max).float()
        share = self._neighbourhood.smooth(valid).clamp_min(1e-6)
        smoothed = self._neighbourhood.smooth(logits * valid) / share
        return torch.where(valid > 0, smoothed, -torch.inf).cpu().numpy()

    def _grown(self, seed: int, values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], int]:
        """Grows the region of a maximum, at the scale at which that region as a whole answers best."""
        region = self._grow(seed, values[int(np.argmax(values[:, seed]))], floor)
        known = values[:, region]
        scale_index = int(np.argmax(np.where(np.isfinite(known), known, floor).mean(axis=1)))
        seed = int(region[np.argmax(values[scale_index, region])])
        return self._grow(seed, values[scale_index], floor), scale_index

    def _grow(self, seed: int, values: NDArray[np.float32], floor: float) -> NDArray[np.int64]:
        return self._neighbourhood.component(seed, values >= _level(values[seed], floor, REGION_LEVEL))

    def _region(
        self, region: NDArray[np.int64], values: NDArray[np.float32], scale: float, support: int, floor: float
    ) -> Region:
        weights = values[region] - values[region].min() + 1e-6
        points = self._x_world[region]
        centre = np.average(points, axis=0, weights=weights)
        nearest = region[int(np.argmin(np.linalg.norm(points - centre, axis=1)))]
        seed = int(region[np.argmax(values[region])])
        peak = float(expit(values[seed]))
        half_height = _level(peak, float(expit(floor)), 0.5)
        return Region(
            position=self._x_world[nearest],
            normal=self._normals[nearest],
            view_direction=self._view_directions[nearest],
            covered=self._x_world[self._neighbourhood.component(seed, expit(values) >= half_height)],
            relevancy=peak,
            scale=scale,
            support=support,
            floor=floor,
        )


def _level(peak: float, floor: float, share: float) -> float:
    """The height that lies `share` of the way from the floor to the peak."""
    return floor + share * (peak - floor)
