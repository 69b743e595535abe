"""CUDA backend of the density grid: a proposal is one launch, an update two.

Launches depend on shapes only and never synchronise. The contraction rounds otherwise than torch's, so that a bin whose
middle lies on the border of two cells may read the other one: such a ray is sampled a little differently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.render.proposal import MAX_OPTICAL_DEPTH
from lerf_ros.render.rays import Rays
from lerf_ros.render.rays_triton import unit_on_ray
from lerf_ros.render.sampling import EMPTY, FLOOR
from lerf_ros.render.sampling_triton import common_edge, unit_edge

if TYPE_CHECKING:
    from lerf_ros.render.proposal import DensityGrid

_MAX_OPTICAL_DEPTH, _FLOOR, _EMPTY = tl.constexpr(MAX_OPTICAL_DEPTH), tl.constexpr(FLOOR), tl.constexpr(EMPTY)
_SIGN, _MAGNITUDE = tl.constexpr(-(2**31)), tl.constexpr(2**31 - 1)  # bits of a float
_POINTS = 256  # of an update, per program
_AT_ONCE = tl.constexpr(16)  # samples of a ray that are compared with all of its bins; more would take registers


@triton.jit
def _cell(x, y, z, resolution):
    """Index of the cell that contains a point of the unit cube, or is nearest to it."""
    cell_x = tl.minimum(tl.maximum((x * resolution).to(tl.int32), 0), resolution - 1)
    cell_y = tl.minimum(tl.maximum((y * resolution).to(tl.int32), 0), resolution - 1)
    cell_z = tl.minimum(tl.maximum((z * resolution).to(tl.int32), 0), resolution - 1)
    return (cell_x.to(tl.int64) * resolution + cell_y) * resolution + cell_z


@triton.jit
def _bin_edge(t_edges, noise, edge, mask, BINS: tl.constexpr, JITTER: tl.constexpr):
    """Edges of a ray's bins, in metres; with JITTER those common to all rays, moved by its noise."""
    moved = 0.5
    if JITTER:
        moved = tl.load(noise + edge, mask=mask, other=0.5)
    return common_edge(t_edges, edge, BINS, moved, mask, JITTER)


@triton.jit
def _optical_depth(sigmas, origins, directions, ray, start, end, radius, resolution, mask):
    """Of bins start .. end, by the density of the cell at their middle; zero where masked."""
    x, y, z = unit_on_ray(origins, directions, ray, (end + start) * 0.5, radius, True)
    sigma = tl.load(sigmas + _cell(x, y, z, resolution), mask=mask, other=0.0)
    return tl.minimum(sigma * (end - start), _MAX_OPTICAL_DEPTH)


@triton.jit
def _absorbed(depth):
    """1 - exp(-depth) for depths of at most 0.5, without cancellation: the exponential series, nested."""
    series = tl.full(depth.shape, 1.0, tl.float32)
    for term in tl.static_range(8):
        series = 1.0 - depth * series / (9 - term)
    return depth * series


@triton.jit
def _inverse_cdf(cdf, bin_index, u, BINS: tl.constexpr):
    """Where ascending shares cdf, of which the last is 1, reach u: the bin (its number) and how far into it."""
    known = (bin_index < BINS - 1)[None, :]
    passed = known & (cdf[None, :] <= u[:, None])
    index = tl.sum(passed.to(tl.int32), axis=1)
    lower = tl.max(tl.where(passed, cdf[None, :], 0.0), axis=1)
    upper = tl.min(tl.where(known & (cdf[None, :] > u[:, None]), cdf[None, :], 1.0), axis=1)
    return index, tl.minimum((u - lower) / (upper - lower), 1.0)


