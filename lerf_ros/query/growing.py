"""Regions of a surface, each grown from one of its points.

Compiled, since a question grows some fifty, most of a few dozen points: NumPy would look at all points each time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray


class Graph(NamedTuple):
    """Which of N points lie next to each other: those of which one is a neighbour of the other.

    Attributes:
        members: (N, k), the neighbours of point i ...
        starts, origins: ... and what may have it as a neighbour but is none: origins[starts[i] : starts[i + 1]].
    """

    members: NDArray[np.int32]
    starts: NDArray[np.int64]
    origins: NDArray[np.int32]

    @classmethod
    def of(cls, members: NDArray[np.int32], one_sided: NDArray[np.bool_]) -> Graph:
        """Of what a `Neighbourhood` says. To turn relations round takes time; most are mutual anyway."""
        N, k = members.shape
        relations = np.flatnonzero(one_sided)
        ends = members.ravel()[relations]
        starts = np.concatenate([[0], np.bincount(ends, minlength=N).cumsum()])
        return cls(members, starts, (relations[np.argsort(ends)] // k).astype(np.int32))


def component(graph: Graph, seed: int, values: NDArray[np.float32], least: float) -> NDArray[np.int64]:
    """Indices, ascending, of the points that are connected to point `seed` through points whose values (N,) are not
    below `least`; its own is not."""
    return np.sort(_flooded(*graph, seed, values, np.float32(least)))


@njit(cache=True, nogil=True)
def _flooded(
    members: NDArray[np.int32],
    starts: NDArray[np.int64],
    origins: NDArray[np.int32],
    seed: int,
    values: NDArray[np.float32],
    least: np.float32,
) -> NDArray[np.int64]:  # pragma: no cover - compiled
    """As `component`, in the order in which they are reached. NumPy sorts a component faster than Numba."""
    seen, reached = np.zeros(len(values), np.bool_), np.empty(len(values), np.int64)
    seen[seed], reached[0], done, count = True, seed, 0, 1
    while done < count:
        point = reached[done]
        done += 1
        for others in (members[point], origins[starts[point] : starts[point + 1]]):
            for other in others:
                if not seen[other]:
                    seen[other] = True
                    if values[other] >= least:
                        reached[count] = other
                        count += 1
    return reached[:count]


@njit(cache=True, nogil=True)
def region_means(
    values: NDArray[np.float32], region: NDArray[np.int64], floor: np.float32
) -> NDArray[np.float32]:  # pragma: no cover - compiled
    """Mean (S,) over a region of values (S, N), of which an infinite one counts as the floor."""
    totals = np.zeros(len(values), np.float32)
    for point in region:
        for s in range(len(values)):
            totals[s] += values[s, point] if np.isfinite(values[s, point]) else floor
    return totals / np.float32(len(region))


@njit(cache=True, nogil=True)
def own_support(
    region: NDArray[np.int64], values: NDArray[np.float32], own: NDArray[np.float32]
) -> int:  # pragma: no cover - compiled
    """How many points of a region are not below all of it by themselves: one that only smoothing has made has few."""
    return (own[region] >= values[region].min()).sum()


@njit(cache=True, nogil=True)
def nearest(position: NDArray[np.float64], points: NDArray[np.float64]) -> int:  # pragma: no cover - compiled
    """Which of points (N, 3) is nearest to a position (3,); the first of several."""
    index, least = 0, np.inf
    for i in range(len(points)):
        x, y, z = points[i]
        square = (x - position[0]) ** 2 + (y - position[1]) ** 2 + (z - position[2]) ** 2
        if square < least:
            index, least = i, square
    return index
