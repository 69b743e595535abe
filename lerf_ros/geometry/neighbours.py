"""Nearest neighbours among points that lie in several separate places."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from lerf_ros.host import on_host

_FAR = 1e6  # m, between places
_MOST = 40_000_000  # distances within places that are worked out at a time, in half a gigabyte
_SAMPLE = 256  # points whose nearest neighbours tell how dense the others are
_REACH = 3.0  # times the usual distance between nearest neighbours: how far `nearest_by_cells` looks
_AT_ONCE = 2**22  # of its distances


class Places:
    """Points that lie in L separate places: a table of L rows with room for M points each, one row after another.

    Each row begins with the points that there are. What fills it up is no point: nothing that is said of it counts, but
    the shapes of all work are known before the device knows how many points there are.

    Args:
        sizes: (L,) int64, how many points lie in each, 0..M.
        room: M.
    """

    def __init__(self, sizes: Tensor, room: int) -> None:
        self.sizes, self.room = sizes, room

    def __len__(self) -> int:
        return len(self.sizes)

    @classmethod
    def one(cls, count: int, device: torch.device) -> Places:
        """The place of points that all lie in one."""
        return cls(torch.full((1,), count, device=device), count)

    @cached_property
    def exists(self) -> Tensor:
        """(L, M) bool, which of the points there are."""
        return torch.arange(self.room, device=self.sizes.device) < self.sizes[:, None]

    def rows(self, values: Tensor) -> Tensor:
        """Values (L M, ...) of points as rows (L, M, ...)."""
        return values.unflatten(0, (len(self), self.room))

    def each(self, values: Tensor) -> Tensor:
        """Values (L, ...) of places for each of their points: (L M, ...)."""
        return values.repeat_interleave(self.room, dim=0)

    def medians(self, values: Tensor) -> Tensor:
        """Median in each place of values (L M,): (L,); infinite where there is no point."""
        middles = (torch.stack([self.sizes - 1, self.sizes], dim=1) // 2).clamp_min(0)
        ordered = torch.where(self.exists, self.rows(values), torch.inf).sort(dim=1).values
        return ordered.gather(1, middles).mean(dim=1)

    def slices(self) -> list[slice]:
        """The points of each place, those that fill up included."""
        return [slice(number * self.room, (number + 1) * self.room) for number in range(len(self))]


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
    if not x_world.is_cuda:
        return nearest_by_tree(x_world, k, places)
    return nearest_by_cells(x_world, k) if places is None else nearest_by_distance(x_world, k, places)


def nearest_by_tree(x_world: Tensor, k: int, places: Places | None) -> tuple[Tensor, Tensor]:
    """As `nearest`, on the host."""
    places = places or Places.one(len(x_world), x_world.device)
    points, exists = on_host(x_world, places.exists)
    place, _ = np.nonzero(exists)
    (number,) = np.nonzero(exists.ravel())
    apart = np.concatenate([points[number], _FAR * place[:, None]], axis=1)
    distances, indices = np.full((len(points), k), _FAR, np.float32), np.tile(np.arange(len(points))[:, None], k)
    most = min(k, len(apart))
    if most:
        found, index = cKDTree(apart).query(apart, k=np.arange(1, most + 1))
        distances[number, :most], indices[number, :most] = found, number[index]
    return torch.from_numpy(distances).to(x_world.device), torch.from_numpy(indices).to(x_world.device)


def nearest_by_distance(x_world: Tensor, k: int, places: Places) -> tuple[Tensor, Tensor]:
    """As `nearest`, by all distances within each place: a GPU has them while a tree is built, and asks nobody."""
    points = places.rows(x_world)
    points = (points - points[:, :1]).float()
    at_once = max(1, _MOST // places.room**2)
    found = []
    for rows, exists in zip(points.split(at_once), places.exists.split(at_once), strict=True):
        between = torch.linalg.vector_norm(rows[:, :, None] - rows[:, None], dim=-1)
        found.append(torch.where(exists[:, None], between, _FAR).topk(min(k, places.room), largest=False))
    distances, turn = (torch.cat(parts) for parts in zip(*found, strict=True))
    first = places.room * torch.arange(len(places), device=x_world.device)
    lacking = 0, k - distances.shape[2]
    indices = F.pad(first[:, None, None] + turn, lacking)
    return F.pad(distances, lacking, value=_FAR).flatten(0, 1), indices.flatten(0, 1)


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
