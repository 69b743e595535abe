"""Loss terms of the map, one function per term. R rays, S samples, D embedding size; all return a scalar."""

from __future__ import annotations

import torch
from torch import Tensor

from lerf_ros.render.resampling import Histogram

_CHARBONNIER_EPSILON = 1e-3
_LEAST_DENSE_VARIANCE = 0.01


def colour_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """Charbonnier loss of mip-NeRF 360, mean of sqrt((rgb - target)^2 + eps^2); rgb, target (R, 3) in [0, 1].

    Nearly L1: specular highlights and small pose errors of a real recording pull less than with squares.
    """
    return torch.sqrt((rgb - target).square() + _CHARBONNIER_EPSILON**2).mean()


def depth_loss(t_expected: Tensor, t_measured: Tensor) -> Tensor:
    """Mean |t_expected - t_measured| / t_measured over the rays with measured depth (NaN: not measured), all (R,) m.

    The division follows the sensors: their error grows with distance.
    """
    measured = torch.isfinite(t_measured)
    t_target = torch.where(measured, t_measured, t_expected.detach().clamp_min(1e-3))
    return ((t_expected - t_target).abs() / t_target).sum() / measured.sum().clamp_min(1)


def sight_loss(weights: Tensor, t_edges: Tensor, t_measured: Tensor, sigma: float) -> Tensor:
    """Line of sight (Urban Radiance Fields, Rematas et al. 2022, eq. 11 to 13): a measured ray ends at its surface.

    Each interval's weight shall be the share of a normal distribution N(t_measured, sigma) that falls into it: none in
    the free space before the surface, all of it around the surface. Behind the surface nothing is asked: what is
    there, the camera cannot know, and the weights sum to at most one. Mean over measured rays of the squared
    differences, summed along the ray.

    Args:
        weights: (R, S).
        t_edges: (R, S + 1) m.
        t_measured: (R,) m, NaN: not measured.
        sigma: m.
    """
    measured = torch.isfinite(t_measured)
    t = torch.where(measured, t_measured, 0.0)[:, None]
    cdf = 0.5 * (1 + torch.erf((t_edges - t) / (sigma * 2**0.5)))
    share = cdf[:, 1:] - cdf[:, :-1]
    before = t_edges[:, :-1] < t + 3 * sigma
    error = torch.where(before & measured[:, None], weights - share, 0.0)
    return error.square().sum() / measured.sum().clamp_min(1)


def distortion_loss(weights: Tensor, t_edges: Tensor, far: float) -> Tensor:
    """mip-NeRF 360's distortion (Barron et al. 2022, eq. 15) of intervals on t / far, mean over rays.

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i with interval centres m and lengths d. The double sum is written as
    prefix sums, since the centres ascend: 2 sum_i w_i (m_i sum_{j<i} w_j - sum_{j<i} w_j m_j).
    """
    s = t_edges / far
    centres, lengths = (s[:, 1:] + s[:, :-1]) / 2, s[:, 1:] - s[:, :-1]
    weighted = weights * centres
    before = weights.cumsum(dim=1) - weights
    weighted_before = weighted.cumsum(dim=1) - weighted
    between = 2 * (weighted * before - weights * weighted_before).sum(dim=1)
    within = (weights.square() * lengths).sum(dim=1) / 3
    return (between + within).mean()


def interlevel_loss(t_edges: Tensor, weights: Tensor, histogram: Histogram) -> Tensor:
    """mip-NeRF 360's proposal loss (Barron et al. 2022, eq. 13): a proposal shall bound the field from above.

    sum_i max(0, w_i - bound_i)^2 / w_i, mean over rays, where bound_i sums the proposal's weights of all its bins that
    overlap interval i. The field is a constant here, so only the proposal learns; too much weight costs it nothing in
    this term, but its weights sum to at most one.

    Args:
        t_edges: (R, S + 1) m.
        weights: (R, S).
        histogram: of the same rays; its edges span the same stretch.
    """
    w, t = weights.detach(), t_edges.detach()
    bins = histogram.weights.shape[1]
    cdf = torch.nn.functional.pad(histogram.weights.cumsum(dim=1), (1, 0))
    edges = histogram.t_edges.contiguous()
    first = (torch.searchsorted(edges, t[:, :-1].contiguous(), right=True) - 1).clamp(0, bins - 1)
    last = torch.searchsorted(edges, t[:, 1:].contiguous()).clamp(1, bins)
    bound = cdf.gather(1, last) - cdf.gather(1, first)
    return ((w - bound).clamp_min(0).square() / (w + 1e-7)).sum(dim=1).mean()


def language_loss(embeds: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cos over the rays with a target; embeds, targets (R, D) unit, a target of zeros: none.

    LERF's code sums a Huber loss of threshold 1.25 over D on unit vectors, which is |e - e'|^2 / 2 = 1 - cos.
    """
    supervised = targets.any(dim=-1)
    cosines = (embeds * targets).sum(dim=-1)
    return torch.where(supervised, 1 - cosines, 0.0).sum() / supervised.sum().clamp_min(1)


def dino_loss(features: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Share of the targets' variance that is not explained: sum |f - f'|^2 / sum |f' - mean f'|^2 over known rays.

    1 for features that are everywhere the mean, 0 for perfect ones, whatever their number of dimensions, length and
    common offset; LERF's code sums squares over 384 dimensions, which dwarfs its language loss. Rays that all see much
    the same (a bare wall) say little: their variance counts as at least 1 % of unit features' squared length.

    Args:
        features: (R, D).
        targets: (R, D), of about unit length.
        known: (R,) bool, rays with a target.
    """
    count = known.sum().clamp_min(1)
    weights = known[:, None].float()
    mean = (targets * weights).sum(dim=0) / count
    spread = ((targets - mean).square() * weights).sum()
    error = ((features - targets).square() * weights).sum()
    return error / spread.maximum(_LEAST_DENSE_VARIANCE * count)
