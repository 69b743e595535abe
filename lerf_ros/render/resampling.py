"""Proposal sampling in rounds (mip-NeRF 360, Barron et al. 2022, section 3; Nerfacto): each density says where the next
one is asked, more finely, and at last where the field is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import importance_edges, midpoints
from lerf_ros.render.volume import weights_from_sigmas

_PADDING = 0.01  # added to every bin's weight, so that no place is given up (Nerfacto)
_ANNEAL_SLOPE = 10.0  # mip-NeRF 360, appendix


@dataclass(frozen=True)
class Histogram:
    """Where a proposal believed that R rays end: t_edges (R, B + 1) m; weights (R, B), with gradient."""

    t_edges: Tensor
    weights: Tensor


class ResampledProposal(nn.Module):
    """Rounds of importance sampling, one for each density.

    For the first steps the weights are flattened, ``w^a`` with ``a = b f / ((b - 1) f + 1)``, b = 10, and the share f
    of `anneal_steps` that has passed: early, densities know nothing and must not be trusted.

    Args:
        densities: modules x_unit (N, 3) -> (N,) 1/m, coarse to fine.
        bins: of the rounds after the first, one fewer than densities; the first takes the edges that it is given.
        anneal_steps: training steps until the weights are taken as they are.

    Attributes:
        steps: buffer (), training steps so far; on the device, so that a captured step counts.
    """

    steps: Tensor

    def __init__(self, densities: Sequence[nn.Module], bins: Sequence[int], anneal_steps: int = 1000) -> None:
        super().__init__()
        if not densities or len(bins) != len(densities) - 1:
            raise ValueError(f"{len(densities)} densities need {len(densities) - 1} numbers of bins, got {len(bins)}")
        self.densities = nn.ModuleList(densities)
        self.bins = tuple(bins)
        self.anneal_steps = anneal_steps
        self.register_buffer("steps", torch.zeros(()))

    def propose(
        self, rays: Rays, t_edges: Tensor, samples: int, jitter: bool = True
    ) -> tuple[Tensor, tuple[Histogram, ...]]:
        """Sample intervals where the last density is high.

        Args:
            t_edges: bins of the first round, m, (R, B + 1).
            samples: S, intervals per ray.

        Returns:
            (R, S + 1) edges, m along the ray, from the first to the last bin edge, without gradient; and what each
            density believed, to be trained with `mapping.losses.interlevel_loss`.
        """
        share = (self.steps / self.anneal_steps).clamp_max(1.0)
        exponent = _ANNEAL_SLOPE * share / ((_ANNEAL_SLOPE - 1) * share + 1)
        histograms = []
        for density, count in zip(self.densities, (*self.bins, samples), strict=True):
            sigmas = density(rays.x_unit(midpoints(t_edges)).flatten(0, 1)).view(len(t_edges), -1)
            weights = weights_from_sigmas(sigmas, t_edges[:, 1:] - t_edges[:, :-1])
            histograms.append(Histogram(t_edges, weights))
            floor = _PADDING * weights.shape[1]
            t_edges = importance_edges(t_edges, weights.detach().pow(exponent), count, jitter, floor)
        return t_edges, tuple(histograms)

    @torch.no_grad()
    def tick(self) -> None:
        """Counts a training step."""
        self.steps += 1
