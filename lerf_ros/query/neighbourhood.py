"""Which surface points lie next to each other: for smoothing over the surface and growing regions on it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from lerf_ros.geometry.neighbours import Places, nearest


class Neighbourhood:
    """The k nearest neighbours of each of N surface points that are closer than a radius.

    Args:
        x_world: (N, 3) m.
        k: neighbours per point, itself included.
        radius: m; None takes 2.5 times the median distance between nearest neighbours, in each place, so that the
            neighbourhood follows the density of the points.
        places: points of different places are no neighbours; None: all lie in one.

    Attributes (on the device of x_world):
        counts: (N,) int32, neighbours of each point, itself included.
        members: (N, k) int32, the neighbours of each point; itself instead of those that it lacks ...
        shares: (N, k) ... of which this is the part of the mean: 0 of those.
        one_sided: (N, k) bool, the neighbours that may not have the point for one in turn: those that have k already.
            All others have whatever is within the radius.
    """

    def __init__(self, x_world: Tensor, k: int = 16, radius: float | None = None, places: Places | None = None) -> None:
        N, k = len(x_world), min(k, len(x_world))
        distances, indices = nearest(x_world, k, places)
        places = places or Places.one(N, x_world.device)
        second = distances[:, min(1, k - 1)]
        reach = 2.5 * places.each(places.medians(second))[:, None] if radius is None else radius
        near = distances <= reach
        near[:, 0] = True  # itself, also where duplicates make another point the first hit
        itself = torch.arange(N, dtype=torch.int32, device=x_world.device)[:, None]
        self.members = torch.where(near, indices.int(), itself)
        self.counts = near.sum(dim=1, dtype=torch.int32)
        self.shares = near / self.counts[:, None]
        self.one_sided = (self.counts == k)[self.members]

    def smooth(self, values: Tensor) -> Tensor:
        """Mean of (..., N) values over each point's neighbourhood, (..., N)."""
        columns = values.reshape(-1, values.shape[-1]).T.contiguous()
        means = embedding_bag(self.members, columns, per_sample_weights=self.shares, mode="sum")
        return means.T.reshape(values.shape)
