"""CUDA backend of `decoding`'s blend: which samples of a ray weigh most, and their features blended by weight.

One launch picks the samples, one blends, one hands the gradient of a blend to its samples, laid out as the hash grids
take it: a row holds both grids' features. Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from lerf_ros.render.ends_triton import median

_WARP = 32
_RAYS = 8  # of a program that blends


@triton.jit
def _pick(
    weights,
    x_unit,
    t_edges,
    heaviest,
    x_heaviest,
    t_median,
    SAMPLES: tl.constexpr,
    COLUMNS: tl.constexpr,
    KEPT: tl.constexpr,
    SLOTS: tl.constexpr,
):
    """weights (R, S), x_unit (R, S, 3), t_edges (R, S + 1) -> of a ray's KEPT heaviest samples the weights (R, KEPT),
    which sum to one, and places (R, KEPT, 3); the median depth (R,)."""
    ray, sample = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    inside = sample < SAMPLES
    weight = tl.load(weights + ray * SAMPLES + sample, mask=inside, other=0.0)

    left = tl.where(inside, weight, float("-inf"))
    slot = tl.arange(0, SLOTS)
    kept, index = tl.zeros([SLOTS], tl.float32), tl.zeros([SLOTS], tl.int32)
    for n in tl.static_range(KEPT):
        largest, at = tl.max(left, axis=0, return_indices=True)
        at = tl.minimum(at, SAMPLES - 1)  # a good address whatever the weights are
        kept, index = tl.where(slot == n, largest, kept), tl.where(slot == n, at, index)
        left = tl.where(sample == at, float("-inf"), left)
    kept /= tl.maximum(tl.sum(kept, axis=0), 1e-8)
    filled, out = slot < KEPT, ray * KEPT + slot
    tl.store(heaviest + out, kept, mask=filled)
    for axis in tl.static_range(3):
        x = tl.load(x_unit + 3 * (ray * SAMPLES + index) + axis, mask=filled, other=0.0)
        tl.store(x_heaviest + 3 * out + axis, x, mask=filled)

    tl.store(t_median + ray, median(weight, sample, t_edges, ray, SAMPLES))


@triton.jit
def _blend_one(
    weights,
    encoded,
    blend,
    ray,
    inside,
    first,
    KEPT: tl.constexpr,
    WIDTH: tl.constexpr,
    F: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Features of one grid, encoded (R KEPT, WIDTH) -> columns of blend (R, F), from the first one on."""
    feature = tl.arange(0, PADDED)[None, :]
    used = inside[:, None] & (feature < WIDTH)
    value = tl.zeros(used.shape, tl.float32)
    for n in tl.static_range(KEPT):
        row = ray * KEPT + n
        weight = tl.load(weights + row, mask=inside, other=0.0)
        read = tl.load(encoded + row[:, None] * WIDTH + feature, mask=used, other=0.0)
        value += weight[:, None] * read.to(tl.float32)
    tl.store(blend + ray[:, None] * F + first + feature, value.to(blend.dtype.element_ty), mask=used)


@triton.jit(do_not_specialize=["count"])
def _blend(
    weights,
    coarse,
    fine,
    blend,
    count,
    KEPT: tl.constexpr,
    COARSE: tl.constexpr,
    FINE: tl.constexpr,
    PADDED: tl.constexpr,
    RAYS: tl.constexpr,
):
    """weights (R, KEPT), coarse (R KEPT, COARSE), fine (R KEPT, FINE) -> blend (R, COARSE + FINE)."""
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    _blend_one(weights, coarse, blend, ray, inside, 0, KEPT, COARSE, COARSE + FINE, PADDED)
    _blend_one(weights, fine, blend, ray, inside, COARSE, KEPT, FINE, COARSE + FINE, PADDED)


@triton.jit(do_not_specialize=["count"])
def _spread(
    weights, grad_blend, grads, count, KEPT: tl.constexpr, F: tl.constexpr, PADDED: tl.constexpr, RAYS: tl.constexpr
):
    """weights (R, KEPT), grad_blend (R, F) -> grads (R KEPT, F)."""
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    feature = tl.arange(0, PADDED)[None, :]
    used = inside[:, None] & (feature < F)
    grad = tl.load(grad_blend + ray[:, None] * F + feature, mask=used, other=0.0).to(tl.float32)
    for n in tl.static_range(KEPT):
        row = ray * KEPT + n
        weight = tl.load(weights + row, mask=inside, other=0.0)
        address = grads + row[:, None] * F + feature
        tl.store(address, (weight[:, None] * grad).to(grads.dtype.element_ty), mask=used)


def heaviest_triton(weights: Tensor, x_unit: Tensor, t_edges: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `kept` heaviest samples of each ray, in any order, on a CUDA GPU.

    Args:
        weights: (R, S), no gradient reaches them.
        x_unit: (R, S, 3).
        t_edges: (R, S + 1) m.
        kept: at most S.

    Returns:
        Their weights (R, kept), which sum to one, and places (R, kept, 3); and `median_depth` of all samples, (R,) m.
    """
    rays, samples = weights.shape
    heaviest, x_heaviest, t = (torch.empty(rays, *shape, device=weights.device) for shape in ((kept,), (kept, 3), ()))
    columns = max(_WARP, triton.next_power_of_2(samples))
    sizes = {"SAMPLES": samples, "COLUMNS": columns, "KEPT": kept, "SLOTS": triton.next_power_of_2(kept)}
    inputs = (x.detach().float().contiguous() for x in (weights, x_unit, t_edges))
    with torch.cuda.device_of(weights):
        if rays:
            _pick[(rays,)](*inputs, heaviest, x_heaviest, t, **sizes, num_warps=1)
    return heaviest, x_heaviest, t


class Blend(torch.autograd.Function):
    """``apply(weights (R, S), coarse (R S, C), fine (R S, C'))`` -> features (R, C + C'): the weighted sums of both
    grids' features, all of one type. Weights get no gradient."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, coarse: Tensor, fine: Tensor) -> Tensor:
        (rays, kept), widths = weights.shape, (coarse.shape[1], fine.shape[1])
        weights, coarse, fine = weights.float().contiguous(), coarse.contiguous(), fine.contiguous()
        blend = coarse.new_empty(rays, sum(widths))
        with torch.cuda.device_of(weights):
            if rays:
                padded = triton.next_power_of_2(max(widths))
                sizes = {"KEPT": kept, "COARSE": widths[0], "FINE": widths[1], "PADDED": padded, "RAYS": _RAYS}
                _blend[(triton.cdiv(rays, _RAYS),)](weights, coarse, fine, blend, rays, **sizes)
        ctx.save_for_backward(weights)
        ctx.widths = widths
        return blend

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_blend: Tensor) -> tuple[Tensor | None, ...]:
        (weights,), (rays, width) = ctx.saved_tensors, grad_blend.shape
        grads = grad_blend.new_empty(weights.numel(), width)
        with torch.cuda.device_of(weights):
            if rays:
                padded = triton.next_power_of_2(width)
                sizes = {"KEPT": weights.shape[1], "F": width, "PADDED": padded, "RAYS": _RAYS}
                _spread[(triton.cdiv(rays, _RAYS),)](weights, grad_blend.contiguous(), grads, rays, **sizes)
        return None, *grads.split(ctx.widths, dim=1)
