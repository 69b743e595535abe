"""CUDA backend of what the crop pyramids say to training: one launch, one Triton program per ray; and of the crops
around pixels, in one launch for all sizes.

A program draws the ray's crop size, finds the two levels around it and the four crops of each around the pixel, and
reads those eight rows once. Nothing is rounded otherwise than in torch before the crops are chosen: no fused
multiply-add and no approximate division, so that crop sizes and levels are those of the reference to the last bit.

The launch depends on shapes only and never synchronises. It can be captured in a CUDA graph after one call of the same
kind outside the capture, which compiles the kernel and uploads the layout.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_EPS = tl.constexpr(1e-12)  # of torch's normalize
_NUMBERS = 256  # pixels and levels of a program that finds corners


@triton.jit
def _draw(valid, table, slot, random, LEVELS: tl.constexpr, PADDED: tl.constexpr):
    """A ray's crop size, px; the levels below and above it, the weight of each: all zero where no level is valid."""
    number = tl.arange(0, PADDED)
    exists = number < LEVELS
    sizes = tl.load(table + number, mask=exists, other=0.0)
    usable = tl.load(valid + slot * LEVELS + number, mask=exists, other=0) != 0
    any_usable = tl.max(usable.to(tl.int32), axis=0)

    drawn_from = exists & (usable | (any_usable == 0))
    smallest = tl.min(tl.where(drawn_from, sizes, float("inf")), axis=0)
    largest = tl.max(tl.where(drawn_from, sizes, 0.0), axis=0)
    crop_px = smallest + random * (largest - smallest)

    # There is a level below: no size is drawn that is smaller than the smallest valid level. 0 where nothing is valid.
    below = tl.max(tl.where(usable & (sizes <= crop_px), number, 0), axis=0)
    above = tl.min(tl.where(usable & (sizes > crop_px), number, LEVELS), axis=0)
    above = tl.where(above == LEVELS, below, above)
    size_below, size_above = tl.load(table + below), tl.load(table + above)
    blend = tl.div_rn(crop_px - size_below, tl.maximum(size_above - size_below, 1.0))
    blend = tl.minimum(tl.maximum(blend, 0.0), 1.0)
    return crop_px, below, above, (1.0 - blend) * any_usable, blend * any_usable


@triton.jit
def place(pixel, first_centre, stride, last):
    """Along one axis: the crops before and after the pixel, clamped to the outermost, and the fraction of the way."""
    along = tl.minimum(tl.maximum(tl.div_rn(pixel - first_centre, stride), 0.0), last)
    low = tl.floor(along)
    return low, tl.minimum(low + 1.0, last), along - low


@triton.jit
def read_level(pyramid, table, level, u_px, v_px, channel, LEVELS: tl.constexpr, D: tl.constexpr):
    """Bilinear between the four crops of one level around the pixel: float32, in the shape of `channel`."""
    rows, columns = tl.load(table + LEVELS + level), tl.load(table + 2 * LEVELS + level)
    stride, offset = tl.load(table + 3 * LEVELS + level), tl.load(table + 4 * LEVELS + level)
    first_centre = tl.load(table + 5 * LEVELS + level)
    left, right, u = place(u_px, first_centre, stride, columns - 1.0)
    top, bottom, v = place(v_px, first_centre, stride, rows - 1.0)
    value = tl.zeros(channel.shape, tl.float32)
    for corner in tl.static_range(4):
        grid_u, weight_u = (left, 1.0 - u) if corner % 2 == 0 else (right, u)
        grid_v, weight_v = (top, 1.0 - v) if corner // 2 == 0 else (bottom, v)
        crop = (offset + grid_v * columns + grid_u).to(tl.int64)
        read = tl.load(pyramid + crop * D + channel, mask=channel < D, other=0.0)
        value += weight_u * weight_v * read.to(tl.float32)
    return value


