"""Depth of a view from posed views around it, and how sure it is of each pixel.

Shapes: V views, h x w pixels of the images that stereo works on. Inverse depth q (1/m) is along the optical axis; NaN:
not known.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.keyframes.plane_sweep import plane_projections, plane_sweep
from lerf_ros.keyframes.semi_global import aggregated

MATCHING_NOISE = 0.15  # px, standard deviation of the disparity of a right match
WITNESSES = 2  # other views that must agree with a pixel's depth
_PRIOR_WEIGHT = 2.0  # observations that MATCHING_NOISE counts for, in the variance of a pixel
_AGREEMENT = 3 * 2**0.5  # standard deviations: of the difference of two right matches


class InverseDepths(NamedTuple):
    """Of a view: inverse_depth (h, w) 1/m, as its own matching has it, not yet confirmed by other views; spacing ()
    1/m, of the planes, at which the disparity changes by one pixel."""

    inverse_depth: Tensor
    spacing: Tensor


class Confirmed(NamedTuple):
    """Of a view: inverse_depth (h, w) 1/m, NaN where fewer than `WITNESSES` other views agree; variance (h, w)."""

    inverse_depth: Tensor
    variance: Tensor


def disparity_per_inverse_depth(projections: Tensor, height: int, width: int) -> Tensor:
    """By how many pixels the image of a point moves in each source view (V,) when its inverse depth grows by 1/m, from
    infinity on: mean over the quarter points of the reference."""
    v, u = torch.meshgrid(
        torch.tensor([0.25, 0.75], device=projections.device) * (height - 1),
        torch.tensor([0.25, 0.75], device=projections.device) * (width - 1),
        indexing="ij",
    )
    pixel = torch.stack([u.flatten(), v.flatten(), torch.ones(4, device=u.device)]).to(projections)
    x, y, z = (projections[:, :, :3] @ pixel).unbind(dim=1)  # (V, 4) each, at infinity
    tx, ty, tz = projections[:, :, 3:].unbind(dim=1)
    z = z.clamp_min(1e-6)
    return torch.hypot((tx - tz * x / z) / z, (ty - tz * y / z) / z).mean(dim=1)


def match(
    reference: Tensor, sources: Tensor, K_reference: Tensor, K_sources: Tensor, T_sources_reference: Tensor, planes: int
) -> InverseDepths:
    """Inverse depth of each pixel of a view by semi-global matching with source views.

    Planes are as far apart as one pixel of disparity in the middle source view, from infinity to as many pixels as
    there are planes; between them, a parabola through three costs is taken.

    Args:
        reference: (h, w) grey values in [0, 1].
        sources: (V, h, w), at least one.
        K_reference, K_sources: (3, 3) and (V, 3, 3) px.
        T_sources_reference: (V, 4, 4), m.
        planes: how many.
    """
    projections = plane_projections(K_reference, K_sources, T_sources_reference).float()
    spacing = 1 / disparity_per_inverse_depth(projections, *reference.shape).median().clamp_min(1e-6)
    q = spacing * torch.arange(planes, device=reference.device)
    cost = aggregated(plane_sweep(reference, sources, projections, q), reference)
    best = cost.argmin(dim=2, keepdim=True).clamp(1, planes - 2)
    nearer, own, farther = (cost.gather(2, best + step)[..., 0] for step in (1, 0, -1))
    offset = (farther - nearer) / (2 * (farther + nearer - 2 * own)).clamp_min(1e-6)
    return InverseDepths(spacing * (best[..., 0] + offset.clamp(-0.5, 0.5)), spacing)


def confirmed(
    own: InverseDepths, others: InverseDepths, K: Tensor, K_others: Tensor, T_others_own: Tensor
) -> Confirmed:
    """A view's inverse depth where other views, matched by themselves, show the same surface: its mean over them.

    A point is seen at a pixel of each other view, whose own point is taken back to this view; the two agree where their
    inverse depths differ by no more than two right matches do. The variance of a pixel is estimated from the
    differences, with `MATCHING_NOISE` as prior: ``(n0 s0^2 + sum_j (q_j - q)^2) / (n0 + n)`` for n views. It is not
    divided by n: what a surface looks like misleads all views alike.

    Args:
        own, others: of this view, and of V others: inverse_depth (V, h, w) and spacing (V,).
        K, K_others: (3, 3) and (V, 3, 3) px.
        T_others_own: (V, 4, 4), m.
    """
    q = own.inverse_depth
    height, width = q.shape
    v, u = torch.meshgrid(torch.arange(height, device=q.device), torch.arange(width, device=q.device), indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1).to(q)
    points = (torch.linalg.inv(K).to(q) @ pixels) / q.flatten().clamp_min(1e-6)
    R, t = T_others_own[:, :3, :3].to(q), T_others_own[:, :3, 3:].to(q)
    seen = R @ points + t  # (V, 3, h w)
    x, y, z = (K_others.to(q) @ seen).unbind(dim=1)
    column, row = (x / z).round(), (y / z).round()
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = torch.where(inside, column, 0).long(), torch.where(inside, row, 0).long()
    theirs = others.inverse_depth.flatten(1).gather(1, row * width + column)
    there = torch.stack([column, row, torch.ones_like(row)], dim=1).to(q)
    back = R.mT @ (torch.linalg.inv(K_others).to(q) @ there / theirs[:, None].clamp_min(1e-6) - t)
    difference = 1 / back[:, 2].clamp_min(1e-6) - q.flatten()
    noise = MATCHING_NOISE * own.spacing
    noise_of_both = (noise.square() + (MATCHING_NOISE * others.spacing.to(q)).square()).div(2).sqrt()[:, None]
    agrees = inside & (difference.abs() <= _AGREEMENT * noise_of_both)
    n = agrees.sum(dim=0)
    spread = torch.where(agrees, difference.square(), 0).sum(dim=0)
    mean = q.flatten() + torch.where(agrees, difference, 0).sum(dim=0) / (n + 1)
    variance = (_PRIOR_WEIGHT * noise.square() + spread) / (_PRIOR_WEIGHT + n)
    known = n >= WITNESSES
    return Confirmed(
        torch.where(known, mean, torch.nan).view(height, width), torch.where(known, variance, torch.nan).view(q.shape)
    )


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
