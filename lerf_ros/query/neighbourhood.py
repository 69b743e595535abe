"""Which surface points lie next to each other: smoothing over the surface and growing regions on it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor


class Neighbourhood:
    """The k nearest neighbours of each of N surface points that are closer than a radius.

    Args:
        x_world: (N, 3) m.
        k: neighbours per point, itself included.
        radius: m; None takes 2.5 times the median distance between nearest neighbours, so that the
            neighbourhood follows the density of the points.
    """

    counts: NDArray[np.int64]  # (N,) neighbours of each point, itself included

    def __init__(self, x_world: Tensor, k: int = 16, radius: float | None = None) -> None:
        points = x_world.detach().cpu().double().numpy()
        k = min(k, len(points))
        distances, indices = cKDTree(points).query(points, k=k)
        distances, indices = distances.reshape(len(points), k), indices.reshape(len(points), k)
        if radius is None:
            radius = 2.5 * float(np.median(distances[:, 1])) if k > 1 else 0.0
        self.radius = radius
        near = distances <= radius
        near[:, 0] = True  # itself, also where duplicates make another point the first hit
        self._indices = torch.from_numpy(np.where(near, indices, np.arange(len(points))[:, None])).to(x_world.device)
        self._near = torch.from_numpy(near).to(x_world.device, torch.float32)
        self.counts = near.sum(axis=1)
        rows, columns = np.nonzero(near)
        graph = csr_matrix(
            (np.ones(len(rows), np.int8), (rows, indices[rows, columns])), shape=(len(points), len(points))
        )
        self._graph = graph.maximum(graph.T).tocsr()  # near is mutual, also where the density of points changes

    def smooth(self, values: Tensor) -> Tensor:
        """Mean of (..., N) values over each point's neighbourhood, (..., N)."""
        return (values[..., self._indices] * self._near).sum(-1) / self._near.sum(-1)

    def component(self, seed: int, member: np.ndarray) -> np.ndarray:
        """Indices of the points that are connected to point `seed` through points of the mask `member` (N,) bool.

        The seed itself must be a member.
        """
        members = np.flatnonzero(member)
        labels = connected_components(self._graph[members][:, members], directed=False)[1]
        return members[labels == labels[np.searchsorted(members, seed)]]
