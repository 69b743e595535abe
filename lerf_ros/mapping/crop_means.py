"""What the keyframes' own crops say about points: their embeddings, averaged over views, by physical scale."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.kernels import runs_kernels


def log_bins(bins: int, scale_min: float, scale_max: float, device: torch.device | str) -> Tensor:
    """(bins,) log metres, evenly spaced from scale_min to scale_max m."""
    return torch.linspace(math.log(scale_min), math.log(scale_max), bins, device=device)


class CropMeans:
    """Sums of crop embeddings for a number of points, in bins that are evenly spaced in log scale.

    Memory: points * bins * D * 4 bytes, reserved at once.

    Args:
        points: how many there may be.
        embed_dim: D.
        log_scales: (B,) log metres of the bins, see `log_bins`.

    Attributes:
        counts: (points, B) how many embeddings each bin has.
    """

    def __init__(self, points: int, embed_dim: int, log_scales: Tensor) -> None:
        self._log_scales = log_scales
        self._sums = torch.zeros(points, len(log_scales), embed_dim, device=log_scales.device)
        self.counts = torch.zeros(points, len(log_scales), device=log_scales.device)

    def add(self, rows: Tensor, embeds: Tensor, scales: Tensor, weights: Tensor | None = None) -> None:
        """Enters embeddings (..., D) of crops at scales (...) m.

        Args:
            rows: (...) int64, the point that each is about; several may be about one.
            weights: (...); None: all 1.
        """
        bins = (scales.log()[..., None] - self._log_scales).abs().argmin(dim=-1)
        cell = (rows * len(self._log_scales) + bins).flatten()
        weights = torch.ones_like(scales) if weights is None else weights
        self._sums.view(-1, embeds.shape[-1]).index_add_(0, cell, (weights[..., None] * embeds).flatten(0, -2))
        self.counts.view(-1).index_add_(0, cell, weights.flatten())

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
        return ScaledEmbeds.of(self._log_scales, normalize(filled, dim=-1))


@dataclass(frozen=True)
class ScaledEmbeds:
    """Embeddings of N points: linear in log scale between B bins, then normalised.

    Attributes:
        log_scales: (B,) log metres of the bins.
        embeds: (N, B, D) unit, or zero.
        cosines: (N, B - 1) of each bin's embedding with that of the next.
    """

    log_scales: Tensor
    embeds: Tensor
    cosines: Tensor

    @classmethod
    def of(cls, log_scales: Tensor, embeds: Tensor) -> ScaledEmbeds:
        """With the cosines, worked out."""
        return cls(log_scales, embeds, (embeds[:, :-1] * embeds[:, 1:]).sum(dim=-1))

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T) with texts (T, D) at scales (S,) or (S, N) m.

        Between the unit embeddings a and b of two bins, ``e = (1 - p) a + p b``: its product with a text is a blend of
        theirs, and ``|e|^2 = 1 - 2 p (1 - p) (1 - a.b)``. Both are had without e, which is as many numbers as there are
        scales, points and dimensions. Where our kernels run, one launch does it all.
        """
        if scales.ndim == 1:
            scales = scales[:, None].expand(-1, len(self.embeds))
        if runs_kernels(self.embeds.device):
            from lerf_ros.mapping.crop_means_triton import similarity_triton  # not everywhere installed

            text_embeds, scales = text_embeds.to(self.embeds), scales.to(self.embeds)
            return similarity_triton(self.log_scales, self.embeds, self.cosines, scales, text_embeds)
        return self.similarity_torch(scales, text_embeds)

    def similarity_torch(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Reference backend of `similarity`, for scales (S, N)."""
        first, step, last = self.log_scales[0], self.log_scales[1] - self.log_scales[0], len(self.log_scales) - 1
        position = ((scales.T.to(step).log() - first) / step).clamp(0, last)  # (N, S)
        away = (position[..., None] - torch.arange(last + 1, device=position.device)).abs()
        share = (1 - away).clamp_min(0)  # (N, S, B), of the two bins around: 1 - p and p
        blend = share @ (self.embeds @ text_embeds.to(self.embeds).T)  # (N, S, T)
        shorter = (share[..., :-1] * share[..., 1:]) @ (1 - self.cosines)[..., None]
        return (blend / (1 - 2 * shorter).clamp_min(1e-24).sqrt()).transpose(0, 1)
