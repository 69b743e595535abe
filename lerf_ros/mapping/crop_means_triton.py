"""CUDA backend of `ScaledEmbeds.similarity`: one launch, a program per point, that reads its embeddings once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _share(position, number, BINS: tl.constexpr):
    """Of bins in the blend at positions (S,) between them: (S, number), 0 of bins that there are not."""
    away = tl.abs(position[:, None] - number[None, :].to(tl.float32))
    return tl.where((number < BINS)[None, :], tl.maximum(1.0 - away, 0.0), 0.0)


@triton.jit(do_not_specialize=["points", "texts", "next_scale", "next_point", "scales_count"])
def _similarity(
    log_scales,
    embeds,
    cosines,
    scales,
    text_embeds,
    out,
    points,
    texts,
    scales_count,
    next_scale,
    next_point,
    D: tl.constexpr,
    CHANNELS: tl.constexpr,
    BINS: tl.constexpr,
    PADDED: tl.constexpr,
    SCALES: tl.constexpr,
):
    """embeds (N, BINS, D), cosines (N, BINS - 1), scales (S, N) with strides, text_embeds (T, D) -> out (S, N, T)."""
    point = tl.program_id(0).to(tl.int64)
    bins, channel, number = tl.arange(0, PADDED), tl.arange(0, CHANNELS), tl.arange(0, SCALES)
    rows = embeds + (point * BINS + bins)[:, None] * D + channel
    own = tl.load(rows, mask=(bins < BINS)[:, None] & (channel < D), other=0.0)
    first = tl.load(log_scales)
    step = tl.load(log_scales + 1) - first
    asked = number < scales_count
    scale = tl.load(scales + number * next_scale + point * next_point, mask=asked, other=1.0)
    position = tl.minimum(tl.maximum(tl.div_rn(tl.log(scale) - first, step), 0.0), BINS - 1.0)
    share = _share(position, bins, BINS)
    beside = tl.load(cosines + point * (BINS - 1) + bins, mask=bins < BINS - 1, other=1.0)
    shorter = tl.sum(share * _share(position, bins + 1, BINS) * (1.0 - beside)[None, :], axis=1)
    length = tl.sqrt(tl.maximum(1.0 - 2.0 * shorter, 1e-24))
    for text in range(0, texts):
        embed = tl.load(text_embeds + text * D + channel, mask=channel < D, other=0.0)
        cosine = tl.sum(own * embed[None, :], axis=1)
        blend = tl.sum(share * cosine[None, :], axis=1)
        tl.store(out + (number.to(tl.int64) * points + point) * texts + text, blend / length, mask=asked)


def similarity_triton(
    log_scales: Tensor, embeds: Tensor, cosines: Tensor, scales: Tensor, text_embeds: Tensor
) -> Tensor:
    """As `ScaledEmbeds.similarity` on a CUDA GPU, with scales (S, N) of any strides: (S, N, T) float32."""
    (N, bins, D), (T, _), S = embeds.shape, text_embeds.shape, len(scales)
    out = torch.empty(S, N, T, device=embeds.device)
    channels, padded = triton.next_power_of_2(D), triton.next_power_of_2(bins)
    sizes = {"D": D, "CHANNELS": channels, "BINS": bins, "PADDED": padded, "SCALES": triton.next_power_of_2(S)}
    tensors = log_scales, embeds.contiguous(), cosines.contiguous(), scales, text_embeds.contiguous(), out
    numbers = N, T, S, *scales.stride()
    with torch.cuda.device_of(out):
        if out.numel():
            _similarity[(N,)](*tensors, *numbers, **sizes, num_warps=8 if channels > 512 else 4)
    return out
