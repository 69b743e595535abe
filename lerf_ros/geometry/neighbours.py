"""Nearest neighbours among points that lie in several separate places."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

_FAR = 1e6  # m, between places


def nearest(x_world: Tensor, k: int, place: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest points of each point, itself included, the nearest first.

    Args:
        x_world: (N, 3) m.
        k: at most N.
        place: (N,) int64, ascending: points of different places are no neighbours. None: all lie in one place.

    Returns:
        distances (N, k) m and indices (N, k) int64, on the device of x_world. In a place of fewer than k points, the
        neighbours that it lacks are more than a hundred kilometres away.
    """
    if place is not None and x_world.device.type == "cuda":
        return by_all_distances(x_world, k, place)
    points = x_world.detach().cpu().double().numpy()
    if place is not None:
        points = np.concatenate([points, _FAR * place.cpu().double().numpy()[:, None]], axis=1)
    distances, indices = cKDTree(points).query(points, k=k)
    shape = len(points), k
    return (
        torch.from_numpy(distances.reshape(shape)).to(x_world.device, torch.float32),
        torch.from_numpy(indices.reshape(shape)).to(x_world.device, torch.int64),
    )


def by_all_distances(x_world: Tensor, k: int, place: Tensor) -> tuple[Tensor, Tensor]:
    """`nearest` by all distances within each place: for places of a few thousand points this is a GPU's way."""
    counts = torch.bincount(place)
    first = counts.cumsum(0) - counts
    row = torch.arange(len(place), device=place.device) - first[place]
    most = max(int(counts.max()), k)
    middle = torch.zeros(len(counts), 3, dtype=x_world.dtype, device=x_world.device)
    middle.index_add_(0, place, x_world).div_(counts.clamp_min(1)[:, None])
    padded = torch.full((len(counts), most, 3), _FAR, device=x_world.device)
    padded[place, row] = (x_world - middle[place]).float()
    distances = torch.cdist(padded, padded, compute_mode="donot_use_mm_for_euclid_dist")
    nearest_, index = distances.topk(k, largest=False)
    index = (index[place, row] + first[place][:, None]).clamp_max(len(place) - 1)
    return nearest_[place, row], index
