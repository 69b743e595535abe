"""Inference of open_clip's VisionTransformer with its own weights, in half the launches and fewer memory passes.

The same equations as `VisionTransformer.forward`, laid out for a GPU that spends its time on matrix products:

- Tokens stay one matrix (N L, D), image by image; queries, keys and values are views of one product.
- Every addition to the residual stream is left to the LayerNorm that reads the stream next (`Passes.add_norm`).
- Where the class token alone is pooled, the last block asks, projects and transforms for that token alone.
- GELU is part of the product before it where torch offers that, on GPUs (`_activated`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import (
    LayerNorm,
    LayerNormFp32,
    QuickGELU,
    ResidualAttentionBlock,
    Transformer,
    VisionTransformer,
)
from torch import Tensor, nn

from lerf_ros.kernels import runs_kernels


@dataclass(frozen=True)
class Tiling:
    """How images become patches.

    Attributes:
        rows, columns: of patches.
        height, width: of a patch, px.
        mean, std: (3,) per colour, of what the network expects as 0 and 1.
    """

    rows: int
    columns: int
    height: int
    width: int
    mean: Tensor
    std: Tensor

    def shape(self, count: int) -> tuple[int, int, int]:
        """(N, L, 3 p p): of the patches of N images, that of the class token included."""
        return count, self.rows * self.columns + 1, 3 * self.height * self.width


@dataclass(frozen=True)
class Passes:
    """What reads and writes whole activations beside the matrix products.

    Attributes:
        patches: (images (N, 3, H, W) RGB in [0, 1], tiling, dtype) -> (N, L, 3 p p), normalised: what the convolution
            sees at each token, zeros at the class token, which is the first.
        add_norm: (x (M, D), addend (R, D) or None, norm) -> norm(x + addend) (M, D). Leaves the sum in x; row m takes
            row m modulo R of the addend, and R divides M.
        quick_gelu: x -> x sigmoid(1.702 x), which may be left in x.
    """

    patches: Callable[[Tensor, Tiling, torch.dtype], Tensor]
    add_norm: Callable[[Tensor, Tensor | None, nn.LayerNorm], Tensor]
    quick_gelu: Callable[[Tensor], Tensor]


def patches_torch(images: Tensor, tiling: Tiling, dtype: torch.dtype) -> Tensor:
    images = images[..., : tiling.rows * tiling.height, : tiling.columns * tiling.width]
    images = (images - tiling.mean.view(3, 1, 1)) / tiling.std.view(3, 1, 1)
    tiles = images.unflatten(3, (tiling.columns, tiling.width)).unflatten(2, (tiling.rows, tiling.height))
    tiles = tiles.permute(0, 2, 4, 1, 3, 5)  # (N, rows, columns, 3, p, p)
    patches = torch.empty(tiling.shape(len(images)), dtype=dtype, device=images.device)
    patches[:, 0] = 0
    patches[:, 1:].view(tiles.shape).copy_(tiles)
    return patches


def add_norm_torch(x: Tensor, addend: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    if addend is not None:
        x.view(-1, *addend.shape).add_(addend)
    return F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps).to(x.dtype)


def quick_gelu_torch(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


TORCH = Passes(patches_torch, add_norm_torch, quick_gelu_torch)


def passes_on(device: torch.device) -> Passes:
    if not runs_kernels(device):
        return TORCH
    from lerf_ros.features import vision_transformer_triton as kernels  # not everywhere installed

    return Passes(kernels.patches_triton, kernels.add_norm_triton, kernels.quick_gelu_triton)


def is_supported(model: Any) -> bool:
    """Whether ``model.encode_image`` is nothing but a vision transformer that `FusedVisionTransformer` reproduces.

    Not so: attentional pooling, pooling that returns all tokens, LayerScale, the variants of open_clip's custom blocks.
    """
    visual: Any = getattr(model, "visual", None)
    return (
        type(model) in (CLIP, CustomTextCLIP)
        and type(visual) is VisionTransformer
        and type(visual.transformer) is Transformer
        and visual.transformer.batch_first
        and visual.attn_pool is None
        and visual.pool_type in ("tok", "avg")
        and not visual.output_tokens
        and (type(visual.ln_pre) is nn.Identity or _is_plain_norm(visual.ln_pre))
        and _is_plain_norm(visual.ln_post)
        and all(_is_plain_block(block) for block in visual.transformer.resblocks)
    )


def _is_plain_norm(norm: Any) -> bool:
    return type(norm) in (LayerNorm, LayerNormFp32) and norm.weight is not None and norm.bias is not None


def _is_plain_block(block: Any) -> bool:
    return (
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and _is_plain_norm(block.ln_1)
        and _is_plain_norm(block.ln_2)
        and type(block.ls_1) is type(block.ls_2) is nn.Identity
        and type(block.mlp.gelu) in (nn.GELU, QuickGELU)
        and type(block.mlp.c_fc) is type(block.mlp.c_proj) is nn.Linear
        and _is_plain_attention(block.attn)
    )


def _is_plain_attention(attention: Any) -> bool:
    return (
        type(attention) is nn.MultiheadAttention
        and attention.in_proj_weight is not None
        and attention.in_proj_bias is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


class FusedVisionTransformer:
    """A vision transformer's forward pass in evaluation, of N images with L tokens of width D each."""

    def __init__(self, visual: VisionTransformer, mean: Tensor, std: Tensor, passes: Passes | None = None) -> None:
        """``visual``: of a model that `is_supported`; its weights are read where they are, but for those of the patch
        embedding. ``mean``, ``std``: three numbers each, on its device."""
        weight = visual.conv1.weight
        self._visual = visual
        self._passes = passes or passes_on(weight.device)
        (rows, columns), (height, width) = visual.grid_size, visual.patch_size
        self._tiling = Tiling(rows, columns, height, width, mean.flatten(), std.flatten())
        self._patch_weight = weight.flatten(1).contiguous()  # (D, 3 p p)
        self._offset = visual.positional_embedding.detach().to(weight.dtype, copy=True)  # (L, D)
        self._offset[0] += visual.class_embedding.to(weight.dtype)
        # There, torch has GELU's tanh form alone, within 5e-4 of the exact one. In bfloat16, whose values near 1 are
        # 8e-3 apart, that changes embeddings a thousandth as much (in 1 - cosine) as rounding the weights did.
        self._gelu_in_product = weight.is_cuda and weight.dtype != torch.float32

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), RGB in [0, 1], of the model's own size, N > 0 -> embeddings (N, E)."""
        visual, count = self._visual, len(images)
        patches = self._passes.patches(images, self._tiling, self._patch_weight.dtype)
        x, addend = F.linear(patches.flatten(0, 1), self._patch_weight), self._offset
        if isinstance(visual.ln_pre, nn.LayerNorm):
            x, addend = self._passes.add_norm(x, addend, visual.ln_pre), None
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            addend = self._block(x, addend, block, count)
        pooled = self._pooled_token if visual.pool_type == "tok" else self._pooled_mean
        embeds = pooled(x, addend, last, count)
        return embeds if visual.proj is None else embeds @ visual.proj

    def _block(self, x: Tensor, addend: Tensor | None, block: Any, count: int) -> Tensor:
        """Adds to the residual stream x (N L, D) what is still missing in it; returns the next to be added."""
        y = self._passes.add_norm(x, addend, block.ln_1)
        y = self._passes.add_norm(x, _attention(y, block.attn, count), block.ln_2)
        return self._mlp(y, block.mlp)

    def _pooled_token(self, x: Tensor, addend: Tensor | None, block: Any, count: int) -> Tensor:
        """The last block, for the class token alone: x (N L, D) -> (N, D)."""
        y = self._passes.add_norm(x, addend, block.ln_1)
        x = _class_tokens(x, count).contiguous()
        y = self._passes.add_norm(x, _class_attention(y, block.attn, count), block.ln_2)
        return self._passes.add_norm(x, self._mlp(y, block.mlp), self._visual.ln_post)

    def _pooled_mean(self, x: Tensor, addend: Tensor | None, block: Any, count: int) -> Tensor:
        """The last block, and the mean over all tokens but the class token: x (N L, D) -> (N, D)."""
        addend, norm = self._block(x, addend, block, count), self._visual.ln_post
        if self._visual.final_ln_after_pool:
            return self._passes.add_norm(_mean_of_patches(x.add_(addend), count), None, norm)
        return _mean_of_patches(self._passes.add_norm(x, addend, norm), count)

    def _mlp(self, y: Tensor, mlp: Any) -> Tensor:
        return F.linear(self._activated(y, mlp), mlp.c_proj.weight, mlp.c_proj.bias)

    def _activated(self, y: Tensor, mlp: Any) -> Tensor:
        """(M, D) -> (M, hidden), behind the activation."""
        if self._gelu_in_product and isinstance(mlp.gelu, nn.GELU):
            return torch._addmm_activation(mlp.c_fc.bias, y, mlp.c_fc.weight.t(), use_gelu=True)
        hidden = F.linear(y, mlp.c_fc.weight, mlp.c_fc.bias)
        return self._passes.quick_gelu(hidden) if isinstance(mlp.gelu, QuickGELU) else mlp.gelu(hidden)


