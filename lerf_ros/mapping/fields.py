"""Everything of a map that is learned, in one module: density and colour, language, proposal, exposure."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lerf_ros.field.language import LanguageField
from lerf_ros.field.radiance import ExposureCompensation, RadianceField
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.render.proposal import DensityGrid
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import spaced_edges, stratified_edges


class MapFields(nn.Module):
    """The fields of one map.

    Args:
        embed_dim: D of the encoder; 0 for a map of colours and depth only.

    Attributes:
        language: None when embed_dim is 0.
        exposure: None when `radiance.exposure` is off.
    """

    def __init__(self, config: MapperConfig, embed_dim: int) -> None:
        super().__init__()
        radiance, language = config.radiance, config.language
        self.config = config.sampling
        self.scene = config.scene
        self.radiance = RadianceField(radiance.grid, radiance.hidden, radiance.geometry_features)
        self.proposal = DensityGrid(config.sampling.proposal_resolution)
        self.language = (
            LanguageField(
                language.coarse_grid,
                language.fine_grid,
                embed_dim,
                language.hidden,
                language.layers,
                scale_input=language.scale,
            )
            if embed_dim
            else None
        )
        self.exposure = ExposureCompensation(config.keyframe.capacity) if radiance.exposure else None

    @property
    def device(self) -> torch.device:
        return self.radiance.grid.table.device

    def propose(self, rays: Rays, samples: int, jitter: bool) -> Tensor:
        """Sample intervals (R, samples + 1), m along the ray, without any knowledge of depth."""
        bins = spaced_edges(
            self.scene.near, self.scene.far, self.config.proposal_bins, rays.radius, rays.directions.device
        )
        return self.proposal.propose(rays, stratified_edges(bins, len(rays.directions), jitter), samples, jitter)
