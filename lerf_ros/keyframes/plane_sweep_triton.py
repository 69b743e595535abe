"""CUDA backend of the plane sweep: costs of each source view, then their mean over the better half."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _PLANES = 8, 32  # per program; planes lie next to each other in memory
_BAND_BYTES = 2**26  # of the costs that are kept at a time


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


@triton.jit(do_not_specialize=["first_row", "rows", "height", "width"])
def _match(
    reference,
    sources,
    projections,
    inverse_depths,
    costs,
    first_row,
    rows,
    height,
    width,
    noise_variance,
    D: tl.constexpr,
    PATCH: tl.constexpr,
    PIXELS: tl.constexpr,
    PLANES: tl.constexpr,
):
    """reference (H, W), sources (V, H, W), projections (V, 3, 4), inverse_depths (D,) -> costs (V, rows W, D), NaN
    where a source does not show a pixel, of rows from first_row on."""
    HALF: tl.constexpr = PATCH // 2
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)[:, None]
    plane = tl.program_id(1) * PLANES + tl.arange(0, PLANES)[None, :]
    view = tl.program_id(2)
    source, P = sources + view * height * width, projections + 12 * view
    u, v = pixel % width, first_row + pixel // width
    q = tl.load(inverse_depths + plane, mask=plane < D, other=0.0)
    p0, p1, p2, p3 = tl.load(P), tl.load(P + 1), tl.load(P + 2), tl.load(P + 3)
    p4, p5, p6, p7 = tl.load(P + 4), tl.load(P + 5), tl.load(P + 6), tl.load(P + 7)
    p8, p9, p10, p11 = tl.load(P + 8), tl.load(P + 9), tl.load(P + 10), tl.load(P + 11)
    exists = (pixel < rows * width) & (plane < D)
    shown = exists
    count = tl.zeros([PIXELS, PLANES], tl.float32)
    sum_r, sum_rr, sum_s, sum_ss, sum_rs = count, count, count, count, count
    for dv in tl.static_range(-HALF, HALF + 1):
        for du in tl.static_range(-HALF, HALF + 1):
            us, vs = u + du, v + dv
            in_reference = exists & (us >= 0) & (us < width) & (vs >= 0) & (vs < height)
            r = tl.load(reference + vs * width + us, mask=in_reference, other=0.0)
            z = p8 * us + p9 * vs + p10 + p11 * q
            x = (p0 * us + p1 * vs + p2 + p3 * q) / z
            y = (p4 * us + p5 * vs + p6 + p7 * q) / z
            inside = in_reference & (z > 0) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
            s = tl.where(inside, _bilinear(source, x, y, inside, height, width), r)
            if du == 0 and dv == 0:
                shown = inside
            count += tl.where(in_reference, 1.0, 0.0)
            sum_r += r
            sum_rr += r * r
            sum_s += s
            sum_ss += s * s
            sum_rs += r * s
    mean_r, mean_s = sum_r / count, sum_s / count
    variance_r = tl.maximum(sum_rr / count - mean_r * mean_r, 0.0) + noise_variance
    variance_s = tl.maximum(sum_ss / count - mean_s * mean_s, 0.0) + noise_variance
    rho = (sum_rs / count - mean_r * mean_s) / tl.sqrt(variance_r * variance_s)
    cost = tl.where(shown, 1.0 - tl.minimum(tl.maximum(rho, -1.0), 1.0), float("nan"))
    tl.store(costs + (view.to(tl.int64) * rows * width + pixel) * D + plane, cost, mask=exists)


@triton.jit(do_not_specialize=["views", "count"])
def _better_half(costs, out, views, count, no_evidence, BLOCK: tl.constexpr):
    """costs (V, N) -> out (N,): mean of the lower half (rounded up) of those that are not NaN."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < count
    known = tl.zeros([BLOCK], tl.int32)
    for v in range(views):
        cost = tl.load(costs + v * count + i, mask=mask, other=0.0)
        known += (cost == cost).to(tl.int32)
    taken = (known + 1) // 2
    total = tl.zeros([BLOCK], tl.float32)
    for v in range(views):
        cost = tl.load(costs + v * count + i, mask=mask, other=0.0)
        rank = tl.zeros([BLOCK], tl.int32)
        for w in range(views):
            other = tl.load(costs + w * count + i, mask=mask, other=0.0)
            is_before = (other < cost) | ((other == cost) & (w < v))
            rank += is_before.to(tl.int32)
        total += tl.where((cost == cost) & (rank < taken), cost, 0.0)
    mean = tl.where(taken > 0, total / tl.maximum(taken, 1), no_evidence)
    tl.store(out + i, mean, mask=mask)


def plane_sweep_triton(
    reference: Tensor,
    sources: Tensor,
    projections: Tensor,
    inverse_depths: Tensor,
    patch: int,
    noise_variance: float,
    no_evidence: float,
) -> Tensor:
    """As `plane_sweep.plane_sweep_torch`, on a CUDA GPU, a band of rows at a time."""
    (height, width), V, D = reference.shape, len(sources), len(inverse_depths)
    out = torch.empty(height, width, D, device=reference.device)
    inputs = (each.float().contiguous() for each in (reference, sources, projections, inverse_depths))
    reference, sources, projections, inverse_depths = inputs
    rows = max(1, min(height, _BAND_BYTES // (4 * V * width * D)))
    costs = torch.empty(V, rows * width, D, device=reference.device)
    with torch.cuda.device_of(reference):
        for first in range(0, height, rows):
            of_band = min(rows, height - first)
            pixels = of_band * width
            _match[(triton.cdiv(pixels, _PIXELS), triton.cdiv(D, _PLANES), V)](
                reference,
                sources,
                projections,
                inverse_depths,
                costs,
                first,
                of_band,
                height,
                width,
                noise_variance,
                D=D,
                PATCH=patch,
                PIXELS=_PIXELS,
                PLANES=_PLANES,
                enable_fp_fusion=True,
            )
            band = out[first : first + of_band]
            _better_half[(triton.cdiv(band.numel(), 1024),)](costs, band, V, pixels * D, no_evidence, BLOCK=1024)
    return out
