"""CUDA backend of semi-global matching: one launch, a program for each path of every direction."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["height", "width"])
def _paths(
    cost,
    reference,
    total,
    height,
    width,
    step_penalty,
    jump_penalty,
    edge,
    D: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Adds to total (H, W, D) an eighth of L of a path: of those that go right, left, down and up, then of those that
    go right or left at each step down or up. These enter at the first row, then at the rest of the first column."""
    path = tl.program_id(0)
    plane = tl.arange(0, PLANES)
    known = plane < D
    nearer, farther = tl.minimum(plane + 1, PLANES - 1), tl.maximum(plane - 1, 0)
    along_rows, along_columns, diagonals = 2 * height, 2 * width, width + height - 1
    if path < along_rows:
        rows, columns = 0, 1 - 2 * (path // height)
        y, x = path % height, 0
    elif path < along_rows + along_columns:
        path -= along_rows
        rows, columns = 1 - 2 * (path // width), 0
        y, x = 0, path % width
    else:
        path -= along_rows + along_columns
        rows, columns = 1 - 2 * (path // (2 * diagonals)), 1 - 2 * (path // diagonals % 2)
        path = path % diagonals
        y, x = tl.maximum(path - width + 1, 0), tl.where(path < width, path, 0)
    first_column = (columns != 0) & ((rows == 0) | (path >= width))  # else of the first row
    x = tl.where(first_column & (columns < 0), width - 1, x)
    y = tl.where(rows < 0, height - 1 - y, y)
    steps = tl.where(rows == 0, width, tl.where(rows > 0, height - y, y + 1))
    steps = tl.minimum(steps, tl.where(columns == 0, height, tl.where(columns > 0, width - x, x + 1)))
    step = rows * width + columns
    pixel = y * width + x
    grey = tl.load(reference + pixel)
    own = tl.load(cost + pixel * D + plane, mask=known, other=float("inf"))
    before = tl.zeros([PLANES], tl.float32)
    lowest = grey * 0.0
    jump = lowest
    for i in range(steps):
        ahead = tl.where(i + 1 < steps, pixel + step, pixel)  # loaded while the present pixel is worked on
        own_ahead = tl.load(cost + ahead * D + plane, mask=known, other=float("inf"))
        grey_ahead = tl.load(reference + ahead)
        best = tl.minimum(before, lowest + jump)
        best = tl.minimum(best, tl.where(plane > 0, tl.gather(before, farther, 0), float("inf")) + step_penalty)
        best = tl.minimum(best, tl.where(plane < D - 1, tl.gather(before, nearer, 0), float("inf")) + step_penalty)
        before = own + (best - lowest)
        lowest = tl.min(before)
        tl.atomic_add(total + pixel * D + plane, 0.125 * before, mask=known, sem="relaxed")
        jump = tl.maximum(jump_penalty / (1.0 + tl.abs(grey_ahead - grey) / edge), step_penalty)
        pixel, own, grey = ahead, own_ahead, grey_ahead


def aggregated_triton(cost: Tensor, reference: Tensor, step_penalty: float, jump_penalty: float, edge: float) -> Tensor:
    """As `semi_global.aggregated_torch`, on a CUDA GPU. Sums are taken in any order."""
    height, width, D = cost.shape
    cost, reference = cost.contiguous(), reference.float().contiguous()
    total = torch.zeros_like(cost)
    paths = 2 * height + 2 * width + 4 * (height + width - 1)
    with torch.cuda.device_of(cost):
        _paths[(paths,)](
            cost,
            reference,
            total,
            height,
            width,
            step_penalty,
            jump_penalty,
            edge,
            D=D,
            PLANES=triton.next_power_of_2(D),
            num_warps=1,
        )
    return total
