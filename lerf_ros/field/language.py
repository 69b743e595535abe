"""The language field (LERF: Kerr, Kim et al. 2023): an embedding for every point and physical scale."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.field.networks import autocast, compute_dtype, mlp

# Standardises log(scale / m): crops of indoor scenes measure some 5 cm to 2 m.
_LOG_SCALE_MEAN = math.log(0.3)
_LOG_SCALE_STD = 1.0


class LanguageField(nn.Module):
    """Hash features that are blended along rays, and heads that decode the blend once per ray.

    The CLIP head sees the features and the scale, the side length of the image patch that an embedding describes, in
    metres. The DINO head sees the same features without a scale: it only regularises them.

    Args:
        coarse_grid, fine_grid: sizes of the two hash grids.
        embed_dim: D, of the joint image-text space.
        hidden: width of the heads.
        layers: hidden layers of the CLIP head, >= 1.
        dino_dim: outputs of the DINO head; 0 for none.
        backend: of the hash grids.
        precision: of the heads, see :func:`lerf_ros.field.networks.compute_dtype`.

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
    ) -> None:
        super().__init__()
        if layers < 1 or embed_dim < 1:
            raise ValueError(f"need at least one hidden layer and one embedding dimension, got {layers=} {embed_dim=}")
        self.coarse, self.fine = HashGrid(coarse_grid, backend), HashGrid(fine_grid, backend)
        self.feature_dim = self.coarse.output_dim + self.fine.output_dim
        self.precision = precision
        # The first layer is linear in features and scale; kept apart, a sweep over scales repeats only the rest.
        self.clip_from_features = nn.Linear(self.feature_dim, hidden)
        self.clip_from_scale = nn.Linear(1, hidden, bias=False)
        self.clip_hidden = nn.Sequential(
            *(part for _ in range(layers - 1) for part in (nn.ReLU(), nn.Linear(hidden, hidden))), nn.ReLU()
        )
        self.clip_out = nn.Linear(hidden, embed_dim, bias=False)  # without bias, so that |W h|^2 = h^T (W^T W) h
        self.dino_head = mlp(self.feature_dim, hidden, 1, dino_dim) if dino_dim > 0 else None

    @property
    def compute_dtype(self) -> torch.dtype:
        """What the heads compute in on the present device."""
        return compute_dtype(self.precision, self.coarse.table.device)

    def features(self, x_unit: Tensor) -> Tensor:
        """What is blended along rays and kept at surface points: x_unit (N, 3) -> (N, F) float32."""
        return torch.cat([self.coarse(x_unit), self.fine(x_unit)], dim=-1)

    def embed(self, features: Tensor, scale: Tensor) -> Tensor:
        """Embeddings at physical scales.

        Args:
            features: (N, F).
            scale: m, (N,), positive.

        Returns:
            (N, D) float32, unit norm.
        """
        with autocast(self.precision, features.device):
            hidden = self.clip_from_features(features) + self.clip_from_scale(_standardised(scale)[:, None])
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
    def similarity(self, features: Tensor, scales: Tensor, text_embeds: Tensor, chunk: int = 8192) -> Tensor:
        """Cosines between texts and :meth:`embed` at every point and scale, without forming the embeddings.

        With the head's last layer W and hidden activations h, the embedding is ``W h / |W h|``, so

            ``cos(q, e) = (q^T W) h / sqrt(h^T (W^T W) h)``

        where ``q^T W`` and the Gram matrix ``W^T W`` are worked out once. The first layer runs once for all scales.

        Args:
            features: (N, F).
            scales: m, (S,), positive.
            text_embeds: unit norm, (T, D).
            chunk: points at a time, bounds the memory.

        Returns:
            (S, N, T) float32.
        """
        W = self.clip_out.weight.double()
        folded_texts = (text_embeds.double() @ W).float().T.contiguous()  # (H, T)
        gram = (W.T @ W).float()  # (H, H)
        similarities = torch.empty(len(scales), len(features), len(text_embeds), device=features.device)
        scale_columns = self.clip_from_scale(_standardised(scales)[:, None])  # (S, H)
        for start in range(0, len(features), chunk):
            stop = start + chunk
            first = self.clip_from_features(features[start:stop])
            for scale_column, out in zip(scale_columns, similarities[:, start:stop], strict=True):
                with autocast(self.precision, features.device):
                    hidden = self.clip_hidden(first + scale_column)
                hidden = hidden.float()
                norms = torch.einsum("nh,nh->n", hidden @ gram, hidden).clamp_min(1e-24).sqrt()
                out.copy_((hidden @ folded_texts) / norms[:, None])
        return similarities


def _standardised(scale: Tensor) -> Tensor:
    return (scale.log() - _LOG_SCALE_MEAN) / _LOG_SCALE_STD
