"""What the keyframes' own crops say about points: their embeddings, averaged over views, by physical scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.config import VoxelConfig


class CropMeans:
    """Sums of crop embeddings for a number of points, in bins that are evenly spaced in log scale.

    Memory: points * `voxel.scale_bins` * D * 4 bytes, reserved at once.

    Args:
        points: how many there may be.
        embed_dim: D.

    Attributes:
        counts: (points, B) how many embeddings each bin has.
    """

    def __init__(self, points: int, embed_dim: int, config: VoxelConfig, device: torch.device | str) -> None:
        bins = config.scale_bins
        self._log_scales = torch.linspace(math.log(config.scale_min), math.log(config.scale_max), bins, device=device)
        self._sums = torch.zeros(points, bins, embed_dim, device=device)
        self.counts = torch.zeros(points, bins, device=device)

    def add(
        self,
        rows: Tensor,
        layout: PyramidLayout,
        embeds: Tensor,
        valid: Tensor,
        uv: Tensor,
        depth_z: Tensor,
        focal_px: Tensor | float,
    ) -> Iterator[Tensor]:
        """Enters one view: every pixel looks up the pyramid at each encoded level, between crop centres.

        Args:
            rows: (P,) int64, the point that each pixel shows; several pixels may show one.
            layout, embeds: crop pyramid of the view and its embeddings (layout.total, D).
            valid: (L,) bool, levels that have been encoded.
            uv, depth_z: (P, 2) pixels and (P,) m of the points in the view.
            focal_px: of the view.
        Returns:
            For each level, the scale (P,) m of its crops at the points; the work is done as it is iterated over.
        """
        slots = torch.zeros_like(rows)
        for index in valid.nonzero().flatten().tolist():
            crop_px = torch.full_like(depth_z, layout.levels[index].crop_px)
            only = torch.zeros(1, len(layout.levels), dtype=torch.bool, device=rows.device)
            only[0, index] = True
            looked_up = layout.interpolate(embeds[None], only, slots, uv, crop_px).float()
            scale = crop_px * depth_z / focal_px
            bins = (scale.log()[:, None] - self._log_scales).abs().argmin(dim=1)
            cell = rows * len(self._log_scales) + bins
            self._sums.view(-1, looked_up.shape[1]).index_add_(0, cell, looked_up)
            self.counts.view(-1).index_add_(0, cell, torch.ones_like(scale))
            yield scale

    def __getitem__(self, rows: Tensor) -> ScaledEmbeds:
        """Means of some points, each with at least one embedding; an empty bin takes the nearest that is not."""
        sums, counts = self._sums[rows], self.counts[rows]
        bins = torch.arange(counts.shape[1], device=counts.device)
        distance = (bins[:, None] - bins).abs() + torch.where(counts > 0, 0, len(bins))[:, None, :]
        source = distance.argmin(dim=-1)
        filled = torch.gather(sums, 1, source[..., None].expand(-1, -1, sums.shape[-1]))
        return ScaledEmbeds(self._log_scales, normalize(filled, dim=-1))


@dataclass(frozen=True)
class ScaledEmbeds:
    """Embeddings of N points: linear in log scale between B bins, then normalised.

    Attributes:
        log_scales: (B,) log metres of the bins.
        embeds: (N, B, D) unit.
    """

    log_scales: Tensor
    embeds: Tensor

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T) with texts (T, D) at scales (S,) m."""
        step = self.log_scales[1] - self.log_scales[0]
        last = len(self.log_scales) - 1
        position = ((scales.to(step).log() - self.log_scales[0]) / step).clamp(0, last)
        lower = position.long().clamp_max(last - 1)
        text = text_embeds.to(self.embeds)
        cosines = []
        for bin_, share in zip(lower.tolist(), (position - lower).tolist(), strict=True):
            blend = torch.lerp(self.embeds[:, bin_], self.embeds[:, bin_ + 1], share)
            cosines.append(normalize(blend, dim=-1) @ text.T)
        return torch.stack(cosines)
