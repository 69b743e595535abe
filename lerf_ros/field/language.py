"""The language field (LERF: Kerr, Kim et al. 2023): an embedding for every point and physical scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.field.networks import autocast, compute_dtype, mlp
from lerf_ros.kernels import runs_kernels

# Standardises log(scale / m): crops of indoor scenes measure some 5 cm to 2 m.
_LOG_SCALE_MEAN = math.log(0.3)
_LOG_SCALE_STD = 1.0

_CHUNK_CPU, _CHUNK_CUDA = 2**13, 2**19  # rows of activations at a time: a cache holds them, or half a gigabyte does

ScaleInput = Literal["physical", "normalised", "none"]
"""What the CLIP head is told about the image patch that an embedding describes:

- ``physical``: its side length in metres, as a standardised logarithm;
- ``normalised``: LERF's number, as it is: the place in the pyramid's range times the view's opening times the distance;
- ``none``: nothing, one embedding for all sizes.
"""


class LanguageField(nn.Module):
    """Hash features that are blended along rays, and heads that decode the blend once per ray.

    The CLIP head sees the features and the scale (see :data:`ScaleInput`; in metres unless said otherwise). The DINO
    head sees the same features without a scale: it only regularises them.

    Args:
        coarse_grid, fine_grid: sizes of the two hash grids.
        embed_dim: D, of the joint image-text space.
        hidden: width of the heads.
        layers: hidden layers of the CLIP head, >= 1.
        dino_dim: outputs of the DINO head; 0 for none.
        backend: of the hash grids.
        precision: of the heads, see :func:`lerf_ros.field.networks.compute_dtype`.
        scale_input: what the CLIP head is told about scale.

    Attributes:
        feature_dim: F, length of the blended features.
    """

    def __init__(
        self,
        coarse_grid: HashGridConfig,
        fine_grid: HashGridConfig,
        embed_dim: int,
        hidden: int = 256,
        layers: int = 4,
        dino_dim: int = 0,
        backend: str = "auto",
        precision: str = "auto",
        scale_input: ScaleInput = "physical",
    ) -> None:
        super().__init__()
        if scale_input not in get_args(ScaleInput):
            raise ValueError(f"unknown scale input {scale_input!r}: use one of {', '.join(get_args(ScaleInput))}")
        if layers < 1 or embed_dim < 1:
            raise ValueError(f"need at least one hidden layer and one embedding dimension, got {layers=} {embed_dim=}")
        self.coarse, self.fine = HashGrid(coarse_grid, backend), HashGrid(fine_grid, backend)
        self.feature_dim = self.coarse.output_dim + self.fine.output_dim
        self.precision = precision
        self.scale_input = scale_input
        # The first layer is linear in features and scale; kept apart, a sweep over scales repeats only the rest.
        self.clip_from_features = nn.Linear(self.feature_dim, hidden)
        self.clip_from_scale = nn.Linear(1, hidden, bias=False) if scale_input != "none" else None
        self.clip_hidden = nn.Sequential(
            *(part for _ in range(layers - 1) for part in (nn.ReLU(), nn.Linear(hidden, hidden))), nn.ReLU()
        )
        self.clip_out = nn.Linear(hidden, embed_dim, bias=False)  # without bias, so that |W h|^2 = h^T (W^T W) h
        self.dino_head = mlp(self.feature_dim, hidden, 1, dino_dim) if dino_dim > 0 else None
        self._dino_dim = dino_dim

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the heads compute in on the present device."""
        return compute_dtype(self.precision, self.coarse.table.device)

    def features(self, x_unit: Tensor) -> Tensor:
        """What is blended along rays and kept at surface points: x_unit (N, 3) -> (N, F) float32."""
        return torch.cat(self.encoded(x_unit), dim=-1)

    def encoded(self, x_unit: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of each grid for itself: x_unit (N, 3) -> (N, F_coarse), (N, F_fine)."""
        return self.coarse(x_unit), self.fine(x_unit)

    @property
    def is_fused(self) -> bool:
        """Whether :meth:`decode` runs here: with kernels, and for the sizes that they are made for."""
        dims = self.feature_dim, self.clip_out.out_features, self._dino_dim
        fits = self.clip_out.in_features in (64, 128, 256) and self.feature_dim <= 256 and not any(n % 16 for n in dims)
        return fits and self.compute_dtype == torch.bfloat16 and runs_kernels(self.coarse.table.device)

    def decode(self, features: Tensor, scale: Tensor, with_dino: bool) -> tuple[Tensor, Tensor | None]:
        """Both heads for training, each in one launch, see :attr:`is_fused`.

        Args:
            features, scale: as for :meth:`embed`.
            with_dino: whether the DINO head, which there must be, is asked, too.

        Returns:
            (N, D) bfloat16, embeddings before they are normalised; (N, D_dino) bfloat16, or None.
        """
        from lerf_ros.field.head_triton import Head, HeadSizes  # not everywhere installed

        features = features.to(self.compute_dtype)
        (hidden, inputs), (embed, _) = self.clip_from_features.weight.shape, self.clip_out.weight.shape
        told = {"physical": "log", "normalised": "plain", "none": "none"}[self.scale_input]
        layers = sum(isinstance(part, nn.ReLU) for part in self.clip_hidden)
        sizes = HeadSizes(inputs, hidden, layers, embed, told, False, _LOG_SCALE_MEAN, _LOG_SCALE_STD)
        parts = self.clip_from_features, self.clip_from_scale, self.clip_hidden, self.clip_out
        weights = [weight for part in parts if part is not None for weight in part.parameters()]
        outputs = Head.apply(features, scale, sizes, *weights)
        if not with_dino or self.dino_head is None:
            return outputs, None
        sizes = HeadSizes(inputs, hidden, 1, self._dino_dim)
        return outputs, Head.apply(features, None, sizes, *self.dino_head.parameters())

    def embed(self, features: Tensor, scale: Tensor) -> Tensor:
        """Embeddings at scales.

        Args:
            features: (N, F).
            scale: (N,), positive; metres with the scale input ``physical``, without meaning with ``none``.

        Returns:
            (N, D) float32, unit norm.
        """
        with autocast(self.precision, features.device):
            hidden = self.clip_from_features(features)
            if self.clip_from_scale is not None:
                hidden = hidden + self.clip_from_scale(self._scale_column(scale))
            out = self.clip_out(self.clip_hidden(hidden))
        return nn.functional.normalize(out.float(), dim=-1)

    def dino(self, features: Tensor) -> Tensor | None:
        """DINO features of the same points, (N, F) -> (N, D_dino) float32; None without a DINO head."""
        if self.dino_head is None:
            return None
        with autocast(self.precision, features.device):
            out = self.dino_head(features)
        return out.float()

    @torch.no_grad()
    def similarity(
        self,
        features: Tensor,
        scales: Tensor,
        text_embeds: Tensor,
        weights: Tensor | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """Cosines between texts and :meth:`embed` at every point and scale, without forming the embeddings.

        With the head's last layer W and hidden activations h, the embedding is ``W h / |W h|``, so

            ``cos(q, e) = (q^T W) h / sqrt(h^T (W^T W) h)``

        where ``q^T W`` and the Gram matrix ``W^T W`` are worked out once. The first layer runs once for all scales.
        A point with several features has the embedding ``sum_s w_s e_s``, normalised; that is ``W h'`` with
        ``h' = sum_s w_s h_s / |W h_s|``, so the same folding holds for it.

        Args:
            features: (N, F); with weights, (N, S, F).
            scales: (S',), as for :meth:`embed`, or (S', N), for each point its own.
            text_embeds: unit norm, (T, D).
            weights: None, or (N, S) of each point's features.
            chunk: features and scales at a time, bounds the memory; None: what suits the device.

        Returns:
            (S', N, T) float32.
        """
        W = self.clip_out.weight
        folded_texts, gram = (text_embeds @ W).T, W.T @ W  # (H, T), (H, H)
        told, told_weight = self._told(scales if scales.ndim == 2 else scales[:, None], features)
        samples = 1 if weights is None else features.shape[1]
        features = features.flatten(0, -2)
        if samples > 1 and told.shape[1] > 1:
            told = told.repeat_interleave(samples, dim=1)
        dtype, fused = self.compute_dtype, runs_kernels(features.device) and self.compute_dtype == torch.bfloat16
        first_layer, cosines = _kernels() if fused else (first_layer_torch, cosines_torch)
        layers = [layer for layer in self.clip_hidden if isinstance(layer, nn.Linear)]
        cast = [(layer.weight.to(dtype), layer.bias.to(dtype)) for layer in layers]
        points, width = len(features) // samples, len(W[0])
        similarities = torch.empty(len(told), points, len(text_embeds), device=features.device)
        chunk = chunk or (_CHUNK_CUDA if features.is_cuda else _CHUNK_CPU)
        at_once = max(1, chunk // (samples * len(told)))
        for start in range(0, points, at_once):
            part = slice(start * samples, (start + at_once) * samples)
            of_part = told if told.shape[1] == 1 else told[:, part]
            projected = self.clip_from_features(features[part])
            hidden = first_layer(projected, of_part, told_weight, dtype if cast else torch.float32)
            for weight, bias in cast:
                hidden = _relu_layer(hidden.flatten(0, 1), weight, bias).view(len(told), -1, width)
            if weights is not None:
                of_samples = hidden.float().view(len(told), -1, samples, width)
                unit = of_samples / _lengths(of_samples, gram)[..., None]
                hidden = torch.einsum("ns,knsh->knh", weights[start : start + at_once], unit)
            cosines(hidden, gram, folded_texts, similarities, start)
        return similarities.expand(len(scales), -1, -1)

    def _told(self, scales: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the first layer is told about scales (S, N) or (S, 1), in that shape or (1, 1), and its weights (H,)."""
        if self.clip_from_scale is None:
            return features.new_zeros(1, 1), features.new_zeros(self.clip_out.in_features)
        return self._scale_column(scales)[..., 0], self.clip_from_scale.weight[:, 0]

    def _scale_column(self, scale: Tensor) -> Tensor:
        """(...) scales as the head's input (..., 1)."""
        if self.scale_input == "normalised":
            return scale[..., None]
        return ((scale.log() - _LOG_SCALE_MEAN) / _LOG_SCALE_STD)[..., None]


def first_layer_torch(projected: Tensor, told: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """``relu(projected + told weight)`` in dtype: projected (N, H), told (S, N) or (S, 1), weight (H,) -> (S, N, H)."""
    return (projected + told[..., None] * weight).relu_().to(dtype)


def cosines_torch(hidden: Tensor, gram: Tensor, folded_texts: Tensor, out: Tensor, start: int) -> None:
    """Cosines of activations hidden (S, P, H) with folded_texts (H, T), into out (S, N, T) from point `start` on."""
    hidden = hidden.float()
    out[:, start : start + hidden.shape[1]] = (hidden @ folded_texts) / _lengths(hidden, gram)[..., None]


def _lengths(hidden: Tensor, gram: Tensor) -> Tensor:
    """``|W h|`` (...) of activations h (..., H), with gram = W^T W."""
    return torch.einsum("...h,...h->...", hidden @ gram, hidden).clamp_min(1e-24).sqrt()


def _relu_layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(M, H) -> (M, H'), with the activation as a part of the product where torch offers that, on GPUs."""
    if x.is_cuda:
        return torch._addmm_activation(bias, x, weight.t())
    return nn.functional.linear(x, weight, bias).relu_()


def _kernels() -> tuple[Callable[..., Tensor], Callable[..., None]]:
    from lerf_ros.field.language_triton import cosines_triton, first_layer_triton  # not everywhere installed

    return first_layer_triton, cosines_triton
