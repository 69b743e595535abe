"""CUDA backend of compositing: one program per ray, one launch forward and one backward.

A ray's samples stay in the registers of one warp. The backward pass reads what the forward pass read and works the
weights out once more, which costs less than to store and load them. Launches depend on shapes only and never
synchronise, so after a first call, which compiles, they can be captured in a CUDA graph.

The backward pass, with optical depths tau_i = sigma_i delta_i, w_i = T_i (1 - exp(-tau_i)) and g_i = dL/dw_i:

    dL/dtau_i = T_i exp(-tau_i) g_i - sum_{j>i} w_j g_j
    dL/dw_i   = dL/drgb . (c_i - c_last)                                 the light that passes has the last colour
              + dL/ddepth sign(t - t_measured) / t_measured (m_i - t) / O
              + dL/dsight 2 (w_i - share_i)
              + dL/ddistortion 2 (sum_j w_j |m_i - m_j| + w_i d_i / 3)
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from lerf_ros.render.composite import Composite

_EPSILON = tl.constexpr(1e-6)  # of opacity, as in `volume`
_SERIES_BELOW, _TERMS = tl.constexpr(0.5), tl.constexpr(9)  # the terms left out are less than float32 resolves
_WARP = 32


@triton.jit
def _join(before, through, next_before, next_through):
    """Sums of two neighbouring runs, without and with their last term -> those of both runs."""
    return through + next_before, through + next_through


@triton.jit
def sum_before(x):
    """``sum_{j<i} x_j``. Not (sum up to i) - x_i, which loses everything behind an opaque interval."""
    before, _ = tl.associative_scan((tl.zeros_like(x), x), 0, _join)
    return before


@triton.jit
def _sum_behind(x):
    """``sum_{j>i} x_j``, as `_sum_before`."""
    behind, _ = tl.associative_scan((tl.zeros_like(x), x), 0, _join, reverse=True)
    return behind


@triton.jit
def absorbed(x):
    """``1 - exp(-x)`` for x >= 0, as exact near zero as elsewhere: Triton has no expm1."""
    small = tl.minimum(x, _SERIES_BELOW)
    series = tl.zeros_like(x) + 1.0
    for n in tl.static_range(_TERMS):
        series = 1.0 - small * (1.0 / (_TERMS + 1 - n)) * series
    return tl.where(x < _SERIES_BELOW, small * series, 1.0 - tl.exp(-x))


@triton.jit
def intervals(sigmas, t_edges, ray, sample, SAMPLES: tl.constexpr):
    """Densities, starts and ends of a ray's intervals; those beyond the last are empty."""
    inside = sample < SAMPLES
    sigma = tl.load(sigmas + ray * SAMPLES + sample, mask=inside, other=0.0).to(tl.float32)
    edge = t_edges + ray * (SAMPLES + 1) + sample
    return sigma, tl.load(edge, mask=inside, other=0.0), tl.load(edge + 1, mask=inside, other=0.0)


@triton.jit
def expected_depth(weights, middles):
    """Opacity, kept from zero, and expected depth."""
    opacity = tl.maximum(tl.sum(weights), _EPSILON)
    return opacity, tl.sum(weights * middles) / opacity


@triton.jit
def _sight_difference(weights, start, end, t, known, t_sigma):
    """``w_i - share_i`` up to the surface at t; 0 behind it and where t is not known."""
    t = tl.where(known, t, float("-inf"))  # all is behind such a surface
    scale = 0.7071067811865476 / t_sigma
    share = 0.5 * (tl.erf((end - t) * scale) - tl.erf((start - t) * scale))
    return tl.where(start < t + 3.0 * t_sigma, weights - share, 0.0)


