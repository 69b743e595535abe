"""CUDA backend of the hash encoding: one Triton program per block of points and level, nothing to compile beforehand.

Levels are the slow axis of the launch, so the programs that run together share one level's table, which then stays in
the L2 cache. The features of an entry are gathered, and scattered with atomic additions, up to 16 bytes at a time where
the GPU can (atomics: compute capability 9.0). Sums of the backward pass come in any order: gradients agree to rounding,
not to the last bit, from run to run.

Launches depend on shapes only and never synchronise. They can be captured in a CUDA graph after one call of the same
kind outside the capture, which compiles the kernels and uploads the layout.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from lerf_ros.field.encoding import PRIMES, GridLayout, kept_gradient

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton reads it where a kernel is defined
_PRIME_Y, _PRIME_Z = tl.constexpr(PRIMES[1]), tl.constexpr(PRIMES[2])
# Per program. Each thread has one vector of up to 4 features; with more, Triton exchanges addresses through shared
# memory. With one warp, Triton lays the two vertices of the backward pass beside each other in it.
_FORWARD_WARPS, _BACKWARD_WARPS = 4, 1
# Points whose gradients are summed where they share a cell, times features. Longer runs add less often, but leave so
# few programs to a level that more levels run together than the L2 cache holds.
_RUN_FEATURES = 32


@triton.jit
def _axis(x_unit, scale):
    """Lower vertex (uint32) and fraction of the way to the next one."""
    x_unit = tl.maximum(x_unit, 0.0, propagate_nan=tl.PropagateNan.ALL)
    x_unit = tl.minimum(x_unit, 1.0, propagate_nan=tl.PropagateNan.ALL)
    position = x_unit * scale + 0.5
    lower = tl.where(position == position, position, 0.0).to(tl.int32)  # NaN: a bad value, not a bad address
    return lower.to(tl.uint32), position - lower.to(tl.float32)


@triton.jit
def _cell(x_unit, scales, sizes, point, inside, level):
    """The cell of each point: vertex (x, y, z), fraction (x, y, z), and the level's numbers."""
    scale = tl.load(scales + level)
    x, fx = _axis(tl.load(x_unit + 3 * point, mask=inside, other=0.0), scale)
    y, fy = _axis(tl.load(x_unit + 3 * point + 1, mask=inside, other=0.0), scale)
    z, fz = _axis(tl.load(x_unit + 3 * point + 2, mask=inside, other=0.0), scale)
    resolution = tl.load(sizes + 4 * level).to(tl.uint32)
    size = tl.load(sizes + 4 * level + 1).to(tl.uint32)
    first = tl.load(sizes + 4 * level + 2)
    hashed = tl.load(sizes + 4 * level + 3) != 0
    return x, y, z, fx, fy, fz, resolution, size, first, hashed


@triton.jit
def _entry(x, y, z, resolution, size, hashed):
    """Entry of a vertex within its level; any shapes that broadcast."""
    # Selected, not branched on: a branch would keep the gathers of a cell's vertices from being in flight together.
    y_term = y * tl.where(hashed, _PRIME_Y, resolution)
    z_term = z * tl.where(hashed, _PRIME_Z, resolution * resolution)
    entry = tl.where(hashed, (x ^ y_term ^ z_term) & (size - 1), x + y_term + z_term)
    return tl.minimum(entry, entry - size)  # beside the cube's upper faces it wraps; else entry - size is the larger


@triton.jit
def _weight(fraction, upper):
    """Of the lower or the upper vertex along one axis."""
    return tl.where(upper == 1, fraction, 1.0 - fraction)


