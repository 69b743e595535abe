"""CUDA backend of `DenseGrid.interpolate`: one launch, one program per ray."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _place(pixel, per_pixel, last):
    """Along one axis: the cells before and after the pixel, clamped to the outermost, and the fraction of the way."""
    place = tl.minimum(tl.maximum((pixel + 0.5) * per_pixel - 0.5, 0.0), last)
    low = tl.floor(place)
    return low, tl.minimum(low + 1.0, last), place - low


@triton.jit
def _interpolate(
    buffer,
    slots,
    uv,
    out,
    columns_per_px,
    rows_per_px,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """buffer (K, ROWS, COLUMNS, D), slots (R,), uv (R, 2) -> out (R, D), for a ray."""
    ray = tl.program_id(0).to(tl.int64)
    left, right, u = _place(tl.load(uv + 2 * ray), columns_per_px, COLUMNS - 1.0)
    top, bottom, v = _place(tl.load(uv + 2 * ray + 1), rows_per_px, ROWS - 1.0)
    first_row = tl.load(slots + ray).to(tl.int64) * ROWS
    channel = tl.arange(0, CHANNELS)
    value = tl.zeros([CHANNELS], tl.float32)
    for corner in tl.static_range(4):
        column, weight_u = (left, 1.0 - u) if corner % 2 == 0 else (right, u)
        row, weight_v = (top, 1.0 - v) if corner // 2 == 0 else (bottom, v)
        cell = (first_row + row.to(tl.int64)) * COLUMNS + column.to(tl.int64)
        read = tl.load(buffer + cell * D + channel, mask=channel < D, other=0.0)
        value += weight_u * weight_v * read.to(tl.float32)
    tl.store(out + ray * D + channel, value, mask=channel < D)


def interpolate_triton(buffer: Tensor, slots: Tensor, uv: Tensor, height: int, width: int) -> Tensor:
    """As `DenseGrid.interpolate` of images of that size, on a CUDA GPU."""
    (_, rows, columns, dim), rays = buffer.shape, len(slots)
    out = torch.empty(rays, dim, device=buffer.device)
    padded = triton.next_power_of_2(dim)
    sizes = {"ROWS": rows, "COLUMNS": columns, "D": dim, "CHANNELS": padded}
    warps = min(max(padded // (32 * 8), 1), 8)  # eight channels a thread: 16 bytes of halves
    tensors = (x.contiguous() for x in (buffer, slots, uv.float()))
    with torch.cuda.device_of(buffer):
        if rays:
            _interpolate[(rays,)](*tensors, out, columns / width, rows / height, **sizes, num_warps=warps)
    return out
