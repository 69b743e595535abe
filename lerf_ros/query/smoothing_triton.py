"""CUDA backend of smoothing a sweep over the surface: one launch, a program per scale and block of points."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_POINTS = 128  # per program


# Two of the tensors begin anywhere in a larger one: whether at a multiple of 16 bytes is not worth a compilation.
@triton.jit(
    do_not_specialize=["points", "neighbours", "next_scale", "next_point", "next_step"],
    do_not_specialize_on_alignment=["scale_min", "scale_max"],
)
def _smoothed(
    scales,
    half_step,
    scale_min,
    scale_max,
    ranks,
    offset,
    members,
    shares,
    means,
    relevancy,
    points,
    neighbours,
    next_scale,
    next_point,
    next_step,
    POINTS: tl.constexpr,
):
    """scales (S, N) and half_step (N,) with strides, scale_min, scale_max (N,), ranks, offset (S, N), members, shares
    (N, k) -> means, relevancy (S, N)."""
    number = tl.program_id(1).to(tl.int64)
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    exists = point < points
    total = tl.zeros([POINTS], tl.float32)
    rank = tl.zeros([POINTS], tl.float32)
    logit = tl.zeros([POINTS], tl.float32)
    counts_itself = point < 0
    for j in range(-1, neighbours):  # first the point itself, for whether it counts
        share = tl.load(shares + point * neighbours + j, mask=exists & (j >= 0), other=0.0)
        other = tl.load(members + point * neighbours + j, mask=exists & (j >= 0), other=0)
        other = tl.where(j >= 0, other, tl.where(exists, point, 0))
        low, high = tl.load(scale_min + other), tl.load(scale_max + other)
        scale = tl.load(scales + number * next_scale + other * next_point)
        step = tl.load(half_step + other * next_step)
        counts = (low <= high) & (scale * step >= low) & (scale <= high * step)
        counts_itself = counts_itself | (counts & (j < 0))
        share = tl.where(counts, share, 0.0)
        own = tl.load(ranks + number * points + other)
        total += share
        rank += share * own
        logit += share * (own - tl.load(offset + number * points + other))
    total = tl.maximum(total, 1e-6)
    address = number * points + point
    tl.store(means + address, tl.where(counts_itself, rank / total, float("-inf")), mask=exists)
    tl.store(relevancy + address, tl.where(counts_itself, tl.sigmoid(logit / total), 0.0), mask=exists)


def smoothed_triton(
    scales: Tensor,
    half_step: Tensor,
    scale_min: Tensor,
    scale_max: Tensor,
    ranks: Tensor,
    offset: Tensor,
    members: Tensor,
    shares: Tensor,
) -> tuple[Tensor, Tensor]:
    """As `Smoother.means_torch`, on a CUDA GPU: ranks and relevancy (S, N). scales (S,) or (S, N), half_step () or
    (N,), see `relevancy.half_step`; the neighbours' members and shares (N, k)."""
    (S, N), device = ranks.shape, ranks.device
    means, relevancy = torch.empty(S, N, device=device), torch.empty(S, N, device=device)
    of_points = (each.contiguous() for each in (scale_min, scale_max, ranks, offset, members, shares))
    strides = (
        scales.stride(0),
        scales.stride(1) if scales.ndim == 2 else 0,
        half_step.stride(0) if half_step.ndim else 0,
    )
    with torch.cuda.device_of(ranks):
        if N:
            grid = (triton.cdiv(N, _POINTS), S)
            numbers = N, members.shape[1], *strides
            _smoothed[grid](scales, half_step, *of_points, means, relevancy, *numbers, POINTS=_POINTS)
    return means, relevancy
