"""Semi-global matching (Hirschmueller, PAMI 2008): smooth depth where the pixels themselves do not decide."""

from __future__ import annotations

import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))  # rows, columns
STEP_PENALTY = 0.1  # P1, for a change by one plane from pixel to pixel
JUMP_PENALTY = 2.0  # P2, for any other change; less at edges of the image, where surfaces end
EDGE = 0.1  # difference of grey values between neighbouring pixels that halves P2


def aggregated(cost: Tensor, reference: Tensor) -> Tensor:
    """Mean over eight directions of the cheapest path through the planes that ends at a pixel and a plane.

    ``L(p, d) = C(p, d) + min(L(p', d), L(p', d +- 1) + P1, min_k L(p', k) + P2) - min_k L(p', k)``

    with the pixel p' before p on the path (equations 12 and 13). Our kernels agree to rounding.

    Args:
        cost: C (H, W, D).
        reference: (H, W) grey values in [0, 1].

    Returns:
        (H, W, D).
    """
    if runs_kernels(cost.device):
        from lerf_ros.keyframes.semi_global_triton import aggregated_triton  # not everywhere installed

        return aggregated_triton(cost, reference, STEP_PENALTY, JUMP_PENALTY, EDGE)
    return aggregated_torch(cost, reference)


def aggregated_torch(cost: Tensor, reference: Tensor) -> Tensor:
    """Reference backend of `aggregated`."""
    total = torch.zeros_like(cost)
    for rows, columns in DIRECTIONS:
        if rows:
            total += _along_columns(cost, reference, rows, columns)
        else:
            total += _along_columns(cost.transpose(0, 1), reference.T, columns, 0).transpose(0, 1)
    return total / len(DIRECTIONS)


def _along_columns(cost: Tensor, reference: Tensor, rows: int, columns: int) -> Tensor:
    """L of paths that go `rows` = 1 or -1 rows and `columns` = -1, 0 or 1 columns at each step; all pixels of a row
    take it together."""
    path = torch.empty_like(cost)
    order = range(len(cost)) if rows > 0 else range(len(cost) - 1, -1, -1)
    for y in order:
        path[y] = cost[y]
        if y == order[0]:
            continue
        before, grey = path[y - rows], reference[y - rows]
        if columns:
            before, grey = before.roll(columns, 0), grey.roll(columns)
        lowest = before.amin(dim=1, keepdim=True)
        jump = JUMP_PENALTY / (1 + (reference[y] - grey).abs() / EDGE)
        best = torch.minimum(before, lowest + jump.clamp_min(STEP_PENALTY)[:, None])
        best[:, 1:] = torch.minimum(best[:, 1:], before[:, :-1] + STEP_PENALTY)
        best[:, :-1] = torch.minimum(best[:, :-1], before[:, 1:] + STEP_PENALTY)
        best -= lowest
        if columns:
            best[0 if columns > 0 else -1] = 0  # where a path begins
        path[y] += best
    return path