@triton.jit(do_not_specialize=["count"])
def _forward(
    x_unit, table, out, scales, sizes, count, FEATURES: tl.constexpr, COLUMNS: tl.constexpr, POINTS: tl.constexpr
):
    """x_unit (N, 3), table (E, F) -> out (N, L F), for one block of points and one level."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    level = tl.program_id(1)
    inside = point < count
    x, y, z, fx, fy, fz, resolution, size, first, hashed = _cell(x_unit, scales, sizes, point, inside, level)

    feature = tl.arange(0, COLUMNS)[None, :]
    level_table = table + first * FEATURES
    value = tl.zeros([POINTS, COLUMNS], tl.float32)
    for corner in tl.static_range(8):
        entry = _entry(x + corner % 2, y + corner // 2 % 2, z + corner // 4, resolution, size, hashed)
        weight = _weight(fx, corner % 2) * _weight(fy, corner // 2 % 2) * _weight(fz, corner // 4)
        address = level_table + entry.to(tl.int64)[:, None] * FEATURES + feature
        if FEATURES == COLUMNS:
            value += weight[:, None] * tl.load(address)
        else:
            value += weight[:, None] * tl.load(address, mask=feature < FEATURES, other=0.0)
    address = out + point[:, None] * (tl.num_programs(1) * FEATURES) + level * FEATURES + feature
    tl.store(address, value.to(out.dtype.element_ty), mask=inside[:, None] & (feature < FEATURES))


@triton.jit
def _add(table, x, y, z, upper, resolution, size, hashed, sums, wanted, FEATURES: tl.constexpr):
    """Adds sums (POINTS, 2, COLUMNS) to the two vertices along x, which are mostly neighbours in the table (the hash
    multiplies x by 1), so that their additions leave together, to one cache line."""
    entry = _entry(x[:, None] + upper.to(tl.uint32), y[:, None], z[:, None], resolution, size, hashed)
    tl.atomic_add(table + entry.to(tl.int64)[:, :, None] * FEATURES, sums, mask=wanted, sem="relaxed")


@triton.jit(do_not_specialize=["count"])
def _backward(
    x_unit,
    grad_out,
    grad_table,
    scales,
    sizes,
    count,
    grad_stride,
    FEATURES: tl.constexpr,
    COLUMNS: tl.constexpr,
    POINTS: tl.constexpr,
    RUN: tl.constexpr,
):
    """x_unit (N, 3), grad_out (N, L F), rows grad_stride apart -> added to grad_table (E, F).

    Gradients are summed over up to RUN consecutive points while these stay in a cell: the samples of a ray lie side by
    side, all the more in the large cells of coarse levels. Additions to one address wait for each other, and in
    training that, not arithmetic, is what takes the time.
    """
    run = (tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)) * RUN
    level = tl.program_id(1)
    feature = tl.arange(0, COLUMNS)[None, None, :]
    upper = tl.arange(0, 2)[None, :]
    real = (upper[:, :, None] < 2) & (feature < FEATURES)
    cell_x, cell_y, cell_z, fx, fy, fz, resolution, size, first, hashed = _cell(
        x_unit, scales, sizes, run, run < count, level
    )
    table = grad_table + first * FEATURES + feature
    sums_00 = tl.zeros([POINTS, 2, COLUMNS], tl.float32)  # of the vertices with lower y and z, ...
    sums_10 = tl.zeros([POINTS, 2, COLUMNS], tl.float32)  # ... upper y, ...
    sums_01 = tl.zeros([POINTS, 2, COLUMNS], tl.float32)  # ... upper z, ...
    sums_11 = tl.zeros([POINTS, 2, COLUMNS], tl.float32)  # ... both
    for step in range(RUN):
        point = run + step
        inside = point < count
        x, y, z, fx, fy, fz, resolution, size, first, hashed = _cell(x_unit, scales, sizes, point, inside, level)
        address = grad_out + point[:, None, None] * grad_stride + level * FEATURES + 0 * upper[:, :, None] + feature
        grad = tl.load(address, mask=inside[:, None, None] & real, other=0.0).to(tl.float32)

        left = (inside & ((x != cell_x) | (y != cell_y) | (z != cell_z)))[:, None, None]
        wanted = left & real
        _add(table, cell_x, cell_y, cell_z, upper, resolution, size, hashed, sums_00, wanted, FEATURES)
        _add(table, cell_x, cell_y + 1, cell_z, upper, resolution, size, hashed, sums_10, wanted, FEATURES)
        _add(table, cell_x, cell_y, cell_z + 1, upper, resolution, size, hashed, sums_01, wanted, FEATURES)
        _add(table, cell_x, cell_y + 1, cell_z + 1, upper, resolution, size, hashed, sums_11, wanted, FEATURES)
        cell_x, cell_y, cell_z = tl.where(inside, x, cell_x), tl.where(inside, y, cell_y), tl.where(inside, z, cell_z)

        weight_x = _weight(fx[:, None], upper)
        sums_00 = tl.where(left, 0.0, sums_00) + (weight_x * ((1.0 - fy) * (1.0 - fz))[:, None])[:, :, None] * grad
        sums_10 = tl.where(left, 0.0, sums_10) + (weight_x * (fy * (1.0 - fz))[:, None])[:, :, None] * grad
        sums_01 = tl.where(left, 0.0, sums_01) + (weight_x * ((1.0 - fy) * fz)[:, None])[:, :, None] * grad
        sums_11 = tl.where(left, 0.0, sums_11) + (weight_x * (fy * fz)[:, None])[:, :, None] * grad
    wanted = (run < count)[:, None, None] & real
    _add(table, cell_x, cell_y, cell_z, upper, resolution, size, hashed, sums_00, wanted, FEATURES)
    _add(table, cell_x, cell_y + 1, cell_z, upper, resolution, size, hashed, sums_10, wanted, FEATURES)
    _add(table, cell_x, cell_y, cell_z + 1, upper, resolution, size, hashed, sums_01, wanted, FEATURES)
    _add(table, cell_x, cell_y + 1, cell_z + 1, upper, resolution, size, hashed, sums_11, wanted, FEATURES)


def encode_triton(x_unit: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Encodes points (N, 3) -> (N, levels * features) on a CUDA GPU; differentiable in the flat table.

    The result is float32; within ``torch.autocast`` it has that context's type, as with the torch backend, but only the
    result is rounded to it.

    Raises:
        ValueError: the table is not float32 on a GPU.
    """
    if table.dtype != torch.float32 or not (table.is_cuda or INTERPRETED):
        raise ValueError(f"the triton backend needs a float32 table on a GPU, not {table.dtype} on {table.device}")
    kind = table.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else table.dtype
    return _Encode.apply(x_unit.float().contiguous(), table, kept_gradient(table), layout, dtype)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_unit: Tensor, table: Tensor, kept: Tensor | None, layout: GridLayout, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(x_unit)
        ctx.kept, ctx.layout = kept, layout
        out = torch.empty(len(x_unit), len(layout.scales) * layout.features, dtype=dtype, device=table.device)
        programs, options = _launch(len(x_unit), layout, _FORWARD_WARPS)
        with torch.cuda.device_of(table):
            if len(x_unit):
                _forward[programs](x_unit, table, out, *_on_device(layout, table.device), len(x_unit), **options)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[None, Tensor | None, None, None, None]:
        (x_unit,), layout = ctx.saved_tensors, ctx.layout
        if grad_out.stride(1) != 1:  # half of a concatenation is fine, an expanded scalar is not
            grad_out = grad_out.contiguous()
        grad_table = ctx.kept
        if grad_table is None:
            grad_table = torch.zeros(int(layout.offsets[-1]) * layout.features, device=x_unit.device)
        run = max(1, _RUN_FEATURES // triton.next_power_of_2(layout.features))
        programs, options = _launch(len(x_unit), layout, _BACKWARD_WARPS, vertices=2, RUN=run)
        with torch.cuda.device_of(x_unit):
            if len(x_unit):
                numbers = _on_device(layout, x_unit.device)
                _backward[programs](x_unit, grad_out, grad_table, *numbers, len(x_unit), grad_out.stride(0), **options)
        return None, grad_table if ctx.kept is None else None, None, None, None


def _launch(
    count: int, layout: GridLayout, warps: int, vertices: int = 1, **runs: int
) -> tuple[tuple[int, int], dict[str, Any]]:
    """Programs (blocks of points, levels), and what a kernel is compiled for that tiles so many vertices per point."""
    columns = triton.next_power_of_2(layout.features)
    points = 32 * warps // vertices * min(columns, 4) // columns
    sizes = {"FEATURES": layout.features, "COLUMNS": columns, "POINTS": points, **runs}
    blocks = triton.cdiv(count, points * runs.get("RUN", 1))
    return (blocks, len(layout.scales)), {**sizes, "num_warps": warps, "enable_fp_fusion": True}


# Kept as long as the layout, because captured graphs go on reading these tensors.
_uploaded: WeakKeyDictionary[GridLayout, dict[torch.device, tuple[Tensor, Tensor]]] = WeakKeyDictionary()


def _on_device(layout: GridLayout, device: torch.device) -> tuple[Tensor, Tensor]:
    """Scales (L,) float32, and (L, 4) int64: resolution, size, first entry, whether it is hashed."""
    uploaded = _uploaded.setdefault(layout, {})
    if device not in uploaded:
        rows = zip(layout.resolutions, layout.sizes, layout.offsets, layout.hashed)  # one offset more than levels
        sizes = torch.tensor([[int(number) for number in row] for row in rows])
        uploaded[device] = torch.from_numpy(layout.scales).to(device), sizes.to(device)
    return uploaded[device]