@triton.jit
def _propose(
    sigmas,
    origins,
    directions,
    t_edges,
    noise,
    out,
    radius,
    resolution,
    explore,
    row_stride,
    noise_stride,
    BINS: tl.constexpr,
    SAMPLES: tl.constexpr,
    JITTER: tl.constexpr,
    COMMON: tl.constexpr,
    EXPLORE: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One ray: bins t_edges (B + 1,) -> out (S + 1,). With COMMON bins, noise has B + 1 columns of theirs first."""
    ray = tl.program_id(0).to(tl.int64)
    t_edges += ray * row_stride
    noise += ray * noise_stride
    MOVED: tl.constexpr = JITTER and COMMON

    # The weights of a bin's neighbours, by which its own is widened, are computed anew: no exchange between threads.
    bin_index = tl.arange(0, COLUMNS)
    inside = bin_index < BINS
    has_previous, has_next = inside & (bin_index > 0), bin_index < BINS - 1
    edge_0 = _bin_edge(t_edges, noise, bin_index - 1, has_previous, BINS, MOVED)
    edge_1 = _bin_edge(t_edges, noise, bin_index, inside, BINS, MOVED)
    edge_2 = _bin_edge(t_edges, noise, bin_index + 1, inside, BINS, MOVED)
    edge_3 = _bin_edge(t_edges, noise, bin_index + 2, has_next, BINS, MOVED)
    previous = _optical_depth(sigmas, origins, directions, ray, edge_0, edge_1, radius, resolution, has_previous)
    own = _optical_depth(sigmas, origins, directions, ray, edge_1, edge_2, radius, resolution, inside)
    following = _optical_depth(sigmas, origins, directions, ray, edge_2, edge_3, radius, resolution, has_next)

    behind = tl.cumsum(own, axis=0)
    before = behind - own  # of a few dozen at most, as a bin's is bounded: little is lost
    own_weight = tl.exp(-before) * _absorbed(own)
    previous_weight = tl.exp(-(before - previous)) * _absorbed(previous)
    next_weight = tl.exp(-behind) * _absorbed(following)
    weight = (tl.maximum(previous_weight, own_weight) + tl.maximum(own_weight, next_weight)) * 0.5
    weight = tl.where(inside, weight, 0.0)
    if EXPLORE:
        weight = (1.0 - explore) * weight / tl.maximum(tl.sum(weight, axis=0), 1e-6) + explore / BINS
        weight = tl.where(inside, weight, 0.0)
    weight = tl.where(inside, weight + (_FLOOR * tl.sum(weight, axis=0) + _EMPTY) / BINS, 0.0)
    cdf = tl.cumsum(weight, axis=0)
    cdf = cdf / tl.max(cdf, axis=0)

    out += ray * (SAMPLES + 1)
    for first in range(0, SAMPLES, _AT_ONCE):
        sample = first + tl.arange(0, _AT_ONCE)
        wanted = sample < SAMPLES
        moved = tl.full([_AT_ONCE], 0.5, tl.float32)
        if JITTER:
            moved = tl.load(noise + (BINS + 1 if COMMON else 0) + sample, mask=wanted, other=0.5)
        index, fraction = _inverse_cdf(cdf, bin_index, unit_edge(sample, SAMPLES, moved), BINS)
        start = _bin_edge(t_edges, noise, index, wanted, BINS, MOVED)
        end = _bin_edge(t_edges, noise, index + 1, wanted, BINS, MOVED)
        tl.store(out + sample, (1.0 - fraction) * start + fraction * end, mask=wanted)
    tl.store(out + SAMPLES, tl.load(t_edges + BINS))


def propose_triton(
    grid: DensityGrid, rays: Rays, t_edges: Tensor, samples: int, noise: Tensor | None, explore: float
) -> Tensor:
    """As `propose_torch`, on a CUDA GPU."""
    count, bins, common = len(rays.directions), t_edges.shape[-1] - 1, t_edges.dim() == 1
    out = torch.empty(count, samples + 1, device=grid.sigmas.device)
    if not count:
        return out
    if t_edges.stride(-1) != 1:  # bins that are the same on all rays may lie there once
        t_edges = t_edges.contiguous()
    noise_or_nothing = out if noise is None else noise.contiguous()
    tensors = grid.sigmas, rays.origins.contiguous(), rays.directions.contiguous(), t_edges, noise_or_nothing, out
    strides = 0 if common else t_edges.stride(0), noise_or_nothing.stride(0)
    flags = {"JITTER": noise is not None, "COMMON": common, "EXPLORE": explore != 0}
    columns = triton.next_power_of_2(bins)
    sizes = {"BINS": bins, "SAMPLES": samples, "COLUMNS": columns}
    warps = min(max(columns // 32, 1), 8)  # a bin per thread
    with torch.cuda.device_of(grid.sigmas):
        _propose[(count,)](*tensors, rays.radius, grid.resolution, explore, *strides, **sizes, **flags, num_warps=warps)
    return out


@triton.jit
def _cell_of_point(x_unit, point, inside, resolution):
    """Of points of x_unit (N, 3)."""
    x = tl.load(x_unit + 3 * point, mask=inside, other=0.0)
    y = tl.load(x_unit + 3 * point + 1, mask=inside, other=0.0)
    z = tl.load(x_unit + 3 * point + 2, mask=inside, other=0.0)
    return _cell(x, y, z, resolution)


@triton.jit(do_not_specialize=["count"])
def _fade(sigma_bits, x_unit, count, resolution, decay, POINTS: tl.constexpr):
    """Cells that contain a point become decay times what they were, once, and are marked by the sign.

    Of several points in a cell some may find it marked already, and leave it; the others all write the same.
    """
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    cell = _cell_of_point(x_unit, point, inside, resolution)
    bits = tl.load(sigma_bits + cell, mask=inside, other=0)
    faded = (decay * bits.to(tl.float32, bitcast=True)).to(tl.int32, bitcast=True)
    tl.store(sigma_bits + cell, faded | _SIGN, mask=inside & (bits >= 0))


@triton.jit(do_not_specialize=["count"])
def _raise(sigma_bits, x_unit, sigmas, count, resolution, POINTS: tl.constexpr):
    """Marked cells become the larger of what they are without the mark and the densities sigmas (N,) of their points.

    The bits of floats that are not negative are ordered as these are, and a mark makes them less than all of them.
    What a point reads without a mark, another one has written, and that was large enough.
    """
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    cell = _cell_of_point(x_unit, point, inside, resolution)
    kept = tl.load(sigma_bits + cell, mask=inside, other=0) & _MAGNITUDE
    seen = tl.load(sigmas + point, mask=inside, other=0.0).to(tl.float32).to(tl.int32, bitcast=True)
    tl.atomic_max(sigma_bits + cell, tl.maximum(kept, seen), mask=inside, sem="relaxed")


def update_triton(grid: DensityGrid, x_unit: Tensor, sigmas: Tensor) -> None:
    """As `update_torch`, on a CUDA GPU."""
    count = len(sigmas)
    if not count:
        return
    x_unit, bits, programs = x_unit.contiguous(), grid.sigmas.view(torch.int32), (triton.cdiv(count, _POINTS),)
    with torch.cuda.device_of(bits):
        _fade[programs](bits, x_unit, count, grid.resolution, grid.decay, POINTS=_POINTS)
        _raise[programs](bits, x_unit, sigmas.contiguous(), count, grid.resolution, POINTS=_POINTS)