@triton.jit(do_not_specialize=["count"])
def _corners(uv, table, crops, weights, count, LEVELS: tl.constexpr, NUMBERS: tl.constexpr):
    """uv (R, 2), table (6, LEVELS) -> crops (R, LEVELS, 4) int64 and their weights; count is R LEVELS."""
    number = tl.program_id(0).to(tl.int64) * NUMBERS + tl.arange(0, NUMBERS)
    exists = number < count
    pixel, level = number // LEVELS, number % LEVELS
    rows, columns = tl.load(table + LEVELS + level), tl.load(table + 2 * LEVELS + level)
    stride, offset = tl.load(table + 3 * LEVELS + level), tl.load(table + 4 * LEVELS + level)
    first_centre = tl.load(table + 5 * LEVELS + level)
    u_px, v_px = tl.load(uv + 2 * pixel, mask=exists, other=0.0), tl.load(uv + 2 * pixel + 1, mask=exists, other=0.0)
    left, right, u = place(u_px, first_centre, stride, columns - 1.0)
    top, bottom, v = place(v_px, first_centre, stride, rows - 1.0)
    for corner in tl.static_range(4):
        grid_u, weight_u = (left, 1.0 - u) if corner % 2 == 0 else (right, u)
        grid_v, weight_v = (top, 1.0 - v) if corner // 2 == 0 else (bottom, v)
        tl.store(crops + 4 * number + corner, (offset + grid_v * columns + grid_u).to(tl.int64), mask=exists)
        tl.store(weights + 4 * number + corner, weight_u * weight_v, mask=exists)


@triton.jit(do_not_specialize=["total"])
def _supervise(
    buffer,
    valid,
    slots,
    uv,
    random,
    table,
    targets,
    crop_px,
    total,
    LEVELS: tl.constexpr,
    PADDED: tl.constexpr,
    D: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """buffer (K, total, D), valid (K, LEVELS), uv (R, 2), table (6, LEVELS) -> targets (R, D), crop_px (R,)."""
    ray = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + ray).to(tl.int64)
    u_px, v_px = tl.load(uv + 2 * ray), tl.load(uv + 2 * ray + 1)
    size, below, above, weight_below, weight_above = _draw(valid, table, slot, tl.load(random + ray), LEVELS, PADDED)
    tl.store(crop_px + ray, size)

    channel = tl.arange(0, CHANNELS)
    pyramid = buffer + slot * total * D  # 64 bits: some thousand pyramids have more than 2^31 elements
    value = weight_below * read_level(pyramid, table, below, u_px, v_px, channel, LEVELS, D)
    value += weight_above * read_level(pyramid, table, above, u_px, v_px, channel, LEVELS, D)
    length = tl.sqrt_rn(tl.sum(value * value, axis=0))
    tl.store(targets + ray * D + channel, value / tl.maximum(length, _EPS), mask=channel < D)


def supervision_triton(
    buffer: Tensor, valid: Tensor, slots: Tensor, uv: Tensor, random: Tensor, table: Tensor
) -> tuple[Tensor, Tensor]:
    """As `PyramidLayout.supervision`, on a CUDA GPU: targets (R, D) float32 and crop sizes (R,) px.

    ``table`` (6, levels) float32, the layout's numbers on that GPU: crop_px, rows, columns, stride, offset and
    first_centre.
    """
    rays, levels, (_, total, channels) = len(slots), table.shape[1], buffer.shape
    targets = torch.empty(rays, channels, device=buffer.device)
    crop_px = torch.empty(rays, device=buffer.device)
    padded = triton.next_power_of_2(channels)
    sizes = {"LEVELS": levels, "PADDED": triton.next_power_of_2(levels), "D": channels, "CHANNELS": padded}
    warps = min(max(padded // (32 * 8), 1), 8)  # eight channels a thread: 16 bytes of halves
    tensors = (x.contiguous() for x in (buffer, valid, slots, uv.float(), random.float(), table))
    with torch.cuda.device_of(buffer):
        if rays:
            _supervise[(rays,)](*tensors, targets, crop_px, total, **sizes, num_warps=warps, enable_fp_fusion=False)
    return targets, crop_px


def corners_triton(uv: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """As `PyramidLayout.corners` at every level, on a CUDA GPU: crops (R, levels, 4) int64 and their weights."""
    pixels, levels = len(uv), table.shape[1]
    crops = torch.empty(pixels, levels, 4, dtype=torch.int64, device=uv.device)
    weights = torch.empty(pixels, levels, 4, device=uv.device)
    grid = (triton.cdiv(pixels * levels, _NUMBERS),)
    with torch.cuda.device_of(uv):
        if pixels:
            tensors = uv.float().contiguous(), table, crops, weights
            _corners[grid](*tensors, pixels * levels, LEVELS=levels, NUMBERS=_NUMBERS, enable_fp_fusion=False)
    return crops, weights
