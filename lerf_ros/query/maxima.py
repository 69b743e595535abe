"""Where a text fits best on a set of surface points: maxima, and the region that belongs to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.relevancy import supervised

REGION_LEVEL = 0.6  # of the height of a maximum above the map's median; what is lower does not belong to its region
CORE_LEVEL = 0.97  # of the same height: where a region's position is sought; the middle of a ring is no part of it


@dataclass(frozen=True)
class Sweep:
    """How well one text fits N surface points at S scales.

    Attributes:
        scales: (S,) m.
        ranks: (S, N), by which places are compared: k (e.q - contrast max_i e.c_i). Unlike relevancy it does not
            saturate over whole tables.
        offset: (S, N), to be taken off for the logit of relevancy: k (1 - contrast) max_i e.c_i.
    """

    scales: Tensor
    ranks: Tensor
    offset: Tensor


class Floor(NamedTuple):
    """What heights are measured from: the map's median rank (at each point's best scale) and median relevancy."""

    rank: float
    relevancy: float


@dataclass(frozen=True)
class Region:
    """One maximum.

    Attributes:
        position: (3,) m, map frame: the weighted centre of the region's core, snapped to the nearest point of it.
        normal, view_direction: (3,) unit, of that point.
        covered: (M, 3) m, points around the peak that are more relevant than half way from the map's median to it.
        height: rank at the peak, averaged over the neighbourhood of a surface point.
        relevancy: [0, 1], there, averaged alike.
        scale: m, at which the region as a whole answers best.
        support: number of points that stand out by themselves, not by their neighbours.
        floor: what heights are measured from.
    """

    position: NDArray[np.float64]
    normal: NDArray[np.float64]
    view_direction: NDArray[np.float64]
    covered: NDArray[np.float64]
    height: float
    relevancy: float
    scale: float
    support: int
    floor: Floor

    @property
    def largest_extent(self) -> float:
        """m, of the box around what is covered."""
        return float(np.ptp(self.covered, axis=0).max())


class MaximaFinder:
    """Finds maxima on one set of surface points, for any number of texts. All values are smoothed over the surface.

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
        self._scales: Tensor | None = None  # those that the next two are of: (S, N) which values count, ...
        self._valid = self._shares = torch.empty(0)  # ... and the share of each neighbourhood that does

    def regions(self, sweep: Sweep, floor: Floor | None = None) -> Iterator[Region]:
        """Regions of one text, best first.

        Args:
            floor: what heights are measured from; None: the medians of these points.
        """
        if self._scales is not sweep.scales:  # texts that are asked together share them
            self._scales = sweep.scales
            self._valid = supervised(sweep.scales, self._points.scale_min, self._points.scale_max).float()
            self._shares = self._neighbourhood.smooth(self._valid).clamp_min(1e-6)
        values = self._smoothed(sweep.ranks, slice(None)).cpu().numpy()
        own = sweep.ranks.cpu().numpy()
        peak = values.max(axis=0)
        if not np.isfinite(peak).any():
            return
        rank_floor = float(np.median(peak[np.isfinite(peak)])) if floor is None else floor.rank
        candidate = np.isfinite(peak) & (self._neighbourhood.counts >= self._min_support)  # known and not stray
        claimed = np.zeros(peak.shape, bool)  # by a maximum that was looked at
        while (candidate & ~claimed).any():
            seed = int(np.argmax(np.where(candidate & ~claimed, peak, -np.inf)))
            if peak[seed] < rank_floor:
                return  # below the map's median nothing stands out
            ridge = self._neighbourhood.component(seed, peak >= level(peak[seed], rank_floor, self._prominence))
            region, s = self._grown(seed, values, rank_floor)
            # A region that only smoothing has made is a stray value.
            support = int((own[s, region] >= values[s, region].min()).sum())
            if not claimed[ridge].any() and support >= self._min_support:
                relevancy = expit(self._smoothed(sweep.ranks[s] - sweep.offset[s], s).cpu().numpy())
                base = Floor(rank_floor, float(np.median(relevancy))) if floor is None else floor
                yield self._region(region, values[s], relevancy, support, base, float(sweep.scales[s]))
            claimed[region] = claimed[ridge] = True

    def _smoothed(self, values: Tensor, scales: int | slice) -> Tensor:
        """Values (..., N) at some of the scales, averaged over each neighbourhood; -inf where a point was never trained
        at a scale: it neither answers there nor counts for its neighbours."""
        valid = self._valid[scales]
        smoothed = self._neighbourhood.smooth(values * valid) / self._shares[scales]
        return torch.where(valid > 0, smoothed, -torch.inf)

    def _grown(self, seed: int, values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], int]:
        """Grows the region of a maximum, at the scale at which that region as a whole answers best."""
        region = self._grow(seed, values[int(np.argmax(values[:, seed]))], floor)
        known = values[:, region]
        scale_index = int(np.argmax(np.where(np.isfinite(known), known, floor).mean(axis=1)))
        seed = int(region[np.argmax(values[scale_index, region])])
        return self._grow(seed, values[scale_index], floor), scale_index

    def _grow(self, seed: int, values: NDArray[np.float32], floor: float) -> NDArray[np.int64]:
        return self._neighbourhood.component(seed, values >= level(values[seed], floor, REGION_LEVEL))

    def _region(
        self,
        region: NDArray[np.int64],
        values: NDArray[np.float32],
        relevancy: NDArray[np.float32],
        support: int,
        floor: Floor,
        scale: float,
    ) -> Region:
        seed = int(region[np.argmax(values[region])])
        core = self._neighbourhood.component(seed, values >= level(values[seed], floor.rank, CORE_LEVEL))
        weights = values[core] - values[core].min() + 1e-6
        centre = np.average(self._x_world[core], axis=0, weights=weights)
        nearest = core[int(np.argmin(np.linalg.norm(self._x_world[core] - centre, axis=1)))]
        half_height = min(level(float(relevancy[seed]), floor.relevancy, 0.5), float(relevancy[seed]))
        return Region(
            position=self._x_world[nearest],
            normal=self._normals[nearest],
            view_direction=self._view_directions[nearest],
            covered=self._x_world[self._neighbourhood.component(seed, relevancy >= half_height)],
            height=float(values[seed]),
            relevancy=float(relevancy[seed]),
            scale=scale,
            support=support,
            floor=floor,
        )


def level(peak: float, floor: float, share: float) -> float:
    """The height that lies `share` of the way from the floor to the peak."""
    return floor + share * (peak - floor)
