"""Adam for hash tables, of which a step touches a small part.

For every element whose gradient g is not exactly zero, with step size lr and t steps taken, this one included:

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   p <- p - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

All others keep p, m and v, so that only their zero gradient is read. With a gradient everywhere this is Adam itself.
What differs elsewhere, for an element that a share q of the steps touches:

- Its moments are means over its last 1 / (1 - b) *touches*, not steps, about E[g] and E[g^2] of a touch. Dense Adam
  shrinks both by b in every step between two touches, which leaves about q E[g] and q E[g^2].
- It moves by about lr E[g] / sqrt(E[g^2]) when it is touched, and then rests. Dense Adam goes on along the old m: 1 / q
  steps, each of them sqrt(q) as large, so 1 / sqrt(q) times as far per touch.
- The bias correction counts all steps, as in dense Adam, not an element's touches: that would be one more table. An
  element touched first at a late t moves by lr (1 - b1) / sqrt(1 - b2), which is lr itself for betas of 0.9 and 0.99,
  and by at most 2.1 lr in each of the touches that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lerf_ros.field.encoding import fastest_backend


@dataclass(frozen=True)
class AdamConstants:
    """The numbers of Adam that never change."""

    beta1: float
    beta2: float
    eps: float


@dataclass(frozen=True)
class TableState:
    """One table and all that its update reads, flat float32 tensors of the same size.

    Attributes:
        table, grad: the parameter and its gradient.
        m, v: running means of the gradient and of its square.
    """

    table: Tensor
    grad: Tensor
    m: Tensor
    v: Tensor


def update_torch(state: TableState, rate: Tensor, powers: Tensor, skip: Tensor, constants: AdamConstants) -> None:
    """Reference backend: any device.

    Args:
        state: updated in place; its gradient is zero afterwards.
        rate: (), the step size lr.
        powers: (2,) float64, b1^t and b2^t.
        skip: (), not zero: gradients are cleared and nothing else happens.
        constants: b1, b2 and eps.
    """
    grad = state.grad
    taken = (grad != 0) & (skip == 0)
    correction1, correction2 = (1 - powers).float().unbind()
    m = constants.beta1 * state.m + (1 - constants.beta1) * grad
    v = constants.beta2 * state.v + (1 - constants.beta2) * grad.square()
    moved = state.table - rate / correction1 * m / (v.sqrt() / correction2.sqrt() + constants.eps)
    for kept, new in ((state.table, moved), (state.m, m), (state.v, v)):
        kept.copy_(torch.where(taken, new, kept))
    grad.zero_()


def _update_numba(state: TableState, rate: Tensor, powers: Tensor, skip: Tensor, constants: AdamConstants) -> None:
    from lerf_ros.mapping.table_adam_numba import update_numba  # numba takes a second to import: only when it is used

    update_numba(state, rate, powers, skip, constants)


def _update_triton(state: TableState, rate: Tensor, powers: Tensor, skip: Tensor, constants: AdamConstants) -> None:
    from lerf_ros.mapping.table_adam_triton import update_triton  # not everywhere installed

    update_triton(state, rate, powers, skip, constants)


BACKENDS: dict[str, Callable[[TableState, Tensor, Tensor, Tensor, AdamConstants], None]] = {
    "torch": update_torch,
    "numba": _update_numba,
    "triton": _update_triton,
}


class TableAdam:
    """Takes the steps of this module's equation on flat float32 tables, all on one device.

    A step launches work of fixed shape that reads device scalars only, never synchronises, and can be captured in a
    CUDA graph after one step outside of it. It clears the gradients that it reads: they are buffers that stay where
    they are. Leave out `zero_grad`, and never set them to None.

    Args:
        groups: like those of torch's optimisers: "params", a list of tables, and "lr", a () tensor on their device.
        betas: b1, b2.
        eps: keeps the division defined.

    Attributes:
        param_groups: the groups; a new learning rate is filled into the "lr" of one.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        self.param_groups = list(groups)
        self._constants = AdamConstants(*betas, eps)
        self._states: list[tuple[TableState, Tensor]] = []
        for group in self.param_groups:
            for table in group["params"]:
                table.grad = torch.zeros_like(table)
                zeros = torch.zeros_like(table.grad), torch.zeros_like(table.grad)
                self._states.append((TableState(table.detach(), table.grad, *zeros), group["lr"]))
        device = self._states[0][0].table.device
        self._update = BACKENDS[fastest_backend(device, torch.float32)]
        # Running products of the betas instead of a count of steps: float64, exact to 1e-16 per step.
        self._betas = torch.tensor(betas, dtype=torch.float64, device=device)
        self._powers = torch.ones_like(self._betas)

    def step(self, skip: Tensor) -> None:
        """One step on every table.

        Args:
            skip: () float32 on the device; not zero: no table, moment or count of steps changes, only the gradients are
                cleared.
        """
        self._powers.mul_(torch.where(skip == 0, self._betas, 1.0))
        for state, rate in self._states:
            self._update(state, rate, self._powers, skip, self._constants)

    def clear_gradients(self) -> None:
        """Clears what a backward pass that no step will follow has left in the gradients."""
        for state, _ in self._states:
            state.grad.zero_()