def _attention(y: Tensor, attention: nn.MultiheadAttention, count: int) -> Tensor:
    """Every token asks all of its image: y (N L, D) -> (N L, D)."""
    qkv = F.linear(y, attention.in_proj_weight, attention.in_proj_bias)
    return _projected(attention, *_heads(qkv, attention, count, 3))


def _class_attention(y: Tensor, attention: nn.MultiheadAttention, count: int) -> Tensor:
    """The class token alone asks all of its image: y (N L, D) -> (N, D)."""
    width = attention.embed_dim
    q_weight, kv_weight = attention.in_proj_weight.split([width, 2 * width])
    q_bias, kv_bias = attention.in_proj_bias.split([width, 2 * width])
    q = F.linear(_class_tokens(y, count), q_weight, q_bias)
    kv = F.linear(y, kv_weight, kv_bias)
    return _projected(attention, *_heads(q, attention, count, 1), *_heads(kv, attention, count, 2))


def _heads(packed: Tensor, attention: nn.MultiheadAttention, count: int, parts: int) -> Tensor:
    """(N L, parts D) -> (parts, N, heads, L, D / heads): a view whose last stride is 1, as flash attention takes it."""
    return packed.view(count, -1, parts, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)


def _projected(attention: nn.MultiheadAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (N, heads, Q, D / heads), k and v (N, heads, L, D / heads) -> (N Q, D)."""
    # On GPUs the result lies in memory as q does, token by token, so this reshape is a view.
    asked = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, attention.embed_dim)
    return F.linear(asked, attention.out_proj.weight, attention.out_proj.bias)


def _class_tokens(x: Tensor, count: int) -> Tensor:
    """(N L, D) -> (N, D), a view."""
    return x.view(count, -1, x.shape[-1])[:, 0]


def _mean_of_patches(x: Tensor, count: int) -> Tensor:
    """(N L, D) -> (N, D), without the class token."""
    return x.view(count, -1, x.shape[-1])[:, 1:].mean(dim=1)
