"""CUDA backend of semi-global matching: a launch for each direction, a program for each path."""

from __future__ import annotations

from collections.abc import Sequence

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
    share,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    D: tl.constexpr,
    PLANES: tl.constexpr,
):
    """Adds to total (H, W, D), times share, L of the path that enters the image at the program's pixel of its border:
    of the first row, then of the rest of the first column, in the direction of the path."""
    path = tl.program_id(0)
    plane = tl.arange(0, PLANES)
    known = plane < D
    nearer, farther = tl.minimum(plane + 1, PLANES - 1), tl.maximum(plane - 1, 0)
    if ROWS == 0:  # along rows
        y, x = path, tl.where(COLUMNS > 0, 0, width - 1)
    elif COLUMNS == 0:
        y, x = tl.where(ROWS > 0, 0, height - 1), path
    else:
        from_row = path < width
        first_row, first_column = tl.where(ROWS > 0, 0, height - 1), tl.where(COLUMNS > 0, 0, width - 1)
        y = tl.where(from_row, first_row, first_row + ROWS * (path - width + 1))
        x = tl.where(from_row, path, first_column)
    grey = tl.load(reference + y * width + x)
    before = tl.zeros([PLANES], tl.float32)
    lowest = grey * 0.0
    jump = lowest
    while (y >= 0) & (y < height) & (x >= 0) & (x < width):
        address = (y * width + x) * D + plane
        own = tl.load(cost + address, mask=known, other=float("inf"))
        so_far = tl.load(total + address, mask=known, other=0.0)
        best = tl.minimum(before, lowest + jump)
        best = tl.minimum(best, tl.where(plane > 0, tl.gather(before, farther, 0), float("inf")) + step_penalty)
        best = tl.minimum(best, tl.where(plane < D - 1, tl.gather(before, nearer, 0), float("inf")) + step_penalty)
        before = own + (best - lowest)
        lowest = tl.min(before)
        tl.store(total + address, so_far + share * before, mask=known)
        y += ROWS
        x += COLUMNS
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        next_grey = tl.load(reference + y * width + x, mask=inside, other=0.0)
        jump = tl.maximum(jump_penalty / (1.0 + tl.abs(next_grey - grey) / edge), step_penalty)
        grey = next_grey


def aggregated_triton(
    cost: Tensor,
    reference: Tensor,
    directions: Sequence[tuple[int, int]],
    step_penalty: float,
    jump_penalty: float,
    edge: float,
) -> Tensor:
    """As `semi_global.aggregated_torch`, on a CUDA GPU."""
    height, width, D = cost.shape
    cost, reference = cost.contiguous(), reference.float().contiguous()
    total = torch.zeros_like(cost)
    with torch.cuda.device_of(cost):
        for rows, columns in directions:
            paths = height if rows == 0 else width if columns == 0 else width + height - 1
            _paths[(paths,)](
                cost,
                reference,
                total,
                height,
                width,
                step_penalty,
                jump_penalty,
                edge,
                1.0 / len(directions),
                ROWS=rows,
                COLUMNS=columns,
                D=D,
                PLANES=triton.next_power_of_2(D),
                num_warps=1,
            )
    return total
