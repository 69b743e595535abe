"""CPU backend of the Adam of hash tables, compiled by Numba.

Blocks without any gradient are left at once. In the others every element is written, for conditional stores cost more
than the arithmetic that they would save: one without a gradient is multiplied by one or moved by zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from lerf_ros.field.encoding_numba import for_each
from lerf_ros.mapping.table_adam import AdamConstants, TableState

_BLOCK = 256  # elements
_SHARE = 256 * _BLOCK  # elements that one thread takes at a time
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_compile = njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")


@_compile
def _update_block(table, grad, m, v, step_size, scale_v, beta1, rest1, beta2, rest2, eps):
    """Arrays (N,), updated in place; step_size = lr / (1 - b1^t), scale_v = 1 / sqrt(1 - b2^t), rest = 1 - b."""
    for i in range(len(grad)):
        g = grad[i]
        new_m = (beta1 if g != _ZERO else _ONE) * m[i] + rest1 * g
        new_v = (beta2 if g != _ZERO else _ONE) * v[i] + rest2 * g * g
        table[i] -= (step_size if g != _ZERO else _ZERO) * new_m / (np.sqrt(new_v) * scale_v + eps)
        m[i], v[i], grad[i] = new_m, new_v, _ZERO


@_compile
def _update(table, grad, m, v, step_size, scale_v, beta1, rest1, beta2, rest2, eps):
    bits = grad.view(np.int32)
    for start in range(0, len(grad), _BLOCK):
        block = slice(start, start + _BLOCK)
        touched = np.int32(0)
        for value in bits[block]:
            touched |= value
        if touched:
            _update_block(
                table[block], grad[block], m[block], v[block], step_size, scale_v, beta1, rest1, beta2, rest2, eps
            )


def update_numba(state: TableState, rate: Tensor, powers: Tensor, skip: Tensor, constants: AdamConstants) -> None:
    """As `update_torch`, on the CPU."""
    if skip.numpy() != 0:
        state.grad.zero_()
        return
    arrays = [tensor.numpy() for tensor in (state.table, state.grad, state.m, state.v)]
    power1, power2 = powers.numpy()
    betas = constants.beta1, 1 - constants.beta1, constants.beta2, 1 - constants.beta2
    numbers = [np.float32(x) for x in (rate.numpy() / (1 - power1), (1 - power2) ** -0.5, *betas, constants.eps)]

    def update_share(share: int) -> None:
        part = slice(share * _SHARE, (share + 1) * _SHARE)
        _update(*(array[part] for array in arrays), *numbers)

    for_each(update_share, -(-len(arrays[0]) // _SHARE))
