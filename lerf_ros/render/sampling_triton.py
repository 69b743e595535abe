"""CUDA backend of sampling around measured depth, one launch. It depends on shapes only and never synchronises."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_EDGES = 256  # per program


@triton.jit
def common_edge(t_edges, edge, last, noise, mask, JITTER: tl.constexpr):
    """Edge `edge` of common edges 0 .. last; with JITTER, moved by noise: an array of the edge's shape."""
    own = tl.load(t_edges + edge, mask=mask, other=0.0)
    if JITTER:
        inner = mask & (edge > 0) & (edge < last)
        lower = 0.5 * (own + tl.load(t_edges + edge - 1, mask=inner, other=0.0))
        upper = 0.5 * (own + tl.load(t_edges + edge + 1, mask=inner, other=0.0))
        own = tl.where(inner, lower + (upper - lower) * noise, own)
    return own


@triton.jit
def unit_edge(edge, last, noise):
    """Edge 0 .. last of an even spacing of 0 to 1, moved by noise within half an interval; 0.5 leaves it in place."""
    inner = (edge > 0) & (edge < last)
    return tl.where(inner, edge + (noise - 0.5), edge.to(tl.float32)) / last


@triton.jit(do_not_specialize=["count"])
def _guided_edges(
    t_edges,
    t_surface,
    half_width,
    noise,
    out,
    count,
    near,
    row_stride,
    width_stride,
    SAMPLES: tl.constexpr,
    SURFACE: tl.constexpr,
    JITTER: tl.constexpr,
    COMMON: tl.constexpr,
    EDGES: tl.constexpr,
):
    """t_edges (S + 1,) or rows of them, t_surface (R,), noise (R, S + 1) -> out (R, S + 1), for a block of its
    elements; SURFACE of the SAMPLES intervals tile the band."""
    element = tl.program_id(0).to(tl.int64) * EDGES + tl.arange(0, EDGES)
    inside = element < count
    ray, edge = element // (SAMPLES + 1), (element % (SAMPLES + 1)).to(tl.int32)
    moved = tl.full([EDGES], 0.5, tl.float32)
    if JITTER:
        moved = tl.load(noise + element, mask=inside, other=0.5)
    fallback = common_edge(t_edges + ray * row_stride, edge, SAMPLES, moved, inside, JITTER and COMMON)

    surface = tl.load(t_surface + ray, mask=inside, other=0.0)
    width = tl.load(half_width + ray * width_stride, mask=inside, other=0.0)
    band_start, band_end = tl.maximum(surface - width, near), tl.maximum(surface + width, near)
    free = edge < SAMPLES - SURFACE
    start, end = tl.where(free, near, band_start), tl.where(free, band_start, band_end)
    place = tl.where(free, edge, edge - (SAMPLES - SURFACE))
    guided = start + (end - start) * unit_edge(place, tl.where(free, SAMPLES - SURFACE, SURFACE), moved)
    tl.store(out + element, tl.where(surface == surface, guided, fallback), mask=inside)  # NaN: no depth


def guided_edges_triton(
    t_edges: Tensor, t_surface: Tensor, half_width: Tensor, near: float, surface_samples: int, noise: Tensor | None
) -> Tensor:
    """As `guided_edges_torch`, on a CUDA GPU."""
    rays, samples, common = len(t_surface), t_edges.shape[-1] - 1, t_edges.dim() == 1
    out = torch.empty(rays, samples + 1, device=t_edges.device)
    if rays:
        noise_or_nothing = out if noise is None else noise.contiguous()
        widths = half_width.expand(rays)
        tensors = t_edges.contiguous(), t_surface.contiguous(), widths, noise_or_nothing, out
        strides = 0 if common else samples + 1, widths.stride(0)
        sizes = {"SAMPLES": samples, "SURFACE": surface_samples, "EDGES": _EDGES}
        flags = {"JITTER": noise is not None, "COMMON": common}
        with torch.cuda.device_of(t_edges):
            programs = (triton.cdiv(out.numel(), _EDGES),)
            _guided_edges[programs](*tensors, out.numel(), near, *strides, **sizes, **flags)
    return out
