"""CUDA backend of points on rays: the contraction in registers, one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.render.rays import Rays

_POINTS = 256  # per program


@triton.jit
def unit_on_ray(origins, directions, ray, t, radius, mask):
    """`Rays.x_unit` at distances t on rays `ray`, two shapes that broadcast: x, y, z in [0, 1]."""
    x = tl.load(origins + 3 * ray, mask=mask) + t * (tl.load(directions + 3 * ray, mask=mask) / radius)
    y = tl.load(origins + 3 * ray + 1, mask=mask) + t * (tl.load(directions + 3 * ray + 1, mask=mask) / radius)
    z = tl.load(origins + 3 * ray + 2, mask=mask) + t * (tl.load(directions + 3 * ray + 2, mask=mask) / radius)
    r = 1.0 / tl.maximum(tl.sqrt(x * x + y * y + z * z), 1.0)
    scale = r * (2.0 - r)
    return x * scale * 0.25 + 0.5, y * scale * 0.25 + 0.5, z * scale * 0.25 + 0.5


@triton.jit(do_not_specialize=["count"])
def _x_unit_of_intervals(
    origins, directions, t_edges, x_unit, count, radius, SAMPLES: tl.constexpr, POINTS: tl.constexpr
):
    """origins, directions (R, 3), t_edges (R, S + 1) -> x_unit (R, S, 3), for a block of the count = R S points."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    ray = point // SAMPLES
    start = tl.load(t_edges + point + ray, mask=inside)  # a row has one edge more than points
    end = tl.load(t_edges + point + ray + 1, mask=inside)
    x, y, z = unit_on_ray(origins, directions, ray, (end + start) * 0.5, radius, inside)
    tl.store(x_unit + 3 * point, x, mask=inside)
    tl.store(x_unit + 3 * point + 1, y, mask=inside)
    tl.store(x_unit + 3 * point + 2, z, mask=inside)


def x_unit_of_intervals_triton(rays: Rays, t_edges: Tensor) -> Tensor:
    """As `Rays.x_unit_of_intervals`, on a CUDA GPU."""
    t_edges = t_edges.detach().contiguous()
    count, samples = len(t_edges), t_edges.shape[1] - 1
    x_unit = torch.empty(count, samples, 3, device=t_edges.device)
    if count:
        tensors = rays.origins.detach().contiguous(), rays.directions.detach().contiguous(), t_edges, x_unit
        with torch.cuda.device_of(t_edges):
            programs = (triton.cdiv(count * samples, _POINTS),)
            _x_unit_of_intervals[programs](*tensors, count * samples, rays.radius, SAMPLES=samples, POINTS=_POINTS)
    return x_unit
