"""CUDA backend of `ends.ray_ends`: one program per ray, whose samples stay in the registers of one warp.

The launch depends on shapes only and never synchronises.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.render.composite_triton import absorbed, expected_depth, intervals, sum_before

_WARP = 32


@triton.jit
def median(weight, sample, t_edges, ray, SAMPLES: tl.constexpr):
    """`volume.median_depth` of a ray, whose weights beyond the last sample are zero."""
    inside = sample < SAMPLES
    accumulated = tl.cumsum(weight, axis=0)
    half = 0.5 * tl.max(accumulated, axis=0)
    at = tl.minimum(tl.sum((inside & (accumulated < half)).to(tl.int32), axis=0), SAMPLES - 1)
    there = tl.sum(tl.where(sample == at, weight, 0.0), axis=0)
    before = tl.sum(tl.where(sample == at, accumulated, 0.0), axis=0) - there
    way = tl.minimum(tl.maximum((half - before) / tl.maximum(there, 1.17549435e-38), 0.0), 1.0)
    edge = t_edges + ray * (SAMPLES + 1) + at
    start, end = tl.load(edge), tl.load(edge + 1)
    return start + way * (end - start)


@triton.jit(do_not_specialize=["rays"])
def _ends(sigmas, t_edges, weights, ends, rays, SAMPLES: tl.constexpr, COLUMNS: tl.constexpr):
    """sigmas (R, S), t_edges (R, S + 1) -> weights (R, S), ends (3, R): median, opacity and spread."""
    ray, sample = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    sigma, start, end = intervals(sigmas, t_edges, ray, sample, SAMPLES)
    optical_depth = sigma * (end - start)
    weight = tl.exp(-sum_before(optical_depth)) * absorbed(optical_depth)
    tl.store(weights + ray * SAMPLES + sample, weight, mask=sample < SAMPLES)
    middle, length = 0.5 * (start + end), end - start
    opacity, mean = expected_depth(weight, middle)
    away = middle - mean
    variance = tl.sum(weight * (away * away + length * length / 12.0), axis=0) / opacity
    tl.store(ends + ray, median(weight, sample, t_edges, ray, SAMPLES))
    tl.store(ends + rays + ray, tl.sum(weight, axis=0))
    tl.store(ends + 2 * rays + ray, tl.sqrt(variance))


def ray_ends_triton(sigmas: Tensor, t_edges: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `ends.ray_ends`, on a CUDA GPU: the fields of `Ends`."""
    R, S = sigmas.shape
    weights, ends = torch.empty(R, S, device=sigmas.device), torch.empty(3, R, device=sigmas.device)
    columns = triton.next_power_of_2(S)
    with torch.cuda.device_of(sigmas):
        if R:
            tensors = sigmas.detach().contiguous(), t_edges.detach().contiguous(), weights, ends
            _ends[(R,)](*tensors, R, SAMPLES=S, COLUMNS=columns, num_warps=max(1, columns // 8 // _WARP))
    t_median, opacity, spread = ends.unbind()
    return weights, t_median, opacity, spread
