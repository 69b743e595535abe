"""Which surface points lie next to each other: smoothing over the surface and growing regions on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import embedding_bag

from lerf_ros.geometry.neighbours import nearest
from lerf_ros.host import on_host


class Graph(NamedTuple):
    """Of each of N points those next to it, itself included, some twice: columns[starts[i] : starts[i + 1]]."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int64]


class Neighbourhood:
    """The k nearest neighbours of each of N surface points that are closer than a radius.

    Args:
        x_world: (N, 3) m.
        k: neighbours per point, itself included.
        radius: m; None takes 2.5 times the median distance between nearest neighbours, in each place, so that the
            neighbourhood follows the density of the points.
        sizes: how many points lie in each place, one place after another: points of different places are no
            neighbours; None: there is one place.

    Attributes:
        counts: (N,) neighbours of each point, itself included.
        members: (N, k) int64, the neighbours of each point; itself instead of those that it lacks.
        graph: who is whose neighbour, mutual, also where the density of points changes.
    """

    def __init__(
        self, x_world: Tensor, k: int = 16, radius: float | None = None, sizes: Sequence[int] | None = None
    ) -> None:
        N, k = len(x_world), min(k, len(x_world))
        distances, indices = on_host(*nearest(x_world, k, sizes))
        radii = _radii(distances[:, min(1, k - 1)], sizes or [N]) if radius is None else np.full(N, radius, np.float32)
        near = distances <= radii[:, None]
        near[:, 0] = True  # itself, also where duplicates make another point the first hit
        self.members: NDArray[np.int64] = np.where(near, indices, np.arange(N)[:, None])
        self.counts: NDArray[np.int64] = near.sum(axis=1)
        self.graph = Graph(*_mutual(indices, near))
        self._members = torch.from_numpy(self.members).to(x_world.device)
        self._shares = torch.from_numpy((near / self.counts[:, None]).astype(np.float32)).to(x_world.device)

    def smooth(self, values: Tensor) -> Tensor:
        """Mean of (..., N) values over each point's neighbourhood, (..., N)."""
        columns = values.reshape(-1, values.shape[-1]).T.contiguous()
        means = embedding_bag(self._members, columns, per_sample_weights=self._shares, mode="sum")
        return means.T.reshape(values.shape)


def component(graph: Graph, seed: int, member: NDArray[np.bool_], first: int = 0) -> NDArray[np.int64]:
    """Indices of the points that are connected to point `seed` through points of the mask `member` (M,).

    Args:
        seed: a member.
        first: mask and indices count from this point of the graph; no neighbour of the M points is beyond them.
    """
    return np.flatnonzero(_flooded(*graph, seed, member, first))


@njit(cache=True, nogil=True)
def _flooded(
    starts: NDArray[np.int64], columns: NDArray[np.int64], seed: int, member: NDArray[np.bool_], first: int
) -> NDArray[np.bool_]:  # pragma: no cover - compiled
    reached = np.zeros(len(member), np.bool_)
    waiting = np.empty(len(member), np.int64)
    waiting[0], count = seed, 1
    reached[seed] = True
    while count:
        count -= 1
        point = waiting[count] + first
        for other in columns[starts[point] : starts[point + 1]]:
            other -= first
            if member[other] and not reached[other]:
                reached[other] = True
                waiting[count] = other
                count += 1
    return reached


@njit(cache=True, nogil=True)
def _mutual(
    indices: NDArray[np.int64], near: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # pragma: no cover - compiled
    """The graph of those indices (N, k) that are near, in both directions."""
    N, k = indices.shape
    counts = np.zeros(N + 1, np.int64)
    for point in range(N):
        for j in range(k):
            if near[point, j]:
                counts[point + 1] += 1
                counts[indices[point, j] + 1] += 1
    starts = np.cumsum(counts)
    columns, end = np.empty(starts[-1], np.int64), starts[:-1].copy()
    for point in range(N):
        for j in range(k):
            if near[point, j]:
                other = indices[point, j]
                columns[end[point]] = other
                end[point] += 1
                columns[end[other]] = point
                end[other] += 1
    return starts, columns


def _radii(distances: NDArray[Any], sizes: Sequence[int]) -> NDArray[np.float32]:
    """2.5 times the median in each place, for each point."""
    places = np.split(distances, np.cumsum(sizes)[:-1])
    return np.repeat(np.array([2.5 * np.median(place) for place in places], np.float32), sizes)
