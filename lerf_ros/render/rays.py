"""Rays in the coordinates of the field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lerf_ros.geometry.contraction import unit_from_local
from lerf_ros.kernels import runs_kernels
from lerf_ros.render.sampling import midpoints


@dataclass(frozen=True)
class Rays:
    """R rays, their distances in metres.

    Attributes:
        origins: scene-local (``SceneBounds.to_local``), float32, (R, 3). Local, because float32 world coordinates far
            from the map's origin lose the millimetres.
        directions: unit vectors in the world frame, (R, 3).
        radius: of the scene, m: what one local unit measures.
    """

    origins: Tensor
    directions: Tensor
    radius: float

    def x_unit(self, t: Tensor) -> Tensor:
        """Points at distances t (R, S), m along the ray: (R, S, 3) in [0, 1]^3."""
        steps = self.directions / self.radius
        return unit_from_local(torch.addcmul(self.origins[:, None], t[..., None], steps[:, None]))

    def x_unit_of_intervals(self, t_edges: Tensor) -> Tensor:
        """Points in the middle of intervals whose edges are t_edges (R, S + 1), m: (R, S, 3). No gradient flows."""
        if runs_kernels(t_edges.device):
            from lerf_ros.render.rays_triton import x_unit_of_intervals_triton  # where Triton is installed

            return x_unit_of_intervals_triton(self, t_edges)
        return self.x_unit(midpoints(t_edges)).detach()
