"""CUDA backend of cutting crops: one launch, whatever keyframes and levels they are of; a program per crop and block
of its resized pixels.

Where along an axis the pixels of a crop count, and for how much, is reckoned in whole numbers: with distances in units
of 1/(2 `SIZE`) of a pixel, torch's antialiased filter has whole weights, and nothing is rounded before the sum. Rows
and columns are filtered together: encoders want 2 to 8 taps an axis, few enough to keep nothing in between.

The launch depends on shapes only and never synchronises. It can be captured in a CUDA graph after one call of the same
kind outside the capture, which compiles the kernel and uploads the layout.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _WARPS = 512, 4  # of a program: four pixels a thread, written as 16 bytes


@triton.jit
def _window(table, crop, LEVELS: tl.constexpr, PADDED: tl.constexpr):
    """Side of a crop and its left and top border, px; the borders may lie outside the image."""
    number = tl.arange(0, PADDED)
    offsets = tl.load(table + 4 * LEVELS + number, mask=number < LEVELS, other=float("inf"))
    level = tl.sum((offsets <= crop.to(tl.float32)).to(tl.int32), axis=0) - 1
    crop_px, columns = tl.load(table + level).to(tl.int32), tl.load(table + 2 * LEVELS + level).to(tl.int32)
    stride, offset = tl.load(table + 3 * LEVELS + level).to(tl.int32), tl.load(table + 4 * LEVELS + level).to(tl.int32)
    place = crop.to(tl.int32) - offset
    return crop_px, place % columns * stride - crop_px // 2, place // columns * stride - crop_px // 2


@triton.jit
def _first_tap(resized, crop_px, reach, SIZE: tl.constexpr):
    """Of the pixels of a crop, the first that counts for a resized pixel."""
    return tl.maximum((2 * resized + 1) * crop_px + SIZE - reach, 0) // (2 * SIZE)


@triton.jit
def _weight(tap, resized, crop_px, reach, SIZE: tl.constexpr):
    """Of a pixel of a crop for a resized pixel: the triangle of torch's filter, 2 `SIZE` times as high and wide."""
    distance = tl.abs((2 * tap + 1) * SIZE - (2 * resized + 1) * crop_px)
    return tl.where(tap < crop_px, tl.maximum(reach - distance, 0), 0)


@triton.jit
def _mirrored(place, count):
    """Places along an axis as pixels of it; beyond its ends, by less than its length, the image goes on mirrored."""
    return count - 1 - tl.abs(count - 1 - tl.abs(place))


@triton.jit(do_not_specialize=["height", "width"])
def _cut(
    images,
    slots,
    crops,
    table,
    out,
    height,
    width,
    SIZE: tl.constexpr,
    LEVELS: tl.constexpr,
    PADDED: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """images (K, height, width, 3) uint8, slots (B,), crops (B,), table (6, LEVELS) -> out (B, 3, SIZE, SIZE)."""
    number = tl.program_id(0).to(tl.int64)
    crop_px, left, top = _window(table, tl.load(crops + number), LEVELS, PADDED)
    image = images + tl.load(slots + number) * height * width * 3  # 64 bits: some thousand images are more than 2^31
    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < SIZE * SIZE
    row, column = pixel // SIZE, pixel % SIZE

    reach = 2 * tl.maximum(crop_px, SIZE)  # a filter never gets narrower than the pixels of the crop
    taps = (reach + SIZE - 1) // SIZE
    first_row = _first_tap(row, crop_px, reach, SIZE)
    first_column = _first_tap(column, crop_px, reach, SIZE)
    red = tl.zeros([PIXELS], tl.float32)
    green = tl.zeros([PIXELS], tl.float32)
    blue = tl.zeros([PIXELS], tl.float32)
    total = tl.zeros([PIXELS], tl.float32)
    for i in range(0, taps):
        v = first_row + i
        row_weight = _weight(v, row, crop_px, reach, SIZE).to(tl.float32)
        line = image + _mirrored(top + v, height) * width * 3
        for j in range(0, taps):
            u = first_column + j
            weight = row_weight * _weight(u, column, crop_px, reach, SIZE).to(tl.float32)
            address = line + _mirrored(left + u, width) * 3
            counts = inside & (weight > 0.0)
            red += weight * tl.load(address, mask=counts, other=0).to(tl.float32)
            green += weight * tl.load(address + 1, mask=counts, other=0).to(tl.float32)
            blue += weight * tl.load(address + 2, mask=counts, other=0).to(tl.float32)
            total += weight

    share = 1.0 / (255.0 * tl.maximum(total, 1.0))  # whole weights: only pixels beyond the last have less
    address = out + number * (3 * SIZE * SIZE) + pixel
    tl.store(address, red * share, mask=inside)
    tl.store(address + SIZE * SIZE, green * share, mask=inside)
    tl.store(address + 2 * SIZE * SIZE, blue * share, mask=inside)


def cut_triton(images: Tensor, slots: Tensor, crops: Tensor, size: int, table: Tensor) -> Tensor:
    """As `PyramidLayout.cut`, on a CUDA GPU: (B, 3, size, size) float32.

    ``table`` (6, levels) float32, the layout's numbers on that GPU: crop_px, rows, columns, stride, offset and
    first_centre.
    """
    (_, height, width, _), levels = images.shape, table.shape[1]
    out = torch.empty(len(crops), 3, size, size, device=images.device)
    constants = {"SIZE": size, "LEVELS": levels, "PADDED": triton.next_power_of_2(levels), "PIXELS": _PIXELS}
    tensors = (x.contiguous() for x in (images, slots, crops, table))
    grid = (len(crops), triton.cdiv(size * size, _PIXELS))
    with torch.cuda.device_of(images):
        if len(crops):
            _cut[grid](*tensors, out, height, width, **constants, num_warps=_WARPS)
    return out
