"""Depth of a view from posed views around it, and how sure it is of each pixel.

Shapes: V views, h x w pixels of the images that stereo works on. Inverse depth q (1/m) is along the optical axis; NaN:
not known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.keyframes.plane_sweep import plane_sweep
from lerf_ros.keyframes.semi_global import STEP_PENALTY, aggregated

MATCHING_NOISE = 0.15  # px, standard deviation of the disparity of a right match
WITNESSES = 1  # other views that must agree with a pixel's depth: what few views show has no more
_PRIOR_WEIGHT = 2.0  # observations that MATCHING_NOISE counts for, in the variance of a pixel
_AGREEMENT = 3.0  # standard deviations of the difference of two right matches


class Confirmed(NamedTuple):
    """Of a view: inverse_depth (h, w) 1/m, NaN where fewer than `WITNESSES` other views agree; variance (h, w)."""

    inverse_depth: Tensor
    variance: Tensor


def plane_spacing(projections: Tensor, height: int, width: int) -> float:
    """Difference of inverse depth, 1/m, for which a point's image moves by one pixel in the median source view, from
    infinity on: mean over the quarter points of a reference of height x width pixels. Infinite without any baseline.

    Args:
        projections: (V, 3, 4), see `plane_projections`.
    """
    v, u = torch.meshgrid(
        torch.tensor([0.25, 0.75]) * (height - 1), torch.tensor([0.25, 0.75]) * (width - 1), indexing="ij"
    )
    pixels = torch.stack([u.flatten(), v.flatten(), torch.ones(4)]).to(projections)
    x, y, z = (projections[:, :, :3] @ pixels).unbind(dim=1)  # (V, 4) each, at infinity
    tx, ty, tz = projections[:, :, 3:].unbind(dim=1)
    z = z.clamp_min(1e-6)
    moves = torch.hypot((tx - tz * x / z) / z, (ty - tz * y / z) / z).mean(dim=1)
    return 1 / max(float(moves.median()), 1e-9)


def match(reference: Tensor, sources: Tensor, projections: Tensor, spacing: float, planes: int) -> Tensor:
    """Inverse depth (h, w) of each pixel of a view by semi-global matching with source views; NaN where all planes cost
    the same, because neither the pixel nor what lies around it has texture.

    Planes are `spacing` apart from infinity on; between them, the minimum of a parabola through three costs is taken.

    Args:
        reference: (h, w) grey values in [0, 1].
        sources: (V, h, w), at least one.
        projections: (V, 3, 4) from the reference to the sources.
        spacing: 1/m.
        planes: how many.
    """
    q = spacing * torch.arange(planes, device=reference.device)
    cost = aggregated(plane_sweep(reference, sources, projections, q), reference)
    best = cost.argmin(dim=2, keepdim=True).clamp(1, planes - 2)
    nearer, own, farther = (cost.gather(2, best + step)[..., 0] for step in (1, 0, -1))
    offset = (farther - nearer) / (2 * (farther + nearer - 2 * own)).clamp_min(1e-6)
    is_decided = cost.amax(dim=2) - own > STEP_PENALTY
    return torch.where(is_decided, spacing * (best[..., 0] + offset.clamp(-0.5, 0.5)), torch.nan)


def confirmed(
    inverse_depth: Tensor,
    spacing: Tensor | float,
    others: Tensor,
    other_spacings: Tensor,
    to_others: Tensor,
    from_others: Tensor,
) -> Confirmed:
    """A view's inverse depth where other views, matched by themselves, show the same surface: its mean over them.

    A pixel is seen at a pixel of each other view, whose own point is taken back to this view. The two agree where their
    inverse depths differ by no more than two right matches do. The variance of a pixel is the mean of its posterior,
    ``(n0 s0^2 + sum_j (q_j - q)^2) / (n0 + n - 2)`` for n views that agree, with a scaled inverse chi-squared prior of
    n0 observations with `MATCHING_NOISE` s0 (Gelman et al., Bayesian Data Analysis, section 2.6). It is not that of
    the mean of the views: what a surface looks like misleads all of them alike.

    Args:
        inverse_depth: (h, w) 1/m, of this view.
        spacing: () 1/m, for which the disparity changes by one pixel.
        others: (V, h, w) 1/m, of the other views; NaN: not known.
        other_spacings: (V,) 1/m; NaN: of a view that says nothing.
        to_others, from_others: (V, 3, 4), see `plane_projections`.
    """
    q, (height, width) = inverse_depth.flatten(), inverse_depth.shape
    v, u = torch.meshgrid(torch.arange(height, device=q.device), torch.arange(width, device=q.device), indexing="ij")
    x, y, z = (to_others @ torch.stack([u.flatten(), v.flatten(), torch.ones_like(q), q])).unbind(dim=1)
    column, row = (x / z).round(), (y / z).round()
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = torch.where(inside, column, 0), torch.where(inside, row, 0)
    theirs = others.flatten(1).gather(1, (row * width + column).long())
    there = torch.stack([column, row, torch.ones_like(row), theirs], dim=1)
    difference = theirs / (from_others[:, 2:] @ there)[:, 0] - q  # the third coordinate is depth here / depth there
    noise = MATCHING_NOISE * spacing
    noise_of_both = (noise**2 + (MATCHING_NOISE * other_spacings).square()).sqrt()[:, None]
    agrees = inside & (difference.abs() <= _AGREEMENT * noise_of_both)
    n = agrees.sum(dim=0)
    spread = torch.where(agrees, difference.square(), 0).sum(dim=0)
    mean = q + torch.where(agrees, difference, 0).sum(dim=0) / (n + 1)
    variance = (_PRIOR_WEIGHT * noise**2 + spread) / (_PRIOR_WEIGHT + n - 2).clamp_min(1)
    known = n >= WITNESSES
    return Confirmed(*(torch.where(known, each, torch.nan).view(height, width) for each in (mean, variance)))


def enlarged(inverse_depth: Tensor, height: int, width: int) -> Tensor:
    """Inverse depth (h, w) on the pixels of a larger image (height, width) of the same view.

    The inverse depth of a plane is linear in the image, so it is continued from the nearest known pixel by the smaller
    of its slopes to both sides; by none, where these disagree in sign or one is not known: surfaces end there.
    """
    h, w = inverse_depth.shape
    device = inverse_depth.device
    y = (torch.arange(height, device=device) + 0.5) * (h / height) - 0.5
    x = (torch.arange(width, device=device) + 0.5) * (w / width) - 0.5
    row, column = y.round().long().clamp(0, h - 1), x.round().long().clamp(0, w - 1)
    down, right = _limited_slopes(inverse_depth, 0), _limited_slopes(inverse_depth, 1)
    at = row[:, None], column[None, :]
    return inverse_depth[at] + (y - row)[:, None] * down[at] + (x - column)[None, :] * right[at]


def _limited_slopes(values: Tensor, dim: int) -> Tensor:
    """Slopes (h, w) along a dimension, limited as by minmod: the smaller one of both sides, 0 where their signs differ
    or a neighbour is NaN."""
    steps = values.diff(dim=dim)
    pad = (0, 0, 1, 0) if dim == 0 else (1, 0, 0, 0)
    before = F.pad(steps, pad)
    after = F.pad(steps, (0, 0, 0, 1) if dim == 0 else (0, 1, 0, 0))
    smaller = torch.where(before.abs() < after.abs(), before, after)
    return torch.where(before * after > 0, smaller, 0.0)
