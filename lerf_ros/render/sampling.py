"""Where rays are sampled. Every sampler returns interval edges that tile a stretch of each ray, in fixed shapes.

``t_edges`` (R, S + 1) are metres along the ray, ascending; interval i is represented by one field sample
(:func:`midpoints`). Nothing here is differentiated. With ``jitter`` the inner edges move at random (training), without
it they are deterministic (rendering).

What draws no random numbers itself takes ``noise``, uniform in [0, 1), one column per edge (the first and the last do
not move), or None for no jitter: with the same noise, a GPU's fused kernels and torch give the same edges.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels

FLOOR = 0.01  # share of a ray's weight that importance sampling spreads evenly over the bins
EMPTY = 1e-5  # weight that it adds to all bins together: rays without any are sampled evenly


def midpoints(t_edges: Tensor) -> Tensor:
    """(R, S + 1) edges -> (R, S) interval midpoints."""
    return (t_edges[..., 1:] + t_edges[..., :-1]) * 0.5


def spaced_edges(near: float, far: float, bins: int, knee: float, device: torch.device | str = "cpu") -> Tensor:
    """Edges evenly spaced in t up to ``knee`` and in disparity beyond: uniform in the one-dimensional contraction

    ``s(t) = t / knee`` for t <= knee, ``2 - knee / t`` beyond (mip-NeRF 360, eq. 10 and 11).

    Args:
        near, far: m, the first and last edge.
        knee: m, usually the scene radius.

    Returns:
        (bins + 1,) m.

    Raises:
        ValueError: not 0 <= near < far, or no bins.
    """
    if not 0.0 <= near < far or bins < 1 or not knee > 0.0:
        raise ValueError(f"need 0 <= near < far, knee > 0 and at least one bin, got {near=} {far=} {knee=} {bins=}")
    s_near, s_far = (t / knee if t <= knee else 2.0 - knee / t for t in (near, far))
    s = torch.linspace(s_near, s_far, bins + 1, device=device)
    t_edges = torch.where(s <= 1.0, s * knee, knee / (2.0 - s))
    t_edges[0].fill_(near)  # assigning a number would wait for a GPU
    t_edges[-1].fill_(far)
    return t_edges


@cache
def kept_spaced_edges(near: float, far: float, bins: int, knee: float, device: torch.device) -> Tensor:
    """As :func:`spaced_edges`, computed once per process, for what needs them in every step. Only to be read."""
    return spaced_edges(near, far, bins, knee, device)  # kept for ever: captured graphs go on reading it


@torch.no_grad()
def stratified_edges(t_edges: Tensor, rays: int, jitter: bool = True) -> Tensor:
    """Stratified sampling: (B + 1,) common edges -> (rays, B + 1), inner edges moved within their neighbourhoods.

    Edge i is drawn uniformly between the midpoints of its two bins, so order is kept and the ends stay.
    """
    return moved_edges(t_edges, rays, draw_noise(rays, len(t_edges), jitter, t_edges.device))


def draw_noise(rays: int, columns: int, jitter: bool, device: torch.device) -> Tensor | None:
    """(rays, columns) uniform in [0, 1), or None without jitter."""
    return torch.rand(rays, columns, device=device) if jitter else None


def moved_edges(t_edges: Tensor, rays: int, noise: Tensor | None) -> Tensor:
    """:func:`stratified_edges` with noise (rays, B + 1)."""
    if noise is None:
        return t_edges.expand(rays, -1)
    middle = midpoints(t_edges)
    lower = torch.cat([t_edges[:1], middle[:-1], t_edges[-1:]])
    upper = torch.cat([t_edges[:1], middle[1:], t_edges[-1:]])
    return torch.lerp(lower.expand_as(noise), upper.expand_as(noise), noise)


@torch.no_grad()
def importance_edges(
    t_edges: Tensor, weights: Tensor, samples: int, jitter: bool = True, floor: float = FLOOR
) -> Tensor:
    """Inverse-CDF sampling (NeRF, sec. 5.2) of a piecewise constant density: equal shares of weight per new interval.

    Args:
        t_edges: bin edges, m, (R, B + 1).
        weights: non-negative, (R, B); rays without any weight are sampled evenly over the bins.
        samples: S, new intervals per ray.
        floor: extra weight spread evenly over the bins, as a share of the ray's own, so that every bin is looked at.

    Returns:
        (R, S + 1) m, from the first to the last bin edge.
    """
    noise = draw_noise(len(weights), samples + 1, jitter, weights.device)
    return importance_edges_from_noise(t_edges, weights, samples, noise, floor)


def importance_edges_from_noise(
    t_edges: Tensor, weights: Tensor, samples: int, noise: Tensor | None, floor: float = FLOOR
) -> Tensor:
    """:func:`importance_edges` with noise (R, S + 1)."""
    rays, bins = weights.shape
    weights = weights + (floor * weights.sum(dim=-1, keepdim=True) + EMPTY) / bins
    cdf = torch.nn.functional.pad(weights.cumsum(dim=-1), (1, 0))
    cdf = cdf / cdf[:, -1:]
    u = _unit_edges(rays, samples, noise, weights.device).contiguous()
    upper = torch.searchsorted(cdf, u, right=True).clamp(1, bins)
    cdf_lower, cdf_upper = cdf.gather(1, upper - 1), cdf.gather(1, upper)
    fraction = ((u - cdf_lower) / (cdf_upper - cdf_lower)).clamp(0.0, 1.0)
    return torch.lerp(t_edges.gather(1, upper - 1), t_edges.gather(1, upper), fraction)


@torch.no_grad()
def depth_guided_edges(
    t_edges: Tensor, t_surface: Tensor, half_width: Tensor, near: float, surface_samples: int, jitter: bool = True
) -> Tensor:
    """Samples around a measured surface and in the free space before it.

    Where the depth is known, ``surface_samples`` intervals tile ``t_surface +- half_width`` and the others tile
    ``near .. t_surface - half_width``. Where it is NaN the given edges are kept: same shape, no branch.

    Args:
        t_edges: what rays without depth use, m, (R, S + 1), or (S + 1,) common to them, which jitter then moves too.
        t_surface: measured distance along the ray (not z), m, NaN where unknown, (R,).
        half_width: of the band around the surface, m, (R,) or a scalar tensor.
        near: m, where sampling begins.
        surface_samples: of the S intervals; between 1 and S - 1.

    Returns:
        (R, S + 1) m.

    Raises:
        ValueError: surface_samples out of range.
    """
    samples = t_edges.shape[-1] - 1
    if not 1 <= surface_samples < samples:
        raise ValueError(f"surface_samples must be between 1 and {samples - 1}, got {surface_samples}")
    noise = draw_noise(len(t_surface), samples + 1, jitter, t_edges.device)
    guided_edges = _guided_edges_triton if runs_kernels(t_edges.device) else guided_edges_torch
    return guided_edges(t_edges, t_surface, half_width, near, surface_samples, noise)


def guided_edges_torch(
    t_edges: Tensor, t_surface: Tensor, half_width: Tensor, near: float, surface_samples: int, noise: Tensor | None
) -> Tensor:
    """Reference backend of :func:`depth_guided_edges`, with noise (R, S + 1).

    A ray moves either its guided edges or the common ones, so the same noise does for both.
    """
    rays, before = len(t_surface), t_edges.shape[-1] - 1 - surface_samples
    if t_edges.dim() == 1:
        t_edges = moved_edges(t_edges, rays, noise)
    band_start = (t_surface - half_width).clamp_min(near)[:, None]
    band_end = (t_surface + half_width).clamp_min(near)[:, None]
    # The two share a column of noise, that of the edge where they meet, which does not move.
    free = _unit_edges(rays, before, None if noise is None else noise[:, : before + 1], t_edges.device)
    band = _unit_edges(rays, surface_samples, None if noise is None else noise[:, before:], t_edges.device)
    guided = torch.cat([near + (band_start - near) * free[:, :-1], band_start + (band_end - band_start) * band], dim=1)
    return torch.where(t_surface[:, None].isnan(), t_edges, guided)


def _guided_edges_triton(
    t_edges: Tensor, t_surface: Tensor, half_width: Tensor, near: float, surface_samples: int, noise: Tensor | None
) -> Tensor:
    from lerf_ros.render.sampling_triton import guided_edges_triton  # where Triton is installed

    return guided_edges_triton(t_edges, t_surface, half_width, near, surface_samples, noise)


def _unit_edges(rays: int, samples: int, noise: Tensor | None, device: torch.device) -> Tensor:
    """(rays, samples + 1) ascending from 0 to 1, the inner ones within half an interval of the even spacing."""
    return moved_edges(torch.linspace(0.0, 1.0, samples + 1, device=device), rays, noise)
