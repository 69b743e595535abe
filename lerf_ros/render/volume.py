"""Volume rendering along rays, one function per symbol (Max 1995; NeRF, Mildenhall et al. 2020, eq. 3).

Shapes: R rays, S samples (intervals) along each. Interval i spans ``t_edges[:, i] .. t_edges[:, i + 1]`` and has
constant density. All shapes are fixed: nothing is dropped, empty intervals weigh nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

_EPSILON = 1e-6  # of opacity; below it a ray has met nothing


def transmittance(sigmas: Tensor, deltas: Tensor) -> Tensor:
    """``T_i = exp(-sum_{j<i} sigma_j delta_j)``: the share of light that reaches interval i.

    Args:
        sigmas: densities, 1/m, (R, S).
        deltas: interval lengths, m, (R, S).

    Returns:
        (R, S), one in the first column.
    """
    return _transmittance(sigmas * deltas)


def weights_from_sigmas(sigmas: Tensor, deltas: Tensor) -> Tensor:
    """``w_i = T_i (1 - exp(-sigma_i delta_i))``: the share of a ray's light that comes from interval i.

    Args:
        sigmas: densities, 1/m, (R, S).
        deltas: interval lengths, m, (R, S).

    Returns:
        (R, S); they sum to the opacity.
    """
    optical_depths = sigmas * deltas
    return _transmittance(optical_depths) * -torch.expm1(-optical_depths)


def accumulate(weights: Tensor, values: Tensor) -> Tensor:
    """``sum_i w_i v_i``: weights (R, S), values (R, S, C) -> (R, C)."""
    return torch.einsum("rs,rsc->rc", weights, values)


def opacity(weights: Tensor) -> Tensor:
    """``O = sum_i w_i = 1 - exp(-sum_i sigma_i delta_i)``: (R, S) -> (R,) in [0, 1]."""
    return weights.sum(dim=-1)


def rendered_colour(weights: Tensor, colours: Tensor) -> Tensor:
    """``sum_i w_i c_i + (1 - O) c_S``: light that passes all samples takes the colour of the last one, since rooms have
    no background.

    Args:
        weights: (R, S).
        colours: (R, S, 3).

    Returns:
        (R, 3).
    """
    return accumulate(weights, colours) + (1 - opacity(weights))[:, None] * colours[:, -1]


def expected_depth(weights: Tensor, t_edges: Tensor) -> Tensor:
    """``sum_i w_i m_i / O`` with interval midpoints m: the mean of where the ray ends, if it ends.

    Floats in front of silhouettes, where the ray ends in two places; :func:`median_depth` does not.

    Args:
        weights: (R, S).
        t_edges: m along the ray, (R, S + 1).

    Returns:
        (R,) m along the ray; 0 where the ray meets nothing.
    """
    midpoints = (t_edges[:, 1:] + t_edges[:, :-1]) * 0.5
    return (weights * midpoints).sum(dim=-1) / opacity(weights).clamp_min(_EPSILON)


def median_depth(weights: Tensor, t_edges: Tensor) -> Tensor:
    """The t at which the accumulated weight reaches half of the ray's total, linear within that interval.

    Args:
        weights: (R, S).
        t_edges: m along the ray, (R, S + 1).

    Returns:
        (R,) m along the ray; the first edge where the ray meets nothing.
    """
    accumulated = weights.cumsum(dim=-1)
    half = accumulated[:, -1:] * 0.5
    index = torch.searchsorted(accumulated, half).clamp_max(weights.shape[-1] - 1)
    weight = weights.gather(1, index)
    before = accumulated.gather(1, index) - weight
    fraction = ((half - before) / weight.clamp_min(torch.finfo(weight.dtype).tiny)).clamp(0.0, 1.0)
    start, end = t_edges.gather(1, index), t_edges.gather(1, index + 1)
    return torch.lerp(start, end, fraction)[:, 0]


def depth_spread(weights: Tensor, t_edges: Tensor) -> Tensor:
    """Standard deviation of where the ray ends, its weight taken as uniform within each interval.

    ``sqrt(sum_i w_i ((m_i - mean)^2 + delta_i^2 / 12) / O)``

    Args:
        weights: (R, S).
        t_edges: m along the ray, (R, S + 1).

    Returns:
        (R,) m; 0 where the ray meets nothing.
    """
    midpoints = (t_edges[:, 1:] + t_edges[:, :-1]) * 0.5
    deltas = t_edges[:, 1:] - t_edges[:, :-1]
    mean = expected_depth(weights, t_edges)[:, None]
    variance = (weights * ((midpoints - mean) ** 2 + deltas**2 / 12.0)).sum(dim=-1) / opacity(weights).clamp_min(
        _EPSILON
    )
    return variance.sqrt()


def _transmittance(optical_depths: Tensor) -> Tensor:
    # Shifted, not subtracted: (sum up to i) - (term i) loses everything behind an opaque interval.
    before = torch.nn.functional.pad(optical_depths[:, :-1].cumsum(dim=-1), (1, 0))
    return torch.exp(-before)
