"""Everything of a map that is learned, in one module: density and colour, language, proposal, exposure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField
from lerf_ros.field.proposal import ProposalNetwork
from lerf_ros.field.radiance import ExposureCompensation, RadianceField
from lerf_ros.mapping.config import MapperConfig, ProposalNetworksConfig
from lerf_ros.render.proposal import DensityGrid
from lerf_ros.render.rays import Rays
from lerf_ros.render.resampling import Histogram, ResampledProposal
from lerf_ros.render.sampling import kept_spaced_edges, stratified_edges


class MapFields(nn.Module):
    """The fields of one map.

    Args:
        config: what they are like.
        embed_dim: D of the encoder; 0 for a map of colours and depth only.
        dense_dim: of the dense features that regularise language; 0 for none.

    Attributes:
        language: None when embed_dim is 0.
        exposure: None when `radiance.exposure` is off.
    """

    def __init__(self, config: MapperConfig, embed_dim: int, dense_dim: int = 0) -> None:
        super().__init__()
        radiance, language = config.radiance, config.language
        self.scene = config.scene
        self.radiance = RadianceField(radiance.grid, radiance.hidden, radiance.geometry_features)
        self.proposal = (
            _proposal_networks(config.proposal)
            if config.sampling.proposal == "networks"
            else DensityGrid(config.sampling.proposal_resolution)
        )
        self._bins = (
            config.proposal.bins[0] if config.sampling.proposal == "networks" else config.sampling.proposal_bins
        )
        self.language = (
            LanguageField(
                language.coarse_grid,
                language.fine_grid,
                embed_dim,
                language.hidden,
                language.layers,
                dense_dim,
                scale_input=language.scale,
            )
            if embed_dim
            else None
        )
        self.exposure = ExposureCompensation(config.keyframe.capacity) if radiance.exposure else None

    @property
    def device(self) -> torch.device:
        return self.radiance.grid.table.device

    def propose(
        self, rays: Rays, samples: int, jitter: bool, explore: float = 0.0
    ) -> tuple[Tensor, tuple[Histogram, ...]]:
        """Sample intervals without any knowledge of depth.

        Args:
            explore: share of the samples of a density grid that is spread evenly, see `DensityGrid.propose`.

        Returns:
            (R, samples + 1) m along the ray, and what proposal networks believed about the rays (nothing of a grid).
        """
        bins = kept_spaced_edges(self.scene.near, self.scene.far, self._bins, rays.radius, rays.directions.device)
        if isinstance(self.proposal, DensityGrid):
            return self.proposal.propose(rays, bins, samples, jitter, explore), ()
        t_edges = stratified_edges(bins, len(rays.directions), jitter)
        return self.proposal.propose(rays, t_edges, samples, jitter)

    def update_proposal(self, x_unit: Tensor, sigmas: Tensor) -> None:
        """Lets the proposal follow a training step, whose points (N, 3) had the densities sigmas (N,) 1/m."""
        if isinstance(self.proposal, DensityGrid):
            self.proposal.update(x_unit, sigmas)
        else:
            self.proposal.tick()


def _proposal_networks(config: ProposalNetworksConfig) -> ResampledProposal:
    networks = [
        ProposalNetwork(
            HashGridConfig(config.levels, config.features, config.log2_table, min(16, resolution), resolution),
            config.hidden,
        )
        for resolution in config.max_resolutions
    ]
    return ResampledProposal(networks, config.bins[1:], config.anneal_steps)
