"""The depth-free proposal: a coarse density grid that remembers where the field is dense."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lerf_ros.kernels import runs_kernels
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import draw_noise, importance_edges_from_noise, midpoints, moved_edges
from lerf_ros.render.volume import weights_from_sigmas

# No bin may hide what is behind it: a cell is coarser than a surface, which may lie at its far side. A bin keeps at
# most 1 - exp(-0.5) = 39 % of the light that reaches it.
MAX_OPTICAL_DEPTH = 0.5


class DensityGrid(nn.Module):
    """Densities of G^3 cells of the unit cube, one nearest-cell read per bin.

    Instead of proposal networks: nothing to train, no gradients, a few microseconds per ray. It follows the field:
    visited cells take the largest density just seen in them, or fade towards it (instant-NGP's occupancy rule, without
    its threshold). It starts uniform, so that the first samples are spread evenly and colour alone can find the scene.

    Args:
        resolution: G, cells per axis.
        initial_density: 1/m, of every cell at first; that of the untrained field.
        decay: what a cell keeps per visit, in (0, 1).

    Attributes:
        sigmas: buffer (G^3,) float32, 1/m, z fastest.
    """

    sigmas: Tensor

    def __init__(self, resolution: int, initial_density: float = 1.0, decay: float = 0.95) -> None:
        super().__init__()
        if resolution < 1:
            raise ValueError(f"the proposal grid needs at least one cell per axis, got {resolution}")
        if not 0.0 < decay < 1.0:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}")
        self.resolution = resolution
        self.decay = decay
        self.register_buffer("sigmas", torch.full((resolution**3,), initial_density))

    def density(self, x_unit: Tensor) -> Tensor:
        """Density of the cells that contain the points: (..., 3) -> (...), 1/m."""
        return self.sigmas[self.cells(x_unit)]

    @torch.no_grad()
    def propose(self, rays: Rays, t_edges: Tensor, samples: int, jitter: bool = True, explore: float = 0.0) -> Tensor:
        """Sample intervals where the grid is dense.

        Args:
            t_edges: coarse bins, m, (R, B + 1), or (B + 1,) common to all rays, which jitter then moves too; B of 64 to
                128.
            samples: S, intervals per ray.
            explore: in [0, 1], share of the samples that is spread evenly over the bins. A surface behind what the grid
                takes for dense is never seen without.

        Returns:
            (R, S + 1) edges, m along the ray, from the first to the last bin edge.
        """
        device = self.sigmas.device
        moved = len(t_edges) if t_edges.dim() == 1 else 0
        noise = draw_noise(len(rays.directions), moved + samples + 1, jitter, device)
        propose = _propose_triton if runs_kernels(device) else propose_torch
        return propose(self, rays, t_edges, samples, noise, explore)

    @torch.no_grad()
    def update(self, x_unit: Tensor, sigmas: Tensor) -> None:
        """Takes in densities of the field: ``cell = max(decay cell, max of the densities seen in it)``.

        Args:
            x_unit: (N, 3), the samples of a training step, or :meth:`random_points`.
            sigmas: the field's densities there, 1/m, (N,).
        """
        update = _update_triton if runs_kernels(self.sigmas.device) else update_torch
        update(self, x_unit, sigmas)

    @torch.no_grad()
    def random_points(self, count: int) -> Tensor:
        """Points at which to ask the field between steps: half of them in the uncontracted middle, (count, 3)."""
        points = torch.rand(count, 3, device=self.sigmas.device)
        points[::2] = points[::2] * 0.5 + 0.25
        return points

    def cells(self, x_unit: Tensor) -> Tensor:
        """Indices into `sigmas` of the cells that contain the points, or are nearest to them: (..., 3) -> (...)."""
        x, y, z = (x_unit * self.resolution).long().clamp(0, self.resolution - 1).unbind(dim=-1)
        return (x * self.resolution + y) * self.resolution + z


def propose_torch(
    grid: DensityGrid, rays: Rays, t_edges: Tensor, samples: int, noise: Tensor | None, explore: float
) -> Tensor:
    """Reference backend of :meth:`DensityGrid.propose`.

    Args:
        noise: (R, S + 1); with common bins (R, B + 1 + S + 1), that of the bins first; None for no jitter.
    """
    if t_edges.dim() == 1:
        bins_noise = None
        if noise is not None:
            bins_noise, noise = noise.split([len(t_edges), samples + 1], dim=1)
        t_edges = moved_edges(t_edges, len(rays.directions), bins_noise)
    deltas = t_edges[:, 1:] - t_edges[:, :-1]
    optical_depths = (grid.density(rays.x_unit(midpoints(t_edges))) * deltas).clamp_max(MAX_OPTICAL_DEPTH)
    weights = weights_from_sigmas(optical_depths, torch.ones_like(optical_depths))
    weights = _widened(weights)
    if explore:
        weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-6)
        weights = (1 - explore) * weights + explore / weights.shape[1]
    return importance_edges_from_noise(t_edges, weights, samples, noise)


def update_torch(grid: DensityGrid, x_unit: Tensor, sigmas: Tensor) -> None:
    """Reference backend of :meth:`DensityGrid.update`."""
    cells = grid.cells(x_unit)
    grid.sigmas.scatter_(0, cells, grid.sigmas[cells] * grid.decay)  # equal values where a cell occurs twice
    grid.sigmas.scatter_reduce_(0, cells, sigmas.float(), "amax")


def _propose_triton(
    grid: DensityGrid, rays: Rays, t_edges: Tensor, samples: int, noise: Tensor | None, explore: float
) -> Tensor:
    from lerf_ros.render.proposal_triton import propose_triton  # where Triton is installed

    return propose_triton(grid, rays, t_edges, samples, noise, explore)


def _update_triton(grid: DensityGrid, x_unit: Tensor, sigmas: Tensor) -> None:
    from lerf_ros.render.proposal_triton import update_triton

    update_triton(grid, x_unit, sigmas)


def _widened(weights: Tensor) -> Tensor:
    """Blurred maximum with the neighbouring bins (mip-NeRF 2021, eq. 18), for surfaces at the edge of a bin."""
    padded = torch.nn.functional.pad(weights, (1, 1))
    pairs = torch.maximum(padded[:, :-1], padded[:, 1:])
    return (pairs[:, :-1] + pairs[:, 1:]) * 0.5
