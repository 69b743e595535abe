"""CPU backend of the hash encoding: each level passes over all points, compiled by Numba.

A level's table (some 100 kB) stays in the core's cache while the points go by, and no two threads work on the same
level, so the scatter of the backward pass needs no atomics. Within a level, vertices and weights of a block of points
are computed first, in a loop that becomes SIMD code, and then gathered or scattered.

The threads are plain Python threads that release the interpreter lock: Numba's own pools spin beside torch's on the
same cores, or must not be entered from two threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from lerf_ros.field.encoding import PRIMES, GridLayout, kept_gradient

_BLOCK = 128  # points whose 8 vertices and weights (8 kB) are worked out at once
_PRIME_Y, _PRIME_Z = np.uint32(PRIMES[1]), np.uint32(PRIMES[2])
_ZERO, _HALF, _ONE = np.float32(0.0), np.float32(0.5), np.float32(1.0)

# Sums may be reordered and fused; NaN and infinity stay defined, so a bad point gives a bad value, not a bad address.
_compile = njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})
_inline = njit(inline="always", fastmath={"reassoc", "contract"})


@_inline
def _cells(x_unit, start, scale, resolution, size, hashed, entries, weights):
    """Writes table entries and trilinear weights (8, count) of the vertices around a block of points; returns count."""
    count = min(_BLOCK, x_unit.shape[1] - start)
    lower, fraction = np.empty((3, _BLOCK), np.uint32), np.empty((3, _BLOCK), np.float32)
    for axis in range(3):
        for i in range(count):
            position = min(max(x_unit[axis, start + i], _ZERO), _ONE) * scale + _HALF
            lower[axis, i] = np.int32(position)
            fraction[axis, i] = position - np.float32(np.int32(position))
    last = np.uint32(size - 1)
    for corner in range(8):
        dx, dy, dz = np.uint32(corner & 1), np.uint32((corner >> 1) & 1), np.uint32(corner >> 2)
        if hashed:
            for i in range(count):
                hash_y = np.uint32(np.uint32(lower[1, i] + dy) * _PRIME_Y)
                hash_z = np.uint32(np.uint32(lower[2, i] + dz) * _PRIME_Z)
                entries[corner, i] = (np.uint32(lower[0, i] + dx) ^ hash_y ^ hash_z) & last
        else:
            for i in range(count):
                row = np.uint32(lower[1, i] + dy + resolution * np.uint32(lower[2, i] + dz))
                entry = np.uint32(lower[0, i] + dx + resolution * row)
                # Beside the cube's upper faces it wraps, as in tinycudann; the second bound holds for NaN, too.
                entries[corner, i] = min(np.uint32(entry - size), last) if entry > last else entry
        for i in range(count):
            wx = fraction[0, i] if dx else _ONE - fraction[0, i]
            wy = fraction[1, i] if dy else _ONE - fraction[1, i]
            wz = fraction[2, i] if dz else _ONE - fraction[2, i]
            weights[corner, i] = wx * wy * wz
    return count


@_compile
def _forward_level(x_unit, table, scale, resolution, hashed, out):
    """x_unit (3, N), table (size, F) -> out (F, N)."""
    entries, weights = np.empty((8, _BLOCK), np.uint32), np.empty((8, _BLOCK), np.float32)
    for start in range(0, x_unit.shape[1], _BLOCK):
        count = _cells(x_unit, start, scale, resolution, np.uint32(table.shape[0]), hashed, entries, weights)
        for f in range(table.shape[1]):
            for i in range(count):
                value = _ZERO
                for corner in range(8):
                    value += weights[corner, i] * table[entries[corner, i], f]
                out[f, start + i] = value


@_compile
def _backward_level(x_unit, grad_out, scale, resolution, hashed, grad_table):
    """x_unit (3, N), grad_out (N, F) -> added to grad_table (size, F)."""
    entries, weights = np.empty((8, _BLOCK), np.uint32), np.empty((8, _BLOCK), np.float32)
    for start in range(0, x_unit.shape[1], _BLOCK):
        count = _cells(x_unit, start, scale, resolution, np.uint32(grad_table.shape[0]), hashed, entries, weights)
        for i in range(count):
            for corner in range(8):
                for f in range(grad_table.shape[1]):
                    grad_table[entries[corner, i], f] += weights[corner, i] * grad_out[start + i, f]


def encode_numba(x_unit: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Encodes points (N, 3) -> (N, levels * features) on the CPU; differentiable in the flat table.

    The result is stored feature by feature, as the kernel writes it; matrix products read it as it is.

    Raises:
        ValueError: the table is not float32 on the CPU.
    """
    if table.device.type != "cpu" or table.dtype != torch.float32:
        raise ValueError(f"the numba backend needs a float32 table on the CPU, not {table.dtype} on {table.device}")
    return _Encode.apply(x_unit.float().t().contiguous(), table, kept_gradient(table), layout)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_unit: Tensor, table: Tensor, kept: Tensor | None, layout: GridLayout) -> Tensor:
        ctx.save_for_backward(x_unit)
        ctx.kept, ctx.layout = kept, layout
        out = torch.empty(len(layout.scales) * layout.features, x_unit.shape[1])
        out_levels = out.numpy().reshape(len(layout.scales), layout.features, -1)
        points, entries = x_unit.numpy(), table.detach().numpy().reshape(-1, layout.features)

        def encode_level(level: int) -> None:
            rows = slice(layout.offsets[level], layout.offsets[level + 1])
            _forward_level(points, entries[rows], *_constants(layout, level), out_levels[level])

        for_each(encode_level, len(layout.scales))
        return out.t()

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[None, Tensor | None, None, None]:
        (x_unit,), layout = ctx.saved_tensors, ctx.layout
        grad_table = ctx.kept if ctx.kept is not None else torch.zeros(int(layout.offsets[-1]) * layout.features)
        grad_entries = grad_table.numpy().reshape(-1, layout.features)
        points, grad_points = x_unit.numpy(), grad_out.contiguous().numpy()

        def scatter_level(level: int) -> None:
            rows = slice(layout.offsets[level], layout.offsets[level + 1])
            columns = slice(level * layout.features, (level + 1) * layout.features)
            _backward_level(points, grad_points[:, columns], *_constants(layout, level), grad_entries[rows])

        for_each(scatter_level, len(layout.scales))
        return None, grad_table if ctx.kept is None else None, None, None


def _constants(layout: GridLayout, level: int) -> tuple[np.float32, np.uint32, bool]:
    return layout.scales[level], np.uint32(layout.resolutions[level]), bool(layout.hashed[level])


def for_each(work: Callable[[int], None], count: int) -> None:
    """Runs ``work`` for every index below ``count`` on as many threads as torch uses, this one included. Indices are
    dealt out in turn: coarse (cheap) and fine levels, say."""
    shares = min(torch.get_num_threads(), count)

    def work_share(share: int) -> None:
        for index in range(share, count, shares):
            work(index)

    others = [_pool(os.getpid()).submit(work_share, share) for share in range(1, shares)]
    work_share(0)
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:
    """Threads do not survive a fork: one pool per process."""
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="hash-grid")
