"""Nearest neighbours among points that lie in several separate places."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from lerf_ros.host import on_device, on_host

_FAR = 1e6  # m, between places
_MOST = 40_000_000  # distances that are all worked out, in half a gigabyte
_SAMPLE = 256  # points whose nearest neighbours tell how dense the others are
_REACH = 3.0  # times the usual distance between nearest neighbours: how far `nearest_by_cells` looks
_AT_ONCE = 2**22  # of its distances


class Places:
    """Points that lie in L separate places, one place after another; as the rows of a table (L, M) with room for the
    most points of a place.

    Args:
        sizes: (L,) how many points lie in each, at least one.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self.sizes, self._most = list(sizes), max(sizes)
        self._counts = on_device(self.sizes, device)

    @cached_property
    def place(self) -> Tensor:
        """(N,) int64, of each point."""
        number = torch.arange(len(self.sizes), device=self._counts.device)
        return number.repeat_interleave(self._counts, output_size=sum(self.sizes))

    def rows(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, ...) of points as rows (L, M, ...), and which (L, M) of these there are."""
        return values[self._points.clamp_max(len(values) - 1)], self._exists

    def points(self, rows: Tensor) -> Tensor:
        """The reverse: rows (L, M, ...) -> (N, ...)."""
        turn = torch.arange(len(self.place), device=rows.device) - self.starts[self.place]
        return rows[self.place, turn]

    def medians(self, values: Tensor) -> Tensor:
        """Median in each place of values (N,), for each point: (N,)."""
        rows, exists = self.rows(values)
        middles = torch.stack([self._counts - 1, self._counts], dim=1) // 2
        ordered = torch.where(exists, rows, torch.inf).sort(dim=1).values
        return ordered.gather(1, middles).mean(dim=1)[self.place]

    def extremes(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Least of low (N,) and greatest of high (N,) in each place, for each point: both (N,)."""
        L, place = len(self.sizes), self.place
        low = low.new_empty(L).scatter_reduce_(0, place, low, "amin", include_self=False)
        high = high.new_empty(L).scatter_reduce_(0, place, high, "amax", include_self=False)
        return low[place], high[place]

    @cached_property
    def starts(self) -> Tensor:
        """(L,) int64, the first point of each."""
        return self._counts.cumsum(0) - self._counts

    @cached_property
    def _points(self) -> Tensor:
        return self.starts[:, None] + torch.arange(self._most, device=self.starts.device)

    @cached_property
    def _exists(self) -> Tensor:
        return torch.arange(self._most, device=self._counts.device) < self._counts[:, None]


def nearest(x_world: Tensor, k: int, places: Places | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest points of each point, itself included, the nearest first.

    Args:
        x_world: (N, 3) m.
        k: at most N.
        places: points of different places are no neighbours. None: all lie in one place.

    Returns:
        distances (N, k) m and indices (N, k) int64, on the device of x_world. In a place of fewer than k points, the
        neighbours that it lacks are more than a hundred kilometres away; so are, on a GPU and without places, those
        that are farther than three times the usual distance between nearest neighbours.
    """
    if x_world.is_cuda and places is None:
        return nearest_by_cells(x_world, k)
    if x_world.is_cuda and places is not None and len(places.sizes) * max(places.sizes) ** 2 <= _MOST:
        return nearest_by_distance(x_world, k, places)
    return nearest_by_tree(x_world, k, places)


def nearest_by_tree(x_world: Tensor, k: int, places: Places | None) -> tuple[Tensor, Tensor]:
    """As `nearest`, on the host."""
    points = on_host(x_world)[0].astype(np.float64, copy=False)
    if places is not None:
        place = np.repeat(np.arange(len(places.sizes)), places.sizes)
        points = np.concatenate([points, _FAR * place[:, None]], axis=1)
    distances, indices = cKDTree(points).query(points, k=k)
    shape = len(points), k
    return (
        torch.from_numpy(distances.reshape(shape)).to(x_world.device, torch.float32),
        torch.from_numpy(indices.reshape(shape)).to(x_world.device, torch.int64),
    )


def nearest_by_distance(x_world: Tensor, k: int, places: Places) -> tuple[Tensor, Tensor]:
    """As `nearest`, by all distances within each place: where these are few, a GPU has them while a tree is built."""
    points, exists = places.rows(x_world)
    points = (points - points[:, :1]).float()
    between = torch.linalg.vector_norm(points[:, :, None] - points[:, None], dim=-1)
    distances, turn = torch.where(exists[:, None], between, _FAR).topk(min(k, between.shape[2]), largest=False)
    indices = (places.starts[:, None, None] + turn).clamp_max(len(x_world) - 1)
    lacking = 0, k - distances.shape[2]
    return (
        places.points(F.pad(distances, lacking, value=_FAR)),
        places.points(F.pad(indices, lacking)),
    )


def nearest_by_cells(x_world: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `nearest`, of points in one place: those in the same cell and the 26 around it, where cells are as wide as it
    looks far. For points on surfaces, some dozen of them."""
    points = (x_world - x_world[:1]).float()
    some = points[:: max(1, len(points) // _SAMPLE)]
    between = torch.cdist(some, points, compute_mode="donot_use_mm_for_euclid_dist")
    reach = (_REACH * between.kthvalue(min(2, len(points)), dim=1).values.median()).clamp_min(1e-3)
    keys, order, runs = _cells(points, reach)
    points, start = points[order], torch.searchsorted(keys, runs)
    count = torch.searchsorted(keys, runs + 2, right=True) - start  # of the three cells of a run
    turn = torch.arange(int(count.max()), device=points.device)
    found = []
    rows = max(1, _AT_ONCE // (count.shape[1] * len(turn)))
    for part in torch.arange(len(points), device=points.device).split(rows):
        candidates = (start[part][..., None] + turn).clamp_max(len(points) - 1)
        distances = torch.linalg.vector_norm(points[candidates] - points[part][:, None, None], dim=-1)
        distances = torch.where((turn < count[part][..., None]) & (distances <= reach), distances, _FAR).flatten(1)
        distances = F.pad(distances, (0, max(0, k - distances.shape[1])), value=_FAR)
        distances, index = distances.topk(k, largest=False)
        candidates = F.pad(candidates.flatten(1), (0, max(0, k - candidates[0].numel())))
        found.append((distances, order[candidates.gather(1, index)]))
    distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    back = order.argsort()
    return distances[back], indices[back]


def _cells(points: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of points (N, 3), numbered with z fastest: sorted numbers (N,), the order that sorts them (N,), and for the
    points in that order the first number (N, 9) of each run of three cells along z around their own."""
    cell = torch.floor(points / width).long()
    cell = cell - cell.amin(dim=0) + 1  # every cell has neighbours with numbers of their own
    extent = cell.amax(dim=0) + 2
    keys, order = ((cell[:, 0] * extent[1] + cell[:, 1]) * extent[2] + cell[:, 2]).sort()
    step = torch.arange(-1, 2, device=points.device)
    runs = (step[:, None] * extent[1] + step).flatten() * extent[2]
    return keys, order, keys[:, None] + runs - 1
