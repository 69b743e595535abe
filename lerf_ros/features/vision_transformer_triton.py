"""CUDA backend of the vision transformer's memory passes: each is one launch that reads and writes activations once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from lerf_ros.features.vision_transformer import Tiling

_ELEMENTS = 1024  # per program of the activation


@triton.jit
def _patches(
    images,
    patches,
    mean,
    std,
    stride_n,
    stride_c,
    stride_y,
    stride_x,
    rows,
    columns,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    LINES: tl.constexpr,
    SPAN: tl.constexpr,
):
    """images (N, 3, H, W), of any strides -> patches (N, 1 + rows columns, 3 HEIGHT WIDTH), normalised, but for the
    first of each image. One row of patches and one colour per program."""
    n, row = (tl.program_id(0) // rows).to(tl.int64), tl.program_id(0) % rows
    colour = tl.program_id(1)
    y, x = tl.arange(0, LINES)[:, None], tl.arange(0, SPAN)[None, :]
    inside = (y < HEIGHT) & (x < columns * WIDTH)
    source = images + n * stride_n + colour * stride_c + (row * HEIGHT + y) * stride_y + x * stride_x
    value = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    value = (value - tl.load(mean + colour)) / tl.load(std + colour)
    token = n * (rows * columns + 1) + 1 + row * columns + x // WIDTH
    target = patches + token * (3 * HEIGHT * WIDTH) + (colour * HEIGHT + y) * WIDTH + x % WIDTH
    tl.store(target, value.to(patches.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["period"])
def _add_norm(x, addend, y, weight, bias, eps, period, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, ADDS: tl.constexpr):
    """x (M, WIDTH) += addend (period, WIDTH), repeated; y = its LayerNorm. One row per program."""
    row = tl.program_id(0)
    column = tl.arange(0, COLUMNS)
    inside = column < WIDTH
    here = row.to(tl.int64) * WIDTH + column
    value = tl.load(x + here, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        there = (row % period).to(tl.int64) * WIDTH + column
        value += tl.load(addend + there, mask=inside, other=0.0).to(tl.float32)
        rounded = value.to(x.dtype.element_ty)
        tl.store(x + here, rounded, mask=inside)
        value = rounded.to(tl.float32)  # what is normalised is what the stream holds
    mean = tl.sum(value, axis=0) / WIDTH
    centred = tl.where(inside, value - mean, 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / WIDTH + eps)
    normalised = centred * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    normalised += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + here, normalised.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _quick_gelu(x, count, ELEMENTS: tl.constexpr):
    """x *= sigmoid(1.702 x)."""
    element = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = element < count
    value = tl.load(x + element, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + element, (value * tl.sigmoid(1.702 * value)).to(x.dtype.element_ty), mask=inside)


def patches_triton(images: Tensor, tiling: Tiling, dtype: torch.dtype) -> Tensor:
    """As `patches_torch`, on a CUDA GPU."""
    count, rows, columns = len(images), tiling.rows, tiling.columns
    patches = torch.empty(tiling.shape(count), dtype=dtype, device=images.device)
    patches[:, 0] = 0
    tile = {"HEIGHT": tiling.height, "WIDTH": tiling.width, "LINES": triton.next_power_of_2(tiling.height)}
    span = triton.next_power_of_2(columns * tiling.width)
    with torch.cuda.device_of(images):
        _patches[(count * rows, 3)](
            images, patches, tiling.mean, tiling.std, *images.stride(), rows, columns, **tile, SPAN=span
        )
    return patches


def add_norm_triton(x: Tensor, addend: Tensor | None, norm: nn.LayerNorm) -> Tensor:
    """As `add_norm_torch`, on a CUDA GPU; x and the addend are contiguous."""
    rows, width = x.shape
    y = torch.empty_like(x)
    columns = triton.next_power_of_2(width)
    period = rows if addend is None else len(addend)
    tensors = x, x if addend is None else addend, y, norm.weight, norm.bias
    warps = min(max(columns // 256, 1), 16)  # each thread has 8 elements of a row: 16 bytes in bfloat16
    with torch.cuda.device_of(x):
        _add_norm[(rows,)](
            *tensors, norm.eps, period, WIDTH=width, COLUMNS=columns, ADDS=addend is not None, num_warps=warps
        )
    return y


def quick_gelu_triton(x: Tensor) -> Tensor:
    """As `quick_gelu_torch`, on a CUDA GPU; x is contiguous, and overwritten."""
    with torch.cuda.device_of(x):
        _quick_gelu[(triton.cdiv(x.numel(), _ELEMENTS),)](x, x.numel(), ELEMENTS=_ELEMENTS)
    return x