@triton.jit
def _spread(weights, start, end, far):
    """``sum_j w_j |m_i - m_j| + w_i d_i / 3`` on t / far: w times it is the distortion, twice it the gradient."""
    middle, length = 0.5 * (start + end) / far, (end - start) / far
    weighted = weights * middle
    beside = middle * (2.0 * tl.cumsum(weights, 0) - tl.sum(weights))
    weighted_beside = 2.0 * tl.cumsum(weighted, 0) - tl.sum(weighted)
    return beside - weighted_beside + weights * length / 3.0


@triton.jit
def _forward(
    sigmas,
    colours,
    t_edges,
    t_measured,
    t_sigmas,
    weights_out,
    rgb,
    depth,
    sight,
    distortion,
    far,
    SAMPLES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """sigmas (R, S), colours (R, S, 3), t_edges (R, S + 1), t_measured and t_sigmas (R,) -> the fields of
    `Composite`, for a ray."""
    ray, sample = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    inside, last = sample < SAMPLES, ray * SAMPLES + SAMPLES - 1
    sigma, start, end = intervals(sigmas, t_edges, ray, sample, SAMPLES)
    optical_depth = sigma * (end - start)
    weights = tl.exp(-sum_before(optical_depth)) * absorbed(optical_depth)
    tl.store(weights_out + ray * SAMPLES + sample, weights, mask=inside)

    passed = tl.exp(-tl.sum(optical_depth))
    for channel in tl.static_range(3):
        address = colours + 3 * (ray * SAMPLES + sample) + channel
        colour = tl.load(address, mask=inside, other=0.0).to(tl.float32)
        behind = tl.load(colours + 3 * last + channel).to(tl.float32)
        tl.store(rgb + 3 * ray + channel, tl.sum(weights * colour) + passed * behind)

    t = tl.load(t_measured + ray)
    known = t < float("inf")  # NaN is not
    _, t_expected = expected_depth(weights, 0.5 * (start + end))
    tl.store(depth + ray, tl.where(known, tl.abs(t_expected - t) / t, 0.0))
    difference = _sight_difference(weights, start, end, t, known, tl.load(t_sigmas + ray))
    tl.store(sight + ray, tl.sum(difference * difference))
    tl.store(distortion + ray, tl.sum(weights * _spread(weights, start, end, far)))


@triton.jit
def _backward(
    sigmas,
    colours,
    t_edges,
    t_measured,
    t_sigmas,
    grad_rgb,
    grad_depth,
    grad_sight,
    grad_distortion,
    grad_sigmas,
    grad_colours,
    depth_stride,
    sight_stride,
    distortion_stride,
    far,
    SAMPLES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gradients of the outputs, or None -> grad_sigmas (R, S) and, with grad_rgb, grad_colours (R, S, 3), for a ray."""
    ray, sample = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    inside, last = sample < SAMPLES, ray * SAMPLES + SAMPLES - 1
    sigma, start, end = intervals(sigmas, t_edges, ray, sample, SAMPLES)
    optical_depth = sigma * (end - start)
    arriving = tl.exp(-sum_before(optical_depth))
    weights = arriving * absorbed(optical_depth)

    grad = tl.zeros_like(weights)  # of the weights
    if grad_rgb is not None:
        passed = tl.where(sample == SAMPLES - 1, tl.exp(-tl.sum(optical_depth)), 0.0)
        for channel in tl.static_range(3):
            address = 3 * (ray * SAMPLES + sample) + channel
            colour = tl.load(colours + address, mask=inside, other=0.0).to(tl.float32)
            behind = tl.load(colours + 3 * last + channel).to(tl.float32)
            grad_channel = tl.load(grad_rgb + 3 * ray + channel)
            grad += grad_channel * (colour - behind)
            grad_colour = grad_channel * (weights + passed)
            tl.store(grad_colours + address, grad_colour.to(grad_colours.dtype.element_ty), mask=inside)

    t = tl.load(t_measured + ray)
    known = t < float("inf")
    if grad_depth is not None:
        middles = 0.5 * (start + end)
        opacity, t_expected = expected_depth(weights, middles)
        sign = tl.where(t_expected > t, 1.0, 0.0) - tl.where(t_expected < t, 1.0, 0.0)
        grad_expected = tl.where(known, tl.load(grad_depth + ray * depth_stride) * sign / t, 0.0)
        moved = tl.where(opacity > _EPSILON, t_expected, 0.0)  # where the ray meets nothing, opacity is held
        grad += grad_expected * (middles - moved) / opacity
    if grad_sight is not None:
        difference = _sight_difference(weights, start, end, t, known, tl.load(t_sigmas + ray))
        grad += 2.0 * tl.load(grad_sight + ray * sight_stride) * difference
    if grad_distortion is not None:
        spread = _spread(weights, start, end, far)
        grad += 2.0 * tl.load(grad_distortion + ray * distortion_stride) * spread

    leaving = arriving * tl.exp(-optical_depth)
    grad_sigma = (end - start) * (leaving * grad - _sum_behind(weights * grad))
    address = grad_sigmas + ray * SAMPLES + sample
    tl.store(address, grad_sigma.to(grad_sigmas.dtype.element_ty), mask=inside)


def composite_triton(
    sigmas: Tensor, colours: Tensor, t_edges: Tensor, t_measured: Tensor, t_sigma: Tensor, far: float
) -> Composite:
    """As `composite.composite_torch`, on a CUDA GPU; computed in float32, which all results are.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    rays, samples = sigmas.shape
    shapes = colours.shape, t_edges.shape, t_measured.shape, t_sigma.shape
    if shapes != ((rays, samples, 3), (rays, samples + 1), (rays,), (rays,)):
        raise ValueError(f"colours, edges and distances {shapes} do not fit densities {tuple(sigmas.shape)}")
    of_rays = (each.float().contiguous() for each in (t_edges, t_measured, t_sigma))
    return Composite(*_Composite.apply(sigmas.contiguous(), colours.contiguous(), *of_rays, far))


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sigmas: Tensor,
        colours: Tensor,
        t_edges: Tensor,
        t_measured: Tensor,
        t_sigma: Tensor,
        far: float,
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(sigmas, colours, t_edges, t_measured, t_sigma)
        ctx.far = far
        rays, samples = sigmas.shape
        weights, rgb, *errors = (
            torch.empty(rays, *shape, device=sigmas.device) for shape in ((samples,), (3,), (), (), ())
        )
        ctx.mark_non_differentiable(weights)
        ctx.set_materialize_grads(False)
        inputs = sigmas, colours, t_edges, t_measured, t_sigma
        with torch.cuda.device_of(sigmas):
            if rays:
                _forward[(rays,)](*inputs, weights, rgb, *errors, far, **_options(samples))
        return weights, rgb, *errors

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, _: None, grad_rgb: Tensor | None, *grad_errors: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        sigmas, colours, *_ = ctx.saved_tensors
        grad_sigmas = torch.empty_like(sigmas)
        grad_colours = None
        if grad_rgb is not None:
            grad_rgb, grad_colours = grad_rgb.contiguous(), torch.empty_like(colours)
        strides = (0 if grad is None else grad.stride(0) for grad in grad_errors)  # of a mean: one number, expanded
        gradients = grad_rgb, *grad_errors, grad_sigmas, grad_colours
        with torch.cuda.device_of(sigmas):
            if len(sigmas):
                _backward[(len(sigmas),)](
                    *ctx.saved_tensors, *gradients, *strides, ctx.far, **_options(sigmas.shape[1])
                )
        return grad_sigmas, grad_colours, None, None, None, None


def _options(samples: int) -> dict[str, Any]:
    """What the kernels are compiled for."""
    sizes = {"SAMPLES": samples, "COLUMNS": max(_WARP, triton.next_power_of_2(samples))}
    return {**sizes, "num_warps": 1, "enable_fp_fusion": True}
