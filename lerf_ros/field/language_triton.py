"""CUDA backend of what surrounds the matrix products of `LanguageField.similarity`: its first layer at all scales, and
the cosines, each in one launch that reads its input once and writes its result once.

Activations are bfloat16 as the heads compute them there. What they are multiplied by is the sum of two bfloat16 parts,
16 bits of its float32, so that tensor cores do not round it further than the sums are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_ACTIVATIONS = 2048  # of a program of the first layer
# Blocks of the products. With columns as wide as the depth, a head no wider than both got wrong cosines on an H200
# (Triton 3.6); the interpreter's were right.
_ROWS, _COLUMNS, _DEPTH = 128, 64, 32


@triton.jit(do_not_specialize=["points", "count", "next_scale", "next_point"])
def _first(
    projected,
    scales,
    weight,
    hidden,
    points,
    count,
    next_scale,
    next_point,
    H: tl.constexpr,
    ACTIVATIONS: tl.constexpr,
):
    """projected (points, H), scales with strides, weight (H,) -> hidden (S points, H); count is S points H."""
    number = tl.program_id(0).to(tl.int64) * ACTIVATIONS + tl.arange(0, ACTIVATIONS)
    exists = number < count
    row, column = number // H, number % H
    scale, point = row // points, row % points
    x = tl.load(projected + point * H + column, mask=exists, other=0.0)
    told = tl.load(scales + scale * next_scale + point * next_point, mask=exists, other=0.0)
    x += told * tl.load(weight + column)
    tl.store(hidden + number, tl.maximum(x, 0.0).to(hidden.dtype.element_ty), mask=exists)


@triton.jit
def _product(hidden, parts, row, exists, column, columns, H: tl.constexpr, DEPTH: tl.constexpr):
    """Rows of hidden (rows, H) times columns of parts (2, H, columns), whose sum is the other factor."""
    product = tl.zeros([row.shape[0], column.shape[0]], tl.float32)
    for k in range(0, H, DEPTH):
        deep = k + tl.arange(0, DEPTH)
        h = tl.load(hidden + row[:, None] * H + deep, mask=exists[:, None] & (deep < H), other=0.0)
        inside = (deep[:, None] < H) & (column < columns)
        other = parts + deep[:, None] * columns + column
        product = tl.dot(h, tl.load(other, mask=inside, other=0.0), product)
        product = tl.dot(h, tl.load(other + H * columns, mask=inside, other=0.0), product)
    return product


@triton.jit(do_not_specialize=["rows", "points", "start", "total", "texts"])
def _cosines(
    hidden,
    gram,
    folded,
    out,
    rows,
    points,
    start,
    total,
    texts,
    H: tl.constexpr,
    TEXTS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """hidden (rows = S points, H), gram (2, H, H), folded (2, H, texts) -> out (S, total, texts), points from start."""
    first = tl.program_id(0).to(tl.int64) * ROWS
    hidden += first * H
    row = tl.arange(0, ROWS)
    exists = first + row < rows
    square = tl.zeros([ROWS], tl.float32)
    for block in range(0, H, COLUMNS):
        column = block + tl.arange(0, COLUMNS)
        product = _product(hidden, gram, row, exists, column, H, H, DEPTH)
        own = tl.load(hidden + row[:, None] * H + column, mask=exists[:, None] & (column < H), other=0.0)
        square += tl.sum(product * own.to(tl.float32), axis=1)
    text = tl.arange(0, TEXTS)
    along = _product(hidden, folded, row, exists, text, texts, H, DEPTH)
    cosine = along / tl.sqrt(tl.maximum(square, 1e-24))[:, None]
    number = first + row
    place = (number // points) * total + start + number % points
    tl.store(out + place[:, None] * texts + text, cosine, mask=exists[:, None] & (text < texts))


def first_layer_triton(projected: Tensor, scales: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """As `language.first_layer_torch`, on a CUDA GPU."""
    (points, H), S = projected.shape, len(scales)
    hidden = torch.empty(S, points, H, dtype=dtype, device=projected.device)
    next_point = scales.stride(1) if scales.shape[1] > 1 else 0
    tensors = projected.contiguous(), scales, weight.contiguous(), hidden
    grid = (triton.cdiv(hidden.numel(), _ACTIVATIONS),)
    with torch.cuda.device_of(hidden):
        numbers = points, hidden.numel(), scales.stride(0), next_point
        _first[grid](*tensors, *numbers, H=H, ACTIVATIONS=_ACTIVATIONS)
    return hidden


def cosines_triton(hidden: Tensor, gram: Tensor, folded_texts: Tensor, out: Tensor, start: int) -> None:
    """As `language.cosines_torch`, on a CUDA GPU."""
    (S, points, H), (_, total, texts) = hidden.shape, out.shape
    sizes = {"H": H, "TEXTS": max(16, triton.next_power_of_2(texts))}
    blocks = {"ROWS": _ROWS, "COLUMNS": _COLUMNS, "DEPTH": _DEPTH, "num_warps": 8, "num_stages": 3}
    tensors = hidden.contiguous(), _in_parts(gram, hidden.dtype), _in_parts(folded_texts, hidden.dtype), out
    with torch.cuda.device_of(hidden):
        grid = (triton.cdiv(S * points, _ROWS),)
        _cosines[grid](*tensors, S * points, points, start, total, texts, **sizes, **blocks)


def _in_parts(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """A matrix (H, C) float32 as two that add up to it, (2, H, C)."""
    high = matrix.to(dtype)
    return torch.stack([high, (matrix - high).to(dtype)])
