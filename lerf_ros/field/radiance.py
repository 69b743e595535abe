"""Density and colour (Nerfacto's field: Tancik et al. 2023)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lerf_ros.field.directions import SH4_COMPONENTS, spherical_harmonics_4
from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.field.networks import autocast, compute_dtype, density_mlp
from lerf_ros.kernels import runs_kernels

FEWEST_FUSED = 9  # samples of a ray that the fused networks take: their blocks hold at most 16 rays
_MAX_LOG_DENSITY = 11.0  # 60,000 per metre: nothing passes a tenth of a millimetre


class Weights(NamedTuple):
    """Parameters of both networks, float32: density (H, E), (H,), (1 + G, H), (1 + G,); colour (H, G) from geometry,
    (H, 16) and (H,) from the direction, (H, H), (H,), (3, H), (3,)."""

    W1: Tensor
    b1: Tensor
    W2: Tensor
    b2: Tensor
    Wg: Tensor
    Wd: Tensor
    bd: Tensor
    W3: Tensor
    b3: Tensor
    W4: Tensor
    b4: Tensor


class TruncatedExp(torch.autograd.Function):
    """``exp(min(x, limit))`` whose gradient does not vanish beyond the limit (instant-NGP): an overshooting density can
    come back, and never overflows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x.clamp_max(_MAX_LOG_DENSITY).exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0]


class RadianceField(nn.Module):
    """Density from a hash grid and a small network, colour from its by-product and the viewing direction.

    Densities are per *metre* of the world. ``x_unit`` only says where to look; how long an interval is, is measured in
    metres along the ray, so neither the scene radius nor the contraction appears in ``sigma * delta``.

    Args:
        grid: sizes of the hash grid.
        hidden: width of both networks.
        geometry_features: G, values handed from the density to the colour network.
        initial_density: 1/m, what an untrained field answers everywhere.
        backend: of the hash grid.
        precision: of the networks, see :func:`lerf_ros.field.networks.compute_dtype`.
    """

    def __init__(
        self,
        grid: HashGridConfig,
        hidden: int = 64,
        geometry_features: int = 15,
        initial_density: float = 1.0,
        backend: str = "auto",
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self.grid = HashGrid(grid, backend)
        self.precision = precision
        self.density_network = density_mlp(self.grid.output_dim, hidden, 1 + geometry_features, initial_density)
        self.colour_from_geometry = nn.Linear(geometry_features, hidden, bias=False)
        self.colour_from_direction = nn.Linear(SH4_COMPONENTS, hidden)
        self.colour_network = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the networks compute in on the present device."""
        return compute_dtype(self.precision, self.grid.table.device)

    def density(self, x_unit: Tensor) -> tuple[Tensor, Tensor]:
        """Density at points of the unit cube.

        Args:
            x_unit: (N, 3).

        Returns:
            sigmas (N,) float32, 1/m, and geometry (N, G) for :meth:`colour`.
        """
        with autocast(self.precision, x_unit.device):
            out = self.density_network(self.grid(x_unit))
        return TruncatedExp.apply(out[:, 0].float()), out[:, 1:]

    def along_rays(self, x_unit: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Density and colour of the samples of rays, as :meth:`density` and :meth:`colour`: one launch with kernels.

        Args:
            x_unit: (R, S, 3).
            directions: unit vectors in the world frame, (R, 3).

        Returns:
            sigmas (R, S) 1/m and rgb (R, S, 3) in [0, 1], float32.
        """
        rays, samples = x_unit.shape[:2]
        if self._is_fused(samples) and runs_kernels(x_unit.device):
            from lerf_ros.field.radiance_triton import Radiance  # not everywhere installed

            with autocast(self.precision, x_unit.device):
                encoded = self.grid(x_unit.flatten(0, 1))
            sigmas, rgb = Radiance.apply(encoded, directions, _MAX_LOG_DENSITY, *self._weights())
        else:
            sigmas, geometry = self.density(x_unit.flatten(0, 1))
            rgb = self.colour(geometry, directions)
        return sigmas.view(rays, samples), rgb.view(rays, samples, 3)

    def colour(self, geometry: Tensor, directions: Tensor) -> Tensor:
        """Colour of points seen along directions.

        The first layer is linear in each of its two inputs, so the directions' half is worked out once per ray.

        Args:
            geometry: from :meth:`density`, (N, G).
            directions: unit vectors in the world frame, (N, 3); or (R, 3) with N = R S, one for S consecutive points.

        Returns:
            rgb (N, 3) float32 in [0, 1].
        """
        with autocast(self.precision, geometry.device):
            from_direction = self.colour_from_direction(spherical_harmonics_4(directions))
            hidden = self.colour_from_geometry(geometry).unflatten(0, (len(directions), -1)) + from_direction[:, None]
            out = self.colour_network(hidden.flatten(0, 1))
        return out.float().sigmoid()

    def _is_fused(self, samples: int) -> bool:
        """Whether the fused kernels are made for these sizes."""
        hidden, geometry = self.colour_from_geometry.weight.shape
        return hidden in (32, 64) and geometry == 15 and self.grid.output_dim <= 64 and samples >= FEWEST_FUSED

    def _weights(self) -> Weights:
        networks = *self.density_network, self.colour_from_geometry, self.colour_from_direction, *self.colour_network
        layers = [layer for layer in networks if isinstance(layer, nn.Linear)]
        return Weights(*(p for layer in layers for p in layer.parameters()))


class ExposureCompensation(nn.Module):
    """One gain per keyframe and colour channel, for cameras with automatic exposure: ``rgb exp(log_gain)``.

    The overall brightness is free (the field can take it up), so train with a penalty on ``log_gains``; views that are
    no keyframes are rendered without a gain.

    Args:
        keyframes: capacity of the keyframe store.
    """

    def __init__(self, keyframes: int) -> None:
        super().__init__()
        self.log_gains = nn.Parameter(torch.zeros(keyframes, 3))

    def forward(self, rgb: Tensor, slots: Tensor) -> Tensor:
        """rgb (R, 3) rendered for rays of keyframes slots (R,) -> what their cameras would have recorded, (R, 3)."""
        return rgb * self.log_gains[slots].exp()

    @torch.no_grad()
    def reset(self, slot: int) -> None:
        """Forgets a keyframe whose slot is used again."""
        self.log_gains[slot] = 0.0
