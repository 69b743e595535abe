"""Nearest neighbours among points that lie in several separate places."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

from lerf_ros.host import on_host

_FAR = 1e6  # m, between places
_MOST = 2**13  # points of a place whose distances from each other are all worked out


def nearest(x_world: Tensor, k: int, sizes: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest points of each point, itself included, the nearest first.

    Args:
        x_world: (N, 3) m.
        k: at most N.
        sizes: how many points lie in each place, one place after another: points of different places are no
            neighbours. None: all lie in one place.

    Returns:
        distances (N, k) m and indices (N, k) int64, on the device of x_world. In a place of fewer than k points, the
        neighbours that it lacks are more than a hundred kilometres away.
    """
    if sizes is not None and x_world.is_cuda and max(sizes) <= _MOST:
        return nearest_by_distance(x_world, k, sizes)
    return nearest_by_tree(x_world, k, sizes)


def nearest_by_tree(x_world: Tensor, k: int, sizes: Sequence[int] | None) -> tuple[Tensor, Tensor]:
    """As `nearest`, on the host: for many points in one place, it takes half the time of all distances on a GPU."""
    points = on_host(x_world)[0].astype(np.float64, copy=False)
    if sizes is not None:
        place = np.repeat(np.arange(len(sizes)), sizes)
        points = np.concatenate([points, _FAR * place[:, None]], axis=1)
    distances, indices = cKDTree(points).query(points, k=k)
    shape = len(points), k
    return (
        torch.from_numpy(distances.reshape(shape)).to(x_world.device, torch.float32),
        torch.from_numpy(indices.reshape(shape)).to(x_world.device, torch.int64),
    )


def nearest_by_distance(x_world: Tensor, k: int, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """As `nearest`, by all distances within each place: where these are few, a GPU has them while a tree is built."""
    found, start = [], 0
    for points in x_world.split(list(sizes)):
        points = (points - points[:1]).float()
        between = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
        distances, indices = between.topk(min(k, len(points)), largest=False)
        lacking = 0, k - distances.shape[1]
        found.append((F.pad(distances, lacking, value=_FAR), F.pad(start + indices, lacking)))
        start += len(points)
    distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distances, indices
