"""What the samples along rays add up to in training: colour, and per ray how they differ from what was measured.

The torch code here is the reference; where our kernels run, `composite` does the same in one launch each way.
Shapes as in `volume`: R rays, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels
from lerf_ros.render.volume import expected_depth, rendered_colour, weights_from_sigmas


@dataclass(frozen=True)
class Composite:
    """R rays of S samples, differentiable in densities and colours unless said otherwise.

    Attributes:
        weights: (R, S), detached.
        rgb: (R, 3), see `volume.rendered_colour`.
        depth: (R,), see `depth_error`.
        sight: (R,), see `sight_error`.
        distortion: (R,), see `distortion`.
    """

    weights: Tensor
    rgb: Tensor
    depth: Tensor
    sight: Tensor
    distortion: Tensor


def composite(
    sigmas: Tensor, colours: Tensor, t_edges: Tensor, t_measured: Tensor, t_sigma: Tensor, far: float
) -> Composite:
    """Composites the samples of rays and compares them with the rays' measured depth.

    Args:
        sigmas: densities, 1/m, (R, S).
        colours: (R, S, 3).
        t_edges: m along the ray, (R, S + 1), without gradient.
        t_measured: m along the ray, (R,); NaN: not measured.
        t_sigma: m, (R,), standard deviation of t_measured, see `sight_error`.
        far: m, of `distortion`.
    """
    if not runs_kernels(sigmas.device):
        return composite_torch(sigmas, colours, t_edges, t_measured, t_sigma, far)
    from lerf_ros.render.composite_triton import composite_triton  # not everywhere installed

    return composite_triton(sigmas, colours, t_edges, t_measured, t_sigma, far)


def composite_torch(
    sigmas: Tensor, colours: Tensor, t_edges: Tensor, t_measured: Tensor, t_sigma: Tensor, far: float
) -> Composite:
    """As `composite`, on any device."""
    weights = weights_from_sigmas(sigmas, t_edges[:, 1:] - t_edges[:, :-1])
    return Composite(
        weights.detach(),
        rendered_colour(weights, colours),
        depth_error(expected_depth(weights, t_edges), t_measured),
        sight_error(weights, t_edges, t_measured, t_sigma),
        distortion(weights, t_edges, far),
    )


def is_measured(t_measured: Tensor) -> Tensor:
    """Whether a distance is known: bool, of the same shape. Neither NaN nor infinity is."""
    return t_measured < torch.inf


def depth_error(t_expected: Tensor, t_measured: Tensor) -> Tensor:
    """``|t_expected - t_measured| / t_measured``; 0 where not measured, all (R,), m.

    The division follows the sensors: their error grows with distance.
    """
    measured = is_measured(t_measured)
    t_target = torch.where(measured, t_measured, 1.0)  # not NaN, which would reach the gradient
    return torch.where(measured, (t_expected - t_target).abs() / t_target, 0.0)


def sight_error(weights: Tensor, t_edges: Tensor, t_measured: Tensor, t_sigma: Tensor) -> Tensor:
    """Line of sight (Urban Radiance Fields, Rematas et al. 2022, eq. 11 to 13): a measured ray ends at its surface.

    Each interval's weight shall be the fraction of a normal distribution N(t_measured, t_sigma) that falls into it:
    none in the free space before the surface, all of it around the surface. Behind the surface nothing is asked: what
    is there, the camera cannot know, and the weights sum to at most one.

    Args:
        weights: (R, S).
        t_edges: (R, S + 1) m.
        t_measured: (R,) m, NaN: not measured.
        t_sigma: (R,) m.

    Returns:
        (R,), squared differences summed along the ray; 0 where not measured.
    """
    measured = is_measured(t_measured)[:, None]
    t, sigma = torch.where(measured, t_measured[:, None], 0.0), t_sigma[:, None]
    cdf = 0.5 * (1 + torch.erf((t_edges - t) / (sigma * 2**0.5)))
    share = cdf[:, 1:] - cdf[:, :-1]
    before = t_edges[:, :-1] < t + 3 * sigma
    return torch.where(before & measured, weights - share, 0.0).square().sum(dim=1)


def distortion(weights: Tensor, t_edges: Tensor, far: float) -> Tensor:
    """mip-NeRF 360's distortion (Barron et al. 2022, eq. 15) of intervals on t / far.

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i with interval centres m and lengths d. The double sum is written as
    prefix sums, since the centres ascend: 2 sum_i w_i (m_i sum_{j<i} w_j - sum_{j<i} w_j m_j).

    Args:
        weights: (R, S).
        t_edges: (R, S + 1) m.
        far: m.

    Returns:
        (R,).
    """
    s = t_edges / far
    centres, lengths = (s[:, 1:] + s[:, :-1]) / 2, s[:, 1:] - s[:, :-1]
    weighted = weights * centres
    before = weights.cumsum(dim=1) - weights
    weighted_before = weighted.cumsum(dim=1) - weighted
    between = 2 * (weighted * before - weights * weighted_before).sum(dim=1)
    within = (weights.square() * lengths).sum(dim=1) / 3
    return between + within
