"""Which surface points lie next to each other: smoothing over the surface and growing regions on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from lerf_ros.geometry.neighbours import nearest


class Neighbourhood:
    """The k nearest neighbours of each of N surface points that are closer than a radius.

    Args:
        x_world: (N, 3) m.
        k: neighbours per point, itself included.
        radius: m; None takes 2.5 times the median distance between nearest neighbours, in each place, so that the
            neighbourhood follows the density of the points.
        place: (N,) int64, ascending: points of different places are no neighbours; None: there is one.

    Attributes:
        counts: (N,) neighbours of each point, itself included.
        members: (N, k) int64, the neighbours of each point; itself instead of those that it lacks.
        graph: who is whose neighbour, mutual, also where the density of points changes.
    """

    def __init__(self, x_world: Tensor, k: int = 16, radius: float | None = None, place: Tensor | None = None) -> None:
        N, k = len(x_world), min(k, len(x_world))
        distances, indices = (values.cpu().numpy() for values in nearest(x_world, k, place))
        own = np.arange(N)[:, None]
        if radius is None:
            places = np.zeros(N, np.int64) if place is None else place.cpu().numpy()
            near = distances <= _radii(distances[:, 1] if k > 1 else np.zeros(N), places)[:, None]
        else:
            near = distances <= radius
        near[:, 0] = True  # itself, also where duplicates make another point the first hit
        self.members: NDArray[np.int64] = np.where(near, indices, own)
        self.counts: NDArray[np.int64] = near.sum(axis=1)
        self._indices = torch.from_numpy(self.members).to(x_world.device)
        self._near = torch.from_numpy(near).to(x_world.device, torch.float32)
        columns, starts = indices[near], np.concatenate([[0], np.cumsum(self.counts)])
        graph = csr_matrix((np.ones(len(columns), np.int8), columns, starts), shape=(N, N))
        self.graph = graph.maximum(graph.T).tocsr()

    def smooth(self, values: Tensor) -> Tensor:
        """Mean of (..., N) values over each point's neighbourhood, (..., N)."""
        return (values[..., self._indices] * self._near).sum(-1) / self._near.sum(-1)


def component(graph: csr_matrix, seed: int, member: NDArray[np.bool_], first: int = 0) -> NDArray[np.int64]:
    """Indices of the points that are connected to point `seed` through points of the mask `member` (M,).

    Args:
        seed: a member.
        first: mask and indices count from this point of the graph; no neighbour of the M points is beyond them.
    """
    return np.flatnonzero(_flooded(graph.indptr, graph.indices, seed, member, first))


@njit(cache=True)
def _flooded(
    starts: NDArray[np.int32], columns: NDArray[np.int32], seed: int, member: NDArray[np.bool_], first: int
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


def _radii(distances: NDArray[Any], place: NDArray[np.int64]) -> NDArray[np.float32]:
    """2.5 times the median in each place, for each point."""
    numbers, inverse = np.unique(place, return_inverse=True)
    return np.array([2.5 * np.median(distances[place == number]) for number in numbers], np.float32)[inverse]
