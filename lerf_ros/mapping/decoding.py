"""From features along rays to embeddings: what is taken from a ray, and the scale at which it is decoded.

Training, rendered views and surface points all go through here, so that what is asked is what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.field.language import LanguageField, ScaleInput
from lerf_ros.field.networks import autocast
from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.config import LanguageConfig
from lerf_ros.mapping.marching import March
from lerf_ros.render.volume import accumulate, median_depth

_SMALLEST_ASKED = 0.05  # of the pyramid's range: a sweep over log scale has to begin above LERF's zero


@dataclass(frozen=True)
class LanguageFeatures:
    """What N rays (or surface points) know about language.

    The embedding of a ray at scale s is ``g(h, s)`` with the CLIP head g, or ``sum_i w_i g(h_i, s_i)``, normalised,
    where the ray keeps several features.

    Attributes:
        field: decodes.
        features: (N, F), or (N, S, F) with weights.
        t: m along the ray, (N,) or (N, S): where the features come from.
        weights: None, or (N, S), detached; they sum to 1.
    """

    field: LanguageField
    features: Tensor
    t: Tensor
    weights: Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence[LanguageFeatures]) -> LanguageFeatures:
        """The rays of all parts (at least one), which must be of one kind."""
        weights = None if parts[0].weights is None else torch.cat([p.weights for p in parts if p.weights is not None])
        return cls(parts[0].field, torch.cat([p.features for p in parts]), torch.cat([p.t for p in parts]), weights)

    def __getitem__(self, index: Tensor | slice) -> LanguageFeatures:
        """Some of the rays."""
        weights = None if self.weights is None else self.weights[index]
        return LanguageFeatures(self.field, self.features[index], self.t[index], weights)

    def __len__(self) -> int:
        return len(self.features)

    def embed(self, scale: Tensor) -> Tensor:
        """Embeddings (N, D), unit norm, at scale (N,), or (N, S) for features of different distance."""
        if self.weights is None:
            return self.field.embed(self.features, scale)
        scale = scale if scale.ndim == 2 else scale[:, None].expand_as(self.weights)
        embeds = self.field.embed(self.features.flatten(0, 1), scale.flatten())
        return normalize(accumulate(self.weights, embeds.view(*self.weights.shape, -1)), dim=-1)

    def dino(self) -> Tensor | None:
        """Dense features (N, D_dino) of the rays, which need not be of unit length; None without a DINO head."""
        dino = self.field.dino(self.features.flatten(0, -2))
        if dino is None or self.weights is None:
            return dino
        return accumulate(self.weights, dino.view(*self.weights.shape, -1))

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T) of texts (T, D) with :meth:`embed` at each of the scales (S,), or (S, N)."""
        return self.field.similarity(self.features, scales.to(self.t), text_embeds.to(self.t), self.weights)


def training_features(language: LanguageField, marched: March, config: LanguageConfig) -> LanguageFeatures:
    """What training decodes of each ray, see `config.Decoding`; no gradient reaches the weights."""
    if config.decoding != "sampled":
        with autocast(language.precision, marched.weights.device):  # the heads would round the features anyhow
            return _heaviest(language, marched, config)
    cdf = marched.weights.detach().cumsum(dim=1)
    drawn = cdf[:, -1:] * torch.rand_like(cdf[:, :1])
    index = torch.searchsorted(cdf, drawn, right=True).clamp_max(cdf.shape[1] - 1)
    x_unit = marched.x_unit.gather(1, index[..., None].expand(-1, -1, 3))
    return LanguageFeatures(language, language.features(x_unit[:, 0]), _middles(marched).gather(1, index)[:, 0])


def asked_features(language: LanguageField, marched: March, config: LanguageConfig) -> LanguageFeatures:
    """What is asked about each ray: what training decodes, and with "sampled" the point at its median depth."""
    if config.decoding != "sampled":
        return _heaviest(language, marched, config)
    t = median_depth(marched.weights, marched.t_edges)
    return LanguageFeatures(language, language.features(marched.rays.x_unit(t[:, None])[:, 0]), t)


