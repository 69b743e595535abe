"""Position covariances of surface points, in m^2 and in the map frame."""

from __future__ import annotations

import torch
from torch import Tensor

_UNIFORM = 12**-0.5  # standard deviation of a uniform distribution of width 1


def position_covariance(directions: Tensor, along: Tensor, across: Tensor) -> Tensor:
    """Covariance of N positions, each known from one ray.

    ``C = along^2 d d^T + across^2 (I - d d^T)``

    Args:
        directions: d, (N, 3) unit, of the rays.
        along: (N,) m, standard deviation along the ray.
        across: (N,) m, standard deviation along every direction perpendicular to the ray.

    Returns:
        (N, 3, 3) m^2, in the frame of the directions; symmetric, and positive definite where both deviations are > 0.
    """
    outer = directions[:, :, None] * directions[:, None, :]
    isotropic = torch.diag_embed(across.square()[:, None].expand(-1, 3))
    return isotropic + (along.square() - across.square())[:, None, None] * outer


def pixel_deviation(t: Tensor, focal_px: Tensor) -> Tensor:
    """Standard deviation (N,) m across the ray of a position that is known to one pixel, ``t / f``, on either side:
    that of a uniform distribution over two pixels.

    Args:
        t: (N,) m along the ray.
        focal_px: f, (N,) px.
    """
    return 2 * _UNIFORM * t / focal_px


def voxel_covariance(count: int, size: float, device: torch.device) -> Tensor:
    """Covariance (count, 3, 3) m^2 of positions that are uniformly distributed over a voxel of edge length size (m):
    ``size^2 / 12 I``."""
    return ((_UNIFORM * size) ** 2 * torch.eye(3, device=device)).expand(count, 3, 3)
