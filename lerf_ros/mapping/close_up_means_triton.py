"""CUDA backend of `close_up_means`: one launch that finds the crops around points, and one, a program per point, that
reads them and keeps the means of a point in registers.

Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.features.pyramid_triton import place, read_level
from lerf_ros.mapping.close_up_means import BEHIND, CELL, Means, Pyramids, Sights
from lerf_ros.mapping.crop_means import ScaledEmbeds

_NUMBERS = 256  # sights and sizes of a program that finds crops
_EPS = tl.constexpr(1e-12)  # of torch's normalize


@triton.jit(do_not_specialize=["count", "total"])
def _needed(slots, uv, sees, least_px, table, needed, count, total, LEVELS: tl.constexpr, NUMBERS: tl.constexpr):
    """Marks in needed (K, total) what V N = count / LEVELS sights ask."""
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    exists = number < count
    sight, level = number // LEVELS, number % LEVELS
    is_asked = exists & (tl.load(sees + sight, mask=exists, other=0) != 0)
    least = tl.load(least_px + sight, mask=is_asked, other=0.0)
    is_asked = is_asked & ((least <= tl.load(table + level)) | (level == LEVELS - 1))
    rows, columns = tl.load(table + LEVELS + level), tl.load(table + 2 * LEVELS + level)
    stride, offset = tl.load(table + 3 * LEVELS + level), tl.load(table + 4 * LEVELS + level)
    first_centre = tl.load(table + 5 * LEVELS + level)
    left, right, _ = place(tl.load(uv + 2 * sight, mask=is_asked, other=0.0), first_centre, stride, columns - 1.0)
    top, bottom, _ = place(tl.load(uv + 2 * sight + 1, mask=is_asked, other=0.0), first_centre, stride, rows - 1.0)
    of_slot = needed + tl.load(slots + sight, mask=is_asked, other=0) * total
    yes = tl.full([NUMBERS], 1, tl.uint8)
    tl.store(of_slot + (offset + top * columns + left).to(tl.int64), yes, mask=is_asked)
    tl.store(of_slot + (offset + top * columns + right).to(tl.int64), yes, mask=is_asked)
    tl.store(of_slot + (offset + bottom * columns + left).to(tl.int64), yes, mask=is_asked)
    tl.store(of_slot + (offset + bottom * columns + right).to(tl.int64), yes, mask=is_asked)


@triton.jit
def _crop(
    pyramids,
    front,
    table,
    row,
    level,
    u,
    v,
    depth,
    scale,
    channel,
    total,
    cells_v,
    cells_u,
    cell,
    behind,
    LEVELS: tl.constexpr,
    D: tl.constexpr,
):
    """Whether the crop around a pixel is about a point there, 1.0 or 0.0, and its unit embedding, or zeros."""
    cell_u = tl.minimum(tl.maximum(u / cell, 0.0).to(tl.int32), cells_u - 1)
    cell_v = tl.minimum(tl.maximum(v / cell, 0.0).to(tl.int32), cells_v - 1)
    nearest = tl.load(front + ((row * LEVELS + level) * cells_v + cell_v) * cells_u + cell_u).to(tl.float32)
    value = tl.zeros(channel.shape, tl.float32)
    weight = 0.0
    if depth - nearest <= behind * scale:
        value = read_level(pyramids + row * total * D, table, level, u, v, channel, LEVELS, D)
        value = value / tl.maximum(tl.sqrt_rn(tl.sum(value * value, axis=0)), _EPS)
        weight = 1.0
    return weight, value


@triton.jit(do_not_specialize=["points", "views", "total", "cells_v", "cells_u"])
def _means(
    slots,
    uv,
    depth_z,
    sees,
    least_px,
    of_slot,
    pyramids,
    front,
    focal_px,
    table,
    log_scales,
    scales,
    embeds,
    cosines,
    counts,
    ranges,
    seen,
    points,
    views,
    total,
    cells_v,
    cells_u,
    cell,
    behind,
    focal_stride,
    LEVELS: tl.constexpr,
    D: tl.constexpr,
    CHANNELS: tl.constexpr,
    BINS: tl.constexpr,
    PADDED: tl.constexpr,
):
    """Sights of a point -> its rows of embeds (N, BINS, D), cosines (N, BINS - 1) between neighbouring bins, counts
    (N, BINS), ranges (2, N) and seen (N,)."""
    point = tl.program_id(0).to(tl.int64)
    bins, channel = tl.arange(0, PADDED), tl.arange(0, CHANNELS)
    exists = bins < BINS
    middles = tl.load(log_scales + bins, mask=exists, other=float("inf"))
    sums = tl.zeros([PADDED, CHANNELS], tl.float32)
    count = tl.zeros([PADDED], tl.float32)
    is_seen = 0
    for view in range(0, views):
        sight = view * points + point
        if tl.load(sees + sight) != 0:
            is_seen = 1
            slot, least = tl.load(slots + sight), tl.load(least_px + sight)
            u, v, depth = tl.load(uv + 2 * sight), tl.load(uv + 2 * sight + 1), tl.load(depth_z + sight)
            m_per_px = tl.div_rn(depth, tl.load(focal_px + slot * focal_stride))
            of_keyframe = of_slot + slot * (1 + LEVELS)
            row = tl.load(of_keyframe)
            for level in range(0, LEVELS):
                size = tl.load(table + level)
                is_asked = (least <= size) | (level == LEVELS - 1)
                if is_asked & (tl.load(of_keyframe + 1 + level) != 0):
                    scale = size * m_per_px
                    weight, value = _crop(
                        pyramids,
                        front,
                        table,
                        row,
                        level,
                        u,
                        v,
                        depth,
                        scale,
                        channel,
                        total,
                        cells_v,
                        cells_u,
                        cell,
                        behind,
                        LEVELS,
                        D,
                    )
                    own = tl.where(bins == tl.argmin(tl.abs(tl.log(scale) - middles), axis=0), weight, 0.0)
                    sums += own[:, None] * value[None, :]
                    count += own

    tl.store(seen + point, is_seen)
    tl.store(counts + point * BINS + bins, count, mask=exists)
    known = count > 0.0
    metres = tl.load(scales + bins, mask=exists, other=0.0)
    tl.store(ranges + point, tl.min(tl.where(known, metres, float("inf")), axis=0))
    tl.store(ranges + points + point, tl.max(tl.where(known, metres, 0.0), axis=0))

    lengths = tl.sqrt_rn(tl.sum(sums * sums, axis=1))
    unit = sums / tl.maximum(lengths, _EPS)[:, None]
    distance = tl.abs(bins[:, None] - bins[None, :]) + tl.where(known, 0, PADDED)[None, :]
    nearest = tl.argmin(distance, axis=1)  # an empty bin takes the nearest that is not
    before = tl.zeros([CHANNELS], tl.float32)
    for number in tl.static_range(BINS):
        source = tl.sum(tl.where(bins == number, nearest, 0), axis=0)
        filled = tl.sum(tl.where((bins == source)[:, None], unit, 0.0), axis=0)
        tl.store(embeds + (point * BINS + number) * D + channel, filled, mask=channel < D)
        if number > 0:
            tl.store(cosines + point * (BINS - 1) + number - 1, tl.sum(before * filled, axis=0))
        before = filled


def needed_triton(sights: Sights, layout: PyramidLayout, keyframes: int) -> Tensor:
    """As `close_up_means.needed_crops`, on a CUDA GPU."""
    table = layout.table_on(sights.uv.device)
    needed = torch.zeros(keyframes, layout.total, dtype=torch.bool, device=table.device)
    levels, count = table.shape[1], sights.slots.numel() * table.shape[1]
    tensors = (each.contiguous() for each in (sights.slots, sights.uv, sights.sees, sights.least_px))
    with torch.cuda.device_of(needed):
        if count:
            grid = (triton.cdiv(count, _NUMBERS),)
            constants = {"LEVELS": levels, "NUMBERS": _NUMBERS, "enable_fp_fusion": False}
            _needed[grid](*tensors, table, needed.view(torch.uint8), count, layout.total, **constants)
    return needed


def means_triton(sights: Sights, pyramids: Pyramids, of_slot: Tensor) -> Means:
    """As `close_up_means.means`, on a CUDA GPU."""
    (V, N), (_, total, D), (_, L, h, w) = sights.slots.shape, pyramids.embeds.shape, pyramids.front.shape
    bins, device = len(pyramids.scales), sights.uv.device
    embeds, cosines = torch.empty(N, bins, D, device=device), torch.empty(N, bins - 1, device=device)
    counts, ranges = torch.empty(N, bins, device=device), torch.empty(2, N, device=device)
    seen = torch.empty(N, dtype=torch.bool, device=device)
    channels = triton.next_power_of_2(D)
    sizes = {"LEVELS": L, "D": D, "CHANNELS": channels, "BINS": bins, "PADDED": triton.next_power_of_2(bins)}
    of_sights = (each.contiguous() for each in (sights.slots, sights.uv, sights.depth_z, sights.sees, sights.least_px))
    kept = (pyramids.embeds, pyramids.front, pyramids.focal_px, pyramids.layout.table_on(device))
    results = embeds, cosines, counts, ranges, seen.view(torch.uint8)
    numbers = N, V, total, h, w, float(CELL), BEHIND, pyramids.focal_px.stride(0)
    with torch.cuda.device_of(embeds):
        if N:
            _means[(N,)](
                *of_sights,
                of_slot,
                *kept,
                pyramids.log_scales,
                pyramids.scales,
                *results,
                *numbers,
                **sizes,
                num_warps=8 if channels > 512 else 4,
                enable_fp_fusion=False,
            )
    scale_min, scale_max = ranges.unbind()
    return Means(ScaledEmbeds(pyramids.log_scales, embeds, cosines), counts, scale_min, scale_max, seen)
