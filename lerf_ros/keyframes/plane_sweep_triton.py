"""CUDA backend of the plane sweep, a few planes at a time: sources are warped, then correlated with the reference.

What is warped stays in the GPU's cache: each window costs as many reads as it has pixels, but no projections.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_SOURCES = 8  # twice as many as a program keeps costs of
_PLANES = 16  # at a time; they lie next to each other in memory
_PIXELS = 8  # per program


@triton.jit
def _bilinear(image, x, y, inside, height, width):
    """Values of an image (H, W) at (x, y), both in range where `inside`."""
    column, row = tl.minimum(x.to(tl.int32), width - 2), tl.minimum(y.to(tl.int32), height - 2)
    a, b = x - column, y - row
    address = image + row * width + column
    top = tl.load(address, mask=inside, other=0.0) * (1 - a) + tl.load(address + 1, mask=inside, other=0.0) * a
    address += width
    bottom = tl.load(address, mask=inside, other=0.0) * (1 - a) + tl.load(address + 1, mask=inside, other=0.0) * a
    return top * (1 - b) + bottom * b


@triton.jit(do_not_specialize=["first_plane", "height", "width"])
def _warp(
    sources,
    projections,
    inverse_depths,
    warped,
    first_plane,
    height,
    width,
    D: tl.constexpr,
    PIXELS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """sources (V, H, W), projections (V, 3, 4), inverse_depths (D,) -> warped (V, H, W, PLANES), what the sources show
    of planes from first_plane on; NaN outside of them."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    plane = first_plane + tl.arange(0, PLANES)[None, :]
    view = tl.program_id(1)
    P = projections + 12 * view
    u, v = pixel % width, pixel // width
    q = tl.load(inverse_depths + plane, mask=plane < D, other=0.0)
    z = tl.load(P + 8) * u + tl.load(P + 9) * v + (tl.load(P + 10) + tl.load(P + 11) * q)
    x = (tl.load(P) * u + tl.load(P + 1) * v + (tl.load(P + 2) + tl.load(P + 3) * q)) / z
    y = (tl.load(P + 4) * u + tl.load(P + 5) * v + (tl.load(P + 6) + tl.load(P + 7) * q)) / z
    exists = pixel < height * width
    inside = exists & (z > 0) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    values = _bilinear(sources + view * height * width, x, y, inside, height, width)
    address = (view * height * width + pixel) * PLANES + tl.arange(0, PLANES)[None, :]
    tl.store(warped + address, tl.where(inside, values, float("nan")), mask=exists)


@triton.jit(do_not_specialize=["views", "first_plane", "height", "width"])
def _correlate(
    reference,
    warped,
    out,
    views,
    first_plane,
    height,
    width,
    noise_variance,
    no_evidence,
    D: tl.constexpr,
    PATCH: tl.constexpr,
    PIXELS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """reference (H, W), warped (V, H, W, PLANES) -> out (H, W, D), for planes from first_plane on."""
    HALF: tl.constexpr = PATCH // 2
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    plane = tl.arange(0, PLANES)[None, :]
    u, v = pixel % width, pixel // width
    exists = pixel < height * width
    known = tl.zeros([PIXELS, PLANES], tl.float32)  # how many sources show a pixel
    c0 = known + float("inf")  # the lowest costs, in order
    c1, c2, c3 = c0, c0, c0
    for view in range(views):
        of_view = warped + view * height * width * PLANES + plane
        count = tl.zeros([PIXELS, 1], tl.float32)
        sum_r, sum_rr = count, count
        sum_s = tl.zeros([PIXELS, PLANES], tl.float32)
        sum_ss, sum_rs = sum_s, sum_s
        for dv in tl.static_range(-HALF, HALF + 1):
            for du in tl.static_range(-HALF, HALF + 1):
                inside = exists & (u + du >= 0) & (u + du < width) & (v + dv >= 0) & (v + dv < height)
                at = pixel + dv * width + du
                r = tl.load(reference + at, mask=inside, other=0.0)
                s = tl.load(of_view + at * PLANES, mask=inside, other=0.0)
                s = tl.where(s == s, s, r)
                count += inside.to(tl.float32)
                sum_r += r
                sum_rr += r * r
                sum_s += s
                sum_ss += s * s
                sum_rs += r * s
        mean_r, mean_s = sum_r / count, sum_s / count
        variance_r = tl.maximum(sum_rr / count - mean_r * mean_r, 0.0) + noise_variance
        variance_s = tl.maximum(sum_ss / count - mean_s * mean_s, 0.0) + noise_variance
        rho = (sum_rs / count - mean_r * mean_s) / tl.sqrt(variance_r * variance_s)
        own = tl.load(of_view + pixel * PLANES, mask=exists, other=0.0)
        cost = tl.where(own == own, 1.0 - tl.minimum(tl.maximum(rho, -1.0), 1.0), float("inf"))
        known += tl.where(own == own, 1.0, 0.0)
        c0, cost = tl.minimum(c0, cost), tl.maximum(c0, cost)
        c1, cost = tl.minimum(c1, cost), tl.maximum(c1, cost)
        c2, cost = tl.minimum(c2, cost), tl.maximum(c2, cost)
        c3 = tl.minimum(c3, cost)
    total = c0 + tl.where(known > 2, c1, 0.0) + tl.where(known > 4, c2, 0.0) + tl.where(known > 6, c3, 0.0)
    mean = tl.where(known > 0, total / tl.maximum(tl.ceil(known / 2), 1.0), no_evidence)
    tl.store(out + pixel * D + first_plane + plane, mean, mask=exists & (first_plane + plane < D))


def plane_sweep_triton(
    reference: Tensor,
    sources: Tensor,
    projections: Tensor,
    inverse_depths: Tensor,
    patch: int,
    noise_variance: float,
    no_evidence: float,
) -> Tensor:
    """As `plane_sweep.plane_sweep_torch`, on a CUDA GPU, for up to `MOST_SOURCES` views."""
    (height, width), views, D = reference.shape, len(sources), len(inverse_depths)
    inputs = (each.float().contiguous() for each in (reference, sources, projections, inverse_depths))
    reference, sources, projections, inverse_depths = inputs
    out = torch.empty(height, width, D, device=reference.device)
    warped = torch.empty(views, height, width, _PLANES, device=reference.device)
    programs, sizes = triton.cdiv(height * width, _PIXELS), {"D": D, "PIXELS": _PIXELS, "PLANES": _PLANES}
    with torch.cuda.device_of(out):
        for first in range(0, D, _PLANES):
            _warp[(programs, views)](
                sources, projections, inverse_depths, warped, first, height, width, **sizes, enable_fp_fusion=True
            )
            _correlate[(programs,)](
                reference,
                warped,
                out,
                views,
                first,
                height,
                width,
                noise_variance,
                no_evidence,
                PATCH=patch,
                **sizes,
                enable_fp_fusion=True,
            )
    return out
