"""Surface points of a map and what is known about them: the whole interface between mapping and query."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor


@dataclass(frozen=True)
class SurfacePoints:
    """N points on the mapped surface.

    Attributes:
        x_world: (N, 3) float64, metres, map frame.
        normals: (N, 3) unit, pointing out of the surface, towards the cameras that saw it.
        view_directions: (N, 3) unit, mean direction from the cameras to the point.
        views: (N,) int64, number of keyframes that see the point.
        scale_min, scale_max: (N,) metres, the range of physical crop sizes that supervision has seen at the point;
            empty (scale_min > scale_max) where no crop has been encoded yet.
    """

    x_world: Tensor
    normals: Tensor
    view_directions: Tensor
    views: Tensor
    scale_min: Tensor
    scale_max: Tensor

    @property
    def has_language(self) -> bool:
        """Whether any point can be asked yet."""
        return bool((self.scale_min <= self.scale_max).any())


class SemanticSurface(Protocol):
    """What a question needs. The trained map and the voxel baseline both give one."""

    @property
    def points(self) -> SurfacePoints: ...

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T) of the N points, seen at the scales (S,) in metres, with the unit text_embeds (T, D)."""
        ...

    def closer(self, centre: NDArray[np.float64], radius: float, max_points: int) -> SemanticSurface | None:
        """The surface within radius metres of a point (3,), with up to max_points points; None if there is no more to
        see there."""
        ...


def local_normals(x_world: Tensor, view_directions: Tensor, neighbours: int) -> Tensor:
    """Unit normals (N, 3) from the local plane of each point, turned against the viewing direction.

    The normal is the eigenvector of the smallest eigenvalue of the covariance of the `neighbours` nearest points
    (Hoppe et al. 1992). Fewer than three points have no plane: the reversed viewing direction stands in.
    """
    if len(x_world) < 3:
        return -view_directions
    x = (x_world - x_world.mean(dim=0)).cpu()
    _, index = cKDTree(x.numpy()).query(x.numpy(), k=min(neighbours, len(x)))
    patch = x[torch.from_numpy(index)]
    patch = patch - patch.mean(dim=1, keepdim=True)
    normals = torch.linalg.eigh(patch.transpose(1, 2) @ patch).eigenvectors[:, :, 0].to(view_directions)
    away = (normals * view_directions).sum(dim=-1, keepdim=True) > 0
    return torch.where(away, -normals, normals)
