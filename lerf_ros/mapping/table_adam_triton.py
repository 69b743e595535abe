"""CUDA backend of the Adam of hash tables: one launch per table, which streams its gradient and little else.

Four neighbours (16 bytes) are read and written as one where any of them has a gradient; where none has, the table and
its moments are not loaded.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.mapping.table_adam import AdamConstants, TableState

_GROUPS = 256  # of four elements, per program


@triton.jit
def _update(table, grad, m, v, rate, powers, skip, count, beta1, rest1, beta2, rest2, eps, GROUPS: tl.constexpr):
    """Flat tensors of `count` elements, updated in place where grad is not zero; rest = 1 - b."""
    group = tl.program_id(0).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)[:, None]
    element = 4 * group + tl.arange(0, 4)[None, :]
    inside = element < count
    g = tl.load(grad + element, mask=inside, other=0.0)
    touched = g != 0.0
    # One mask for all four, so that they travel together.
    wanted = (tl.max(touched.to(tl.int32), axis=1) != 0)[:, None] & inside
    if tl.load(skip) == 0.0:
        old_p = tl.load(table + element, mask=wanted, other=0.0)
        old_m = tl.load(m + element, mask=wanted, other=0.0)
        old_v = tl.load(v + element, mask=wanted, other=0.0)
        step_size = tl.load(rate) / (1.0 - tl.load(powers)).to(tl.float32)
        scale_v = 1.0 / tl.sqrt((1.0 - tl.load(powers + 1)).to(tl.float32))
        new_m = beta1 * old_m + rest1 * g
        new_v = beta2 * old_v + rest2 * g * g
        new_p = old_p - step_size * new_m / (tl.sqrt(new_v) * scale_v + eps)
        tl.store(table + element, tl.where(touched, new_p, old_p), mask=wanted)
        tl.store(m + element, tl.where(touched, new_m, old_m), mask=wanted)
        tl.store(v + element, tl.where(touched, new_v, old_v), mask=wanted)
    tl.store(grad + element, tl.zeros_like(g), mask=wanted)


def update_triton(state: TableState, rate: Tensor, powers: Tensor, skip: Tensor, constants: AdamConstants) -> None:
    """As `update_torch`, on a CUDA GPU."""
    count = state.table.numel()
    betas = constants.beta1, 1 - constants.beta1, constants.beta2, 1 - constants.beta2
    tensors = state.table, state.grad, state.m, state.v, rate, powers, skip
    with torch.cuda.device_of(state.table):
        _update[(triton.cdiv(count, 4 * _GROUPS),)](*tensors, count, *betas, constants.eps, GROUPS=_GROUPS)
