"""Dense features: one vector per patch of a whole image, which the language field learns beside its embeddings.

LERF's regulariser (section 3.3): neither scale nor text enters them, so they are sharp where a crop pyramid is blurred,
and what looks alike to them shall have like language features.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn

from lerf_ros.features.encoder import Encoder, EncoderError
from lerf_ros.kernels import has_bfloat16, runs_kernels

DINO = "vit_small_patch8_224.dino"
CLIP_TOKENS = "clip-tokens"
_CLIP_STRIDE = 32  # pixels per cell of a ModifiedResNet's last feature map


@dataclass(frozen=True)
class DenseGrid:
    """Cells that tile images of one size evenly, row by row: the patches that features are about.

    The centre of the cell in row i and column j is the pixel u = (j + 1/2) width / columns - 1/2, v alike: the centre
    of the top-left pixel is (0, 0).
    """

    height: int
    width: int
    rows: int
    columns: int

    @classmethod
    def build(cls, height: int, width: int, rows: int) -> DenseGrid:
        """``rows`` rows, and as many columns as make the cells most nearly square. ValueError without any cell."""
        if min(height, width, rows) < 1:
            raise ValueError(f"no grid of {rows} rows over an image of {width}x{height}")
        return cls(height, width, rows, max(round(rows * width / height), 1))

    def interpolate(self, buffer: Tensor, slots: Tensor, uv: Tensor) -> Tensor:
        """Features (R, dim) float32 at pixels, bilinear between cell centres, clamped at the outermost ones.

        ``buffer`` (K, rows, columns, dim) any float type: the grids of K images; ``slots`` (R,) int64 which of them;
        ``uv`` (R, 2) px. Shapes are fixed and nothing depends on values: safe in a CUDA graph. One launch where our
        kernels run.
        """
        if runs_kernels(buffer.device):
            from lerf_ros.features.dense_triton import interpolate_triton  # not everywhere installed

            return interpolate_triton(buffer, slots, uv, self.height, self.width)
        u = ((uv[:, 0] + 0.5) * (self.columns / self.width) - 0.5).clamp(0, self.columns - 1)
        v = ((uv[:, 1] + 0.5) * (self.rows / self.height) - 0.5).clamp(0, self.rows - 1)
        left, top = u.long(), v.long()
        right, bottom = (left + 1).clamp(max=self.columns - 1), (top + 1).clamp(max=self.rows - 1)
        u, v = u - left, v - top
        weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], dim=1)
        columns = torch.stack([left, right, left, right], dim=1)
        rows = torch.stack([top, top, bottom, bottom], dim=1)
        corners = buffer[slots[:, None], rows, columns].float()  # (R, 4, dim)
        return torch.einsum("rcd,rc->rd", corners, weights)


class DenseFeatures(ABC):
    """Encodes whole images into one unit-norm vector per cell of a grid. Inference only.

    Attributes:
        name: what `load_dense` was asked for.
        dim: length of a feature.
    """

    def __init__(
        self, name: str, dim: int, cell_px: int, mean: Any, std: Any, device: torch.device, dtype: torch.dtype
    ):
        """``cell_px``: side of a cell in the images that the network is given; ``mean``, ``std``: per colour."""
        self.name, self.dim = name, dim
        self._cell_px, self._dtype = cell_px, dtype
        self._mean = torch.tensor(mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor, grid: DenseGrid) -> Tensor:
        """Features (B, rows, columns, dim) float32, unit norm, of images (B, 3, H, W), RGB in [0, 1].

        The images are resized so that a cell of ``grid`` is a patch of the network: more rows, more detail.
        ValueError when the images are not of the grid's size.
        """
        if images.shape[1:] != (3, grid.height, grid.width):
            raise ValueError(f"this grid is for (B, 3, {grid.height}, {grid.width}), got {tuple(images.shape)}")
        size = (grid.rows * self._cell_px, grid.columns * self._cell_px)
        images = F.interpolate(images.to(self._mean), size, mode="bilinear", antialias=True)
        tokens = self._tokens(((images - self._mean) / self._std).to(self._dtype))
        return F.normalize(tokens.float().reshape(-1, grid.rows, grid.columns, self.dim), dim=-1)

    @abstractmethod
    def _tokens(self, images: Tensor) -> Tensor:
        """Normalised images -> (B, rows * columns, dim) or (B, rows, columns, dim)."""


class ClipTokens(DenseFeatures):
    """Embeddings of the patches of a CLIP ResNet: the offline stand-in for DINO, from the encoder that is there anyway.

    The tower runs over the whole image; its attention pooling, which asks for one vector per image, is replaced by its
    value and output projections alone, as in MaskCLIP (Zhou, Loy & Dai 2022): one vector per cell of the last feature
    map, in the encoder's own space. Unlike DINO they are trained with captions, and each sees far around its cell; that
    of row i looks at pixel 32 i + 15 of the resized image, half a pixel beside the cell's centre.
    """

    def __init__(self, encoder: Encoder) -> None:
        """EncoderError unless the image tower is a ModifiedResNet."""
        tower = getattr(encoder.model, "visual", None)
        if not _has_tokens(tower):
            raise EncoderError(
                f"'{CLIP_TOKENS}' needs an encoder with a CLIP ResNet, such as 'mini' or RN50, and {encoder.name} has "
                f"none: use '{DINO}' or 'none'"
            )
        self._tower = tower
        preprocess = open_clip.get_model_preprocess_cfg(encoder.model)
        dim = tower.attnpool.c_proj.out_features
        super().__init__(
            CLIP_TOKENS, dim, _CLIP_STRIDE, preprocess["mean"], preprocess["std"], encoder.device, encoder.dtype
        )

    def _tokens(self, images: Tensor) -> Tensor:
        tower = self._tower
        maps = tower.stem(images.contiguous(memory_format=torch.channels_last))
        maps = tower.layer4(tower.layer3(tower.layer2(tower.layer1(maps))))
        return tower.attnpool.c_proj(tower.attnpool.v_proj(maps.permute(0, 2, 3, 1)))


class VitKeys(DenseFeatures):
    """Keys of the last attention layer of a vision transformer of timm: what LERF takes from DINO.

    Amir et al. 2021 ("Deep ViT features as dense visual descriptors") found the keys, all heads side by side, to tell
    object parts apart better than the layer's outputs.
    """

    def __init__(self, name: str, model: Any, dtype: torch.dtype) -> None:
        """``model``: made with ``dynamic_img_size``. EncoderError unless it is a plain ViT with square patches."""
        blocks = getattr(model, "blocks", None)
        qkv = getattr(getattr(blocks[-1] if blocks else None, "attn", None), "qkv", None)
        patch = getattr(getattr(model, "patch_embed", None), "patch_size", (0, 0))
        if not isinstance(qkv, nn.Linear) or patch[0] != patch[1] or patch[0] < 1:
            raise EncoderError(f"{name} is not a plain vision transformer with square patches: use '{DINO}'")
        self._model, self._qkv = model.eval().requires_grad_(False).to(dtype), qkv
        config = model.pretrained_cfg
        super().__init__(name, qkv.out_features // 3, patch[0], config["mean"], config["std"], qkv.weight.device, dtype)

    def _tokens(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hook = self._qkv.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            self._model.forward_features(images)
        finally:
            hook.remove()
        return seen[0].chunk(3, dim=-1)[1][:, self._model.num_prefix_tokens :]


def load_dense(model: str, pretrained: str, device: str | torch.device, encoder: Encoder) -> DenseFeatures | None:
    """Dense features by name.

    ``"none"``: None. ``"clip-tokens"``: of ``encoder`` itself, needs nothing else. Otherwise a vision transformer of
    timm, usually ``"vit_small_patch8_224.dino"`` as in LERF, with timm's weights (downloaded once, then cached) or
    those of the file ``pretrained``. ``"auto"``: clip-tokens where the encoder has them, else DINO.
    CUDA devices with bf16 support use it, anything else float32.
    EncoderError when the name is unknown, the file is missing or does not fit, or the download fails.
    """
    if model == "none":
        return None
    if model == "auto":
        model = CLIP_TOKENS if _has_tokens(getattr(encoder.model, "visual", None)) else DINO
    if model == CLIP_TOKENS:
        return ClipTokens(encoder)
    if not timm.is_model(model):
        known = ["none", "auto", CLIP_TOKENS, *timm.list_models("vit*", pretrained=True)]
        close = difflib.get_close_matches(model, known, n=3, cutoff=0.5)
        raise EncoderError(
            f"no dense features are called '{model}'; did you mean {' or '.join(close or [CLIP_TOKENS, DINO])}?"
        )
    if pretrained and not Path(pretrained).is_file():
        raise EncoderError(f"there is no weights file {pretrained} for {model}: check the path, or leave it empty")
    device = torch.device(device)
    try:
        network = timm.create_model(
            model,
            pretrained=True,
            pretrained_cfg_overlay={"file": pretrained} if pretrained else None,
            num_classes=0,
            dynamic_img_size=True,
        )
    except Exception as error:  # timm, huggingface_hub, safetensors and torch each raise their own kinds
        raise EncoderError(_advice(model, pretrained, error)) from error
    bf16 = has_bfloat16(device)
    return VitKeys(model, network.to(device), torch.bfloat16 if bf16 else torch.float32)


def _has_tokens(tower: Any) -> TypeGuard[ModifiedResNet]:
    return isinstance(tower, ModifiedResNet) and tower.attnpool is not None


def _advice(model: str, pretrained: str, error: Exception) -> str:
    if pretrained:
        return f"the weights file {pretrained} is damaged or not made for {model}: {error}"
    if isinstance(error, TypeError):  # an architecture without dynamic_img_size
        return f"{model} takes no images of another size than its own: use '{DINO}' ({error})"
    config = timm.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        return f"timm has no weights for {model}: use '{DINO}', or give a weights file as 'dense.pretrained' ({error})"
    where = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{config.hf_hub_filename or 'model.safetensors'}"
    return (
        f"{model} could not be downloaded ({error}). Without a network, fetch {where} on another machine and give that "
        f"file's path as 'dense.pretrained', or use '{CLIP_TOKENS}' or 'none'."
    )
