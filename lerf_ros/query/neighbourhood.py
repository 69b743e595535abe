"""Which surface points lie next to each other: smoothing over the surface and growing regions on it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from lerf_ros.geometry.neighbours import Places, nearest


class Graph(NamedTuple):
    """Of each of N points those next to it, some twice and some itself: columns[starts[i] : starts[i + 1]]."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]

    @classmethod
    def of(cls, members: NDArray[np.int64]) -> Graph:
        """Of the neighbours (N, k) of each point, in both directions: also where the density of points changes."""
        return cls(*_mutual(members))


class Neighbourhood:
    """The k nearest neighbours of each of N surface points that are closer than a radius.

    Args:
        x_world: (N, 3) m.
        k: neighbours per point, itself included.
        radius: m; None takes 2.5 times the median distance between nearest neighbours, in each place, so that the
            neighbourhood follows the density of the points.
        places: points of different places are no neighbours; None: all lie in one.

    Attributes (on the device of x_world):
        counts: (N,) int64, neighbours of each point, itself included.
        members: (N, k) int64, the neighbours of each point; itself instead of those that it lacks ...
        shares: (N, k) ... of which this is the part of the mean: 0 of those.
    """

    def __init__(self, x_world: Tensor, k: int = 16, radius: float | None = None, places: Places | None = None) -> None:
        N, k = len(x_world), min(k, len(x_world))
        distances, indices = nearest(x_world, k, places)
        places = places or Places.one(N, x_world.device)
        second = distances[:, min(1, k - 1)]
        reach = 2.5 * places.each(places.medians(second))[:, None] if radius is None else radius
        near = distances <= reach
        near[:, 0] = True  # itself, also where duplicates make another point the first hit
        self.members = torch.where(near, indices, torch.arange(N, device=x_world.device)[:, None])
        self.counts = near.sum(dim=1)
        self.shares = near / self.counts[:, None]

    def smooth(self, values: Tensor) -> Tensor:
        """Mean of (..., N) values over each point's neighbourhood, (..., N)."""
        columns = values.reshape(-1, values.shape[-1]).T.contiguous()
        means = embedding_bag(self.members, columns, per_sample_weights=self.shares, mode="sum")
        return means.T.reshape(values.shape)


def component(graph: Graph, seed: int, values: NDArray[np.float32], least: float, first: int = 0) -> NDArray[np.int64]:
    """Indices, ascending, of the points that are connected to point `seed` through points whose values (M,) are not
    below `least`.

    Args:
        seed: not below it itself.
        first: values and indices count from this point of the graph; no neighbour of the M points is beyond them.
    """
    return np.flatnonzero(_flooded(graph.starts, graph.columns, seed, values, np.float32(least), first))


@njit(cache=True, nogil=True)
def _flooded(
    starts: NDArray[np.int64],
    columns: NDArray[np.int64],
    seed: int,
    values: NDArray[np.float32],
    least: np.float32,
    first: int,
) -> NDArray[np.bool_]:  # pragma: no cover - compiled
    reached = np.zeros(len(values), np.bool_)
    waiting = [seed]
    reached[seed] = True
    while waiting:
        point = waiting.pop() + first
        for other in columns[starts[point] : starts[point + 1]]:
            other -= first
            if not reached[other] and values[other] >= least:
                reached[other] = True
                waiting.append(other)
    return reached


@njit(cache=True, nogil=True)
def _mutual(members: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover - compiled
    N, k = members.shape
    counts = np.zeros(N + 1, np.int64)
    for point in range(N):
        for other in members[point]:
            if other != point:
                counts[point + 1] += 1
                counts[other + 1] += 1
    starts = np.cumsum(counts)
    columns, end = np.empty(starts[-1], np.int64), starts[:-1].copy()
    for point in range(N):
        for other in members[point]:
            if other != point:
                columns[end[point]] = other
                end[point] += 1
                columns[end[other]] = point
                end[other] += 1
    return starts, columns
