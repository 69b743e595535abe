"""Where a text fits best on a set of surface points: maxima, and the region that belongs to each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.geometry.neighbours import Places
from lerf_ros.host import Copies
from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.neighbourhood import Graph, Neighbourhood, component
from lerf_ros.query.relevancy import half_step, supervised
from lerf_ros.query.sweep import Sweep
from lerf_ros.query.target_pose import plane_normal

REGION_LEVEL = 0.6  # of the height of a maximum above the map's median; what is lower does not belong to its region
CORE_LEVEL = 0.97  # of the same height: where a region's position is sought; the middle of a ring is no part of it


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


@dataclass(frozen=True)
class Heights:
    """A sweep, smoothed over the surface.

    Attributes:
        scales: (S,) m, or (S, N), of the sweep.
        values: (S, N) ranks averaged over each point's neighbourhood; -inf where a point was never trained at a scale:
            it neither answers there nor counts for its neighbours.
        own: (S, N) ranks as they are.
        relevancy: (S, N), averaged alike.
    """

    scales: NDArray[np.float32]
    values: NDArray[np.float32]
    own: NDArray[np.float32]
    relevancy: NDArray[np.float32]


@dataclass(frozen=True)
class _Surface:
    """What growing regions needs of N points, on the host, and what it gives back of them."""

    x_world: NDArray[np.float64]
    view_directions: NDArray[np.float64]
    members: NDArray[np.int64]
    counts: NDArray[np.int64]
    graph: Graph
    first: int = 0  # the point of the graph that they begin with

    def part(self, within: slice) -> _Surface:
        """Some of the points, all of a place."""
        if within == slice(None):
            return self
        return _Surface(
            self.x_world[within],
            self.view_directions[within],
            self.members[within] - within.start,
            self.counts[within],
            self.graph,
            within.start,
        )

    def component(self, seed: int, values: NDArray[np.float32], least: float) -> NDArray[np.int64]:
        return component(self.graph, seed, values, least, self.first)


class MaximaFinder:
    """Finds maxima on one set of surface points, for any number of texts.

    Args:
        min_support, prominence: see `targets.QueryOptions`.
        places: that the points lie in, see `Neighbourhood`.
    """

    def __init__(
        self, points: SurfacePoints, min_support: int, prominence: float, places: Places | None = None
    ) -> None:
        self._points = points
        self._min_support, self._prominence = min_support, prominence
        self._neighbourhood = near = Neighbourhood(points.x_world, places=places)
        self._copies = Copies(points.x_world.double(), points.view_directions.double(), near.members, near.counts)
        self._scales: Tensor | None = None  # those that the next two are of: (S, N) which values count, ...
        self._valid = self._shares = torch.empty(0)  # ... and the share of each neighbourhood that does

    @cached_property
    def _surface(self) -> _Surface:
        x_world, view_directions, members, counts = self._copies.arrays()
        return _Surface(x_world, view_directions, members, counts, Graph.of(members))

    def around(self, position: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        """The points (M, 3) within radius m of a position (3,); that position where there are none."""
        near = np.linalg.norm(self._surface.x_world - position, axis=1) <= radius
        return self._surface.x_world[near] if near.any() else position[None]

    def heights(self, sweep: Sweep) -> Heights:
        """A sweep over the points, smoothed."""
        copies = Copies(sweep.scales, sweep.ranks, *self.smoothed(sweep))
        _ = self._surface  # of this part, the host takes care meanwhile
        scales, own, values, relevancy = (np.ascontiguousarray(array) for array in copies.arrays())
        return Heights(scales, values, own, relevancy)

    def smoothed(self, sweep: Sweep) -> tuple[Tensor, Tensor]:
        """Ranks and relevancy (S, N), each averaged over those neighbours that count at a scale; -inf and 0 where the
        point itself does not. Where our kernels run, one launch does it all."""
        points, near = self._points, self._neighbourhood
        if runs_kernels(sweep.ranks.device):
            from lerf_ros.query.smoothing_triton import smoothed_triton  # not everywhere installed

            of_points = points.scale_min, points.scale_max, sweep.ranks, sweep.offset, near.members, near.shares
            return smoothed_triton(sweep.scales, half_step(sweep.scales), *of_points)
        return self.smoothed_torch(sweep)

    def smoothed_torch(self, sweep: Sweep) -> tuple[Tensor, Tensor]:
        """Reference backend of `smoothed`."""
        if self._scales is not sweep.scales:  # texts that are asked together share them
            self._scales = sweep.scales
            self._valid = supervised(sweep.scales, self._points.scale_min, self._points.scale_max).float()
            self._shares = self._neighbourhood.smooth(self._valid).clamp_min(1e-6)
        means = self._neighbourhood.smooth(torch.stack([sweep.ranks, sweep.ranks - sweep.offset]) * self._valid)
        ranks, logits = torch.where(self._valid > 0, means / self._shares, -torch.inf)
        return ranks, logits.sigmoid()

    def regions(self, heights: Heights, floor: Floor | None = None, within: slice = slice(None)) -> Iterator[Region]:
        """Regions of one text, best first.

        Args:
            floor: what heights are measured from; None: the medians of these points.
            within: the points of one place.
        """
        surface = self._surface.part(within)
        values, own, relevancy = (each[:, within] for each in (heights.values, heights.own, heights.relevancy))
        peak = values.max(axis=0)
        known = np.isfinite(peak)
        if not known.any():
            return
        rank_floor = float(np.median(peak[known])) if floor is None else floor.rank
        candidate = known & (surface.counts >= self._min_support)  # not stray
        left = np.where(candidate, peak, -np.inf)  # less those that are claimed ...
        claimed = np.zeros(peak.shape, bool)  # ... by a maximum that was looked at
        median = lru_cache(lambda s: float(np.median(relevancy[s])))
        while left[seed := int(np.argmax(left))] >= rank_floor:  # below the map's median nothing stands out
            ridge = surface.component(seed, peak, level(peak[seed], rank_floor, self._prominence))
            region, s = _grown(surface, seed, values, rank_floor)
            # A region that only smoothing has made is a stray value.
            support = int((own[s, region] >= values[s, region].min()).sum())
            if not claimed[ridge].any() and support >= self._min_support:
                base = Floor(rank_floor, median(s)) if floor is None else floor
                scales = heights.scales
                scale = float(scales[s] if scales.ndim == 1 else scales[s, within.start])
                yield _region(surface, region, values[s], relevancy[s], support, base, scale)
            claimed[region] = claimed[ridge] = True
            left[region] = left[ridge] = -np.inf


def _grown(surface: _Surface, seed: int, values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], int]:
    """The region of a maximum, at the scale at which that region as a whole answers best."""
    region = _grow(surface, seed, values[int(np.argmax(values[:, seed]))], floor)
    known = values[:, region]
    s = int(np.argmax(np.where(np.isfinite(known), known, floor).mean(axis=1)))
    seed = int(region[np.argmax(values[s, region])])
    return _grow(surface, seed, values[s], floor), s


def _grow(surface: _Surface, seed: int, values: NDArray[np.float32], floor: float) -> NDArray[np.int64]:
    return surface.component(seed, values, level(values[seed], floor, REGION_LEVEL))


def _region(
    surface: _Surface,
    region: NDArray[np.int64],
    values: NDArray[np.float32],
    relevancy: NDArray[np.float32],
    support: int,
    floor: Floor,
    scale: float,
) -> Region:
    x_world = surface.x_world
    seed = int(region[np.argmax(values[region])])
    core = surface.component(seed, values, level(values[seed], floor.rank, CORE_LEVEL))
    weights = (values[core] - values[core].min() + 1e-6).astype(np.float64)
    centre = weights @ x_world[core] / weights.sum()
    nearest = core[int(np.argmin(np.square(x_world[core] - centre).sum(axis=1)))]
    half_height = min(level(float(relevancy[seed]), floor.relevancy, 0.5), float(relevancy[seed]))
    return Region(
        position=x_world[nearest],
        normal=plane_normal(x_world[surface.members[nearest]], surface.view_directions[nearest]),
        view_direction=surface.view_directions[nearest],
        covered=x_world[surface.component(seed, relevancy, half_height)],
        height=float(values[seed]),
        relevancy=float(relevancy[seed]),
        scale=scale,
        support=support,
        floor=floor,
    )


def level(peak: float, floor: float, share: float) -> float:
    """The height that lies `share` of the way from the floor to the peak."""
    return floor + share * (peak - floor)