def _heaviest(language: LanguageField, marched: March, config: LanguageConfig) -> LanguageFeatures:
    """The heaviest samples of each ray, blended or kept apart; their weights are made to sum to one."""
    weights = marched.weights.detach()
    kept = min(config.samples, weights.shape[1])
    if config.decoding == "blend" and runs_kernels(weights.device):
        from lerf_ros.mapping.decoding_triton import Blend, heaviest_triton  # not everywhere installed

        heaviest, x_unit, t = heaviest_triton(weights, marched.x_unit, marched.t_edges, kept)
        encoded = language.encoded(x_unit.flatten(0, 1))
        return LanguageFeatures(language, Blend.apply(heaviest, *encoded), t)
    heaviest, index = weights.topk(kept, dim=1, sorted=False)
    heaviest = heaviest / heaviest.sum(dim=1, keepdim=True).clamp_min(1e-8)
    x_unit = torch.gather(marched.x_unit, 1, index[..., None].expand(-1, -1, 3))
    features = language.features(x_unit.flatten(0, 1)).view(*index.shape, -1)
    if config.decoding == "per_sample":
        return LanguageFeatures(language, features, _middles(marched).gather(1, index), heaviest)
    return LanguageFeatures(language, accumulate(heaviest, features), median_depth(weights, marched.t_edges))


def _middles(marched: March) -> Tensor:
    return (marched.t_edges[:, 1:] + marched.t_edges[:, :-1]) / 2


@dataclass(frozen=True)
class CropScale:
    """The scale value of image crops: what the CLIP head is told, see `field.language.ScaleInput`.

    ``physical``: ``c z / f`` metres, for a crop of c pixels at depth z.
    ``normalised`` (LERF's code): ``p H / f * t / radius`` with the place p of the crop in the pyramid's range, 0 for
    the smallest and 1 for the largest, and the distance t along the ray in units of the scene's radius.
    ``none``: 1.

    Attributes:
        layout: crop sizes and image height.
        radius: of the scene, m.
    """

    kind: ScaleInput
    layout: PyramidLayout
    radius: float

    def of(self, crop_px: Tensor | float, t: Tensor, z_per_t: Tensor, focal_px: Tensor | float) -> Tensor:
        """Scales of crops around points at t, m along their rays; all of one shape, or such that broadcasts."""
        if self.kind == "physical":
            return crop_px * (t * z_per_t) / focal_px
        if self.kind == "normalised":
            smallest, largest = self.layout.levels[0].crop_px, self.layout.levels[-1].crop_px
            place = (crop_px - smallest) / max(largest - smallest, 1)
            return place * self.layout.height / focal_px * t / self.radius
        return torch.ones_like(t)

    def distance(self, t: Tensor, depth_z: Tensor) -> Tensor:
        """What the scales of crops around points are proportional to: m along their rays or of depth, or 1."""
        return depth_z if self.kind == "physical" else t if self.kind == "normalised" else torch.ones_like(t)

    def asked(
        self,
        smallest_px: Tensor | float,
        largest_px: Tensor | float,
        t: Tensor,
        z_per_t: Tensor,
        focal_px: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        """Smallest and largest scale, both positive, at which points can be asked that were trained with crops from
        `smallest_px` to `largest_px`."""
        if self.kind == "normalised":
            first, last = self.layout.levels[0].crop_px, self.layout.levels[-1].crop_px
            smallest_px = torch.as_tensor(smallest_px).clamp_min(first + _SMALLEST_ASKED * (last - first))
            largest_px = torch.maximum(torch.as_tensor(largest_px), smallest_px)
        return self.of(smallest_px, t, z_per_t, focal_px), self.of(largest_px, t, z_per_t, focal_px)
