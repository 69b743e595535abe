"""Where a text fits best on a set of surface points: maxima, and the region that belongs to each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lerf_ros.host import Copies
from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.growing import Graph, component, nearest, own_support, region_means
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.smoothing import Smoothed
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
        covariance: (3, 3) m^2, map frame, of that point's position.
        normal, view_direction: (3,) unit, of that point.
        covered: (M, 3) m, points around the peak that are more relevant than half way from the map's median to it.
        height: rank at the peak, averaged over the neighbourhood of a surface point.
        relevancy: [0, 1], there, averaged alike.
        scale: m, at which the region as a whole answers best.
        support: number of points that stand out by themselves, not by their neighbours.
        floor: what heights are measured from.
    """

    position: NDArray[np.float64]
    covariance: NDArray[np.float64]
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

    def distance(self, position: NDArray[np.float64]) -> float:
        """m, of a position (3,) from the nearest point that is covered."""
        return math.dist(position, self.covered[nearest(position, self.covered)])


@dataclass(frozen=True)
class Heights:
    """A smoothed sweep, on the host; see `Smoothed`."""

    scales: NDArray[np.float32]
    values: NDArray[np.float32]
    own: NDArray[np.float32]
    relevancy: NDArray[np.float32]
    peak: NDArray[np.float32]


@dataclass(frozen=True)
class _Surface:
    """What growing regions needs of N points, on the host."""

    x_world: NDArray[np.float64]
    covariance: NDArray[np.float32]
    view_directions: NDArray[np.float64]
    ceiling: NDArray[np.float32]  # inf, of stray points -inf: they are no maximum
    graph: Graph


class MaximaFinder:
    """Finds maxima on one set of surface points, for any number of texts.

    Args:
        near: neighbours of the points.
        min_support, prominence: see `targets.QueryOptions`.
    """

    def __init__(self, points: SurfacePoints, near: Neighbourhood, min_support: int, prominence: float) -> None:
        self._min_support, self._prominence = min_support, prominence
        ceiling = torch.where(near.counts < min_support, -torch.inf, torch.inf)
        of_points = points.x_world.double(), points.covariance.float(), points.view_directions.double(), ceiling
        self._copies = Copies(*of_points, near.members, near.one_sided)

    def prepare(self) -> None:
        """Does beforehand what the first question would wait for."""
        _ = self._surface

    @cached_property
    def _surface(self) -> _Surface:
        x_world, covariance, view_directions, ceiling, members, one_sided = self._copies.arrays()
        return _Surface(x_world, covariance, view_directions, ceiling, Graph.of(members, one_sided))

    def around(self, position: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
        """The points (M, 3) within radius m of a position (3,); that position where there are none."""
        near = np.linalg.norm(self._surface.x_world - position, axis=1) <= radius
        return self._surface.x_world[near] if near.any() else position[None]

    def heights(self, smoothed: Smoothed) -> Heights:
        """A smoothed sweep over the points, as regions are grown on it."""
        copies = Copies(*smoothed)
        self.prepare()  # of this part, the host takes care meanwhile
        return Heights(*(np.ascontiguousarray(array) for array in copies.arrays()))

    def regions(self, heights: Heights, floor: Floor | None = None, within: slice = slice(None)) -> Iterator[Region]:
        """Regions of one text, best first.

        Args:
            floor: what heights are measured from; None: the medians of these points.
            within: the points of one place.
        """
        surface, values, peak = self._surface, heights.values, heights.peak
        known = peak[within][np.isfinite(peak[within])]
        if not len(known):
            return
        rank_floor = _median(known) if floor is None else floor.rank
        median = lru_cache(lambda s: _median(heights.relevancy[s, within]))
        left = np.minimum(peak, surface.ceiling)  # less those that are claimed ...
        claimed = np.zeros(len(left), bool)  # ... by a maximum that was looked at
        first = within.start or 0
        while left[seed := first + int(np.argmax(left[within]))] >= rank_floor:  # below it nothing stands out
            ridge = component(surface.graph, seed, peak, level(peak[seed], rank_floor, self._prominence))
            region, s = _grown(surface, seed, values, rank_floor)
            support = own_support(region, values[s], heights.own[s])
            if not claimed[ridge].any() and support >= self._min_support:
                base = Floor(rank_floor, median(s)) if floor is None else floor
                scale = float(heights.scales[s] if heights.scales.ndim == 1 else heights.scales[s, seed])
                yield _region(surface, region, values[s], heights.relevancy[s], support, base, scale)
            claimed[region] = claimed[ridge] = True
            left[region] = left[ridge] = -np.inf


def _grown(surface: _Surface, seed: int, values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], int]:
    """The region of a maximum, at the scale at which that region as a whole answers best."""
    region = _grow(surface, seed, values[int(np.argmax(values[:, seed]))], floor)
    s = int(np.argmax(region_means(values, region, np.float32(floor))))
    seed = int(region[np.argmax(values[s, region])])
    return _grow(surface, seed, values[s], floor), s


def _grow(surface: _Surface, seed: int, values: NDArray[np.float32], floor: float) -> NDArray[np.int64]:
    return component(surface.graph, seed, values, level(values[seed], floor, REGION_LEVEL))


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
    core = component(surface.graph, seed, values, level(values[seed], floor.rank, CORE_LEVEL))
    weights = (values[core] - values[core].min() + 1e-6).astype(np.float64)
    centre = weights @ x_world[core] / weights.sum()
    middle = core[nearest(centre, x_world[core])]
    half_height = min(level(float(relevancy[seed]), floor.relevancy, 0.5), float(relevancy[seed]))
    return Region(
        position=x_world[middle],
        covariance=surface.covariance[middle].astype(np.float64),
        normal=plane_normal(x_world[surface.graph.members[middle]], surface.view_directions[middle]),
        view_direction=surface.view_directions[middle],
        covered=x_world[component(surface.graph, seed, relevancy, half_height)],
        height=float(values[seed]),
        relevancy=float(relevancy[seed]),
        scale=scale,
        support=support,
        floor=floor,
    )


def level(peak: float, floor: float, share: float) -> float:
    """The height that lies `share` of the way from the floor to the peak."""
    return floor + share * (peak - floor)


def _median(values: NDArray[np.float32]) -> float:
    """As np.median of values (N,), which has them parted at both middles: NumPy is much faster at one."""
    middle = len(values) // 2
    parted = np.partition(values, middle)
    lower = parted[middle] if len(values) % 2 else parted[:middle].max()
    return float((lower + parted[middle]) / 2)
