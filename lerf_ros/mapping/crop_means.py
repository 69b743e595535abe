"""What the keyframes' own crops say about points: their embeddings, averaged over views, by physical scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout


class CropMeans:
    """Sums of crop embeddings for a number of points, in bins that are evenly spaced in log scale.

    Memory: points * bins * D * 4 bytes, reserved at once.

    Args:
        points: how many there may be.
        embed_dim: D.
        bins: B of them, ...
        scale_min, scale_max: m, ... from here to here.

    Attributes:
        counts: (points, B) how many embeddings each bin has.
    """

    def __init__(
        self,
        points: int,
        embed_dim: int,
        bins: int,
        scale_min: float,
        scale_max: float,
        device: torch.device | str,
    ) -> None:
        self._log_scales = torch.linspace(math.log(scale_min), math.log(scale_max), bins, device=device)
        self._sums = torch.zeros(points, bins, embed_dim, device=device)
        self.counts = torch.zeros(points, bins, device=device)

    def add(
        self,
        rows: Tensor,
        layout: PyramidLayout,
        embeds: Tensor,
        valid: NDArray[np.bool_],
        uv: Tensor,
        depth_z: Tensor,
        focal_px: Tensor | float,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Enters one view: every pixel looks up the pyramid at each encoded level, between crop centres.

        Args:
            rows: (P,) int64, the point that each pixel shows; several pixels may show one.
            layout, embeds: crop pyramid of the view and its embeddings (layout.total, D).
            valid: (L,) bool, levels that have been encoded.
            uv, depth_z: (P, 2) pixels and (P,) m of the points in the view.
            focal_px: of the view.
            weights: (P, levels encoded); None: all 1.
        Returns:
            Scales (P, levels encoded) m of the crops at the points.
        """
        sizes = torch.from_numpy(layout.sizes[valid]).to(depth_z)
        crop_px, scales = sizes.repeat(len(rows)), depth_z[:, None] * sizes / focal_px
        rows, uv = (x.repeat_interleave(len(sizes), dim=0) for x in (rows, uv))
        # Of sizes that levels have, `interpolate` reads that level alone.
        known = torch.from_numpy(valid).to(rows.device)[None]
        looked_up = layout.interpolate(embeds[None], known, torch.zeros_like(rows), uv, crop_px)
        bins = (scales.flatten().log()[:, None] - self._log_scales).abs().argmin(dim=1)
        cell = rows * len(self._log_scales) + bins
        count = torch.ones_like(crop_px) if weights is None else weights.flatten()
        self._sums.view(-1, looked_up.shape[1]).index_add_(0, cell, count[:, None] * looked_up)
        self.counts.view(-1).index_add_(0, cell, count)
        return scales

    def scale_range(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest scale (points,) m that each point has embeddings of; empty (min > max) without any."""
        known, scales = self.counts > 0, self._log_scales.exp()
        return torch.where(known, scales, torch.inf).amin(dim=1), torch.where(known, scales, 0.0).amax(dim=1)

    def __getitem__(self, rows: Tensor | slice) -> ScaledEmbeds:
        """Means of some points; an empty bin takes the nearest that is not. A point without any embedding is like no
        text at all: its means are zero."""
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
        embeds: (N, B, D) unit, or zero.
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
