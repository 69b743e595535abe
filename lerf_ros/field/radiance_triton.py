"""CUDA backend of the radiance field's two small networks: one launch forward, one backward, activations in registers.

For a block of samples, with the weights of `RadianceField` (rows are outputs) and spherical harmonics Y of its rays:

    h = relu(W1 e + b1),  o = W2 h + b2,  sigma = exp(min(o_0, limit))
    c = relu(Wg o_1.. + Wd Y + bd),  d = relu(W3 c + b3),  rgb = sigmoid(W4 d + b4)

What a ray has once is worked out for the rays of a block, and handed to their samples by a product with the matrix that
says which sample is whose.

The backward pass works them out once more instead of keeping them. Its programs take many blocks each, one after the
other, and keep the sums of all weights' gradients meanwhile, so that few additions go to memory. These come in any
order: gradients agree to rounding, not to the last bit, from run to run.

Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Samples per block and warps per program, measured on one H200; programs of the backward pass: two for each
# multiprocessor of an H100 or H200.
_FORWARD_BLOCK, _BACKWARD_BLOCK, _PROGRAMS = (128, 4), (64, 4), 264
_OUTPUTS = 16  # of the density network, and of the padded colours: the least that a matrix unit takes


@triton.jit
def _matrix(weights, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SHIFT: tl.constexpr, dtype):
    """(COLUMNS, ROWS): W^T of W (rows, columns), zero beyond it; SHIFT zero rows come first."""
    row, column = tl.arange(0, ROWS)[None, :], tl.arange(0, COLUMNS)[:, None] - SHIFT
    inside = (row < rows) & (column >= 0) & (column < columns)
    return tl.load(weights + row * columns + column, mask=inside, other=0.0).to(dtype)


@triton.jit
def _dot(left, right):
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _harmonics(directions, ray, inside):
    """(rays, 16) float32: `directions.spherical_harmonics_4` of rays (rows of directions)."""
    x = tl.load(directions + 3 * ray, mask=inside, other=0.0)[:, None]
    y = tl.load(directions + 3 * ray + 1, mask=inside, other=0.0)[:, None]
    z = tl.load(directions + 3 * ray + 2, mask=inside, other=0.0)[:, None]
    xx, yy, zz = x * x, y * y, z * z
    n = tl.arange(0, 16)[None, :]
    harmonics = tl.where(n == 0, 0.28209479177387814, 0.0 * x)
    harmonics = tl.where(n == 1, -0.48860251190291992 * y, harmonics)
    harmonics = tl.where(n == 2, 0.48860251190291992 * z, harmonics)
    harmonics = tl.where(n == 3, -0.48860251190291992 * x, harmonics)
    harmonics = tl.where(n == 4, 1.0925484305920792 * x * y, harmonics)
    harmonics = tl.where(n == 5, -1.0925484305920792 * y * z, harmonics)
    harmonics = tl.where(n == 6, 0.31539156525252005 * (3.0 * zz - 1.0), harmonics)
    harmonics = tl.where(n == 7, -1.0925484305920792 * x * z, harmonics)
    harmonics = tl.where(n == 8, 0.54627421529603959 * (xx - yy), harmonics)
    harmonics = tl.where(n == 9, -0.59004358992664352 * y * (3.0 * xx - yy), harmonics)
    harmonics = tl.where(n == 10, 2.8906114426405538 * x * y * z, harmonics)
    harmonics = tl.where(n == 11, -0.45704579946446572 * y * (5.0 * zz - 1.0), harmonics)
    harmonics = tl.where(n == 12, 0.37317633259011546 * z * (5.0 * zz - 3.0), harmonics)
    harmonics = tl.where(n == 13, -0.45704579946446572 * x * (5.0 * zz - 1.0), harmonics)
    harmonics = tl.where(n == 14, 1.4453057213202769 * z * (xx - yy), harmonics)
    return tl.where(n == 15, -0.59004358992664352 * x * (xx - 3.0 * yy), harmonics)


@triton.jit
def _of_rays(directions, start, sample, count, samples, dtype):
    """Of the rays of a block: which sample is whose (16, samples), and their harmonics (16, 16)."""
    ray = start // samples + tl.arange(0, 16)
    harmonics = _harmonics(directions, ray, ray * samples < count)
    return (ray[:, None] == (sample // samples)[None, :]).to(dtype), harmonics.to(dtype)


@triton.jit
def _activations(
    encoded,
    b1,
    b2,
    bd,
    b3,
    b4,
    W1,
    W2,
    Wg,
    Wd,
    W3,
    W4,
    of_ray,
    harmonics,
    sample,
    inside,
    encoding,
    limit,
    HIDDEN: tl.constexpr,
    ENCODING: tl.constexpr,
    OUTPUTS: tl.constexpr,
):
    """e, h, o, sigma, c, d, rgb of one block; W are transposed, rounded matrices."""
    dtype = W1.dtype
    unit, output = tl.arange(0, HIDDEN)[None, :], tl.arange(0, OUTPUTS)[None, :]
    feature = tl.arange(0, ENCODING)[None, :]
    address = encoded + sample[:, None] * encoding + feature
    e = tl.load(address, mask=inside[:, None] & (feature < encoding), other=0.0).to(dtype)
    h = tl.maximum(_dot(e, W1) + tl.load(b1 + unit), 0.0).to(dtype)
    o = (_dot(h, W2) + tl.load(b2 + output)).to(dtype)
    log_sigma = tl.sum(tl.where(output == 0, o.to(tl.float32), 0.0), axis=1)
    sigma = tl.exp(tl.minimum(log_sigma, limit, propagate_nan=tl.PropagateNan.ALL))
    from_direction = (_dot(harmonics, Wd) + tl.load(bd + unit)).to(dtype)
    c = tl.maximum(_dot(o, Wg) + _dot(tl.trans(of_ray), from_direction), 0.0).to(dtype)
    d = tl.maximum(_dot(c, W3) + tl.load(b3 + unit), 0.0).to(dtype)
    rgb = tl.sigmoid(_dot(d, W4) + tl.load(b4 + output, mask=output < 3, other=0.0))
    return e, h, o, sigma, c, d, rgb


@triton.jit(do_not_specialize=["count"])
def _forward(
    encoded,
    directions,
    W1,
    b1,
    W2,
    b2,
    Wg,
    Wd,
    bd,
    W3,
    b3,
    W4,
    b4,
    sigmas,
    colours,
    count,
    samples,
    encoding,
    limit,
    HIDDEN: tl.constexpr,
    ENCODING: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """encoded (N, E), directions (R, 3) -> sigmas (N,), colours (N, 3); N = R samples."""
    dtype = encoded.dtype.element_ty
    start = tl.program_id(0) * SAMPLES
    sample = start + tl.arange(0, SAMPLES).to(tl.int64)
    inside = sample < count
    W1 = _matrix(W1, HIDDEN, encoding, HIDDEN, ENCODING, 0, dtype)
    W2 = _matrix(W2, OUTPUTS, HIDDEN, OUTPUTS, HIDDEN, 0, dtype)
    Wg = _matrix(Wg, HIDDEN, OUTPUTS - 1, HIDDEN, OUTPUTS, 1, dtype)
    Wd = _matrix(Wd, HIDDEN, 16, HIDDEN, 16, 0, dtype)
    W3 = _matrix(W3, HIDDEN, HIDDEN, HIDDEN, HIDDEN, 0, dtype)
    W4 = _matrix(W4, 3, HIDDEN, OUTPUTS, HIDDEN, 0, dtype)
    of_ray, harmonics = _of_rays(directions, start, sample, count, samples, dtype)
    e, h, o, sigma, c, d, rgb = _activations(
        encoded, b1, b2, bd, b3, b4, W1, W2, Wg, Wd, W3, W4, of_ray, harmonics, sample, inside, encoding, limit,
        HIDDEN, ENCODING, OUTPUTS,
    )  # fmt: skip
    tl.store(sigmas + sample, sigma, mask=inside)
    channel = tl.arange(0, OUTPUTS)[None, :]
    tl.store(colours + sample[:, None] * 3 + channel, rgb, mask=inside[:, None] & (channel < 3))


@triton.jit
def _add(sums, transposed, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, SHIFT: tl.constexpr):
    """Adds (COLUMNS, ROWS), a gradient of W^T as `_matrix` reads it, to that of W (rows, columns)."""
    row, column = tl.arange(0, ROWS)[None, :], tl.arange(0, COLUMNS)[:, None] - SHIFT
    inside = (row < rows) & (column >= 0) & (column < columns)
    tl.atomic_add(sums + row * columns + column, transposed, mask=inside, sem="relaxed")


@triton.jit(do_not_specialize=["count"])
def _backward(
    encoded,
    directions,
    W1,
    b1,
    W2,
    b2,
    Wg,
    Wd,
    bd,
    W3,
    b3,
    W4,
    b4,
    grad_sigmas,
    grad_colours,
    grad_encoded,
    dW1,
    db1,
    dW2,
    db2,
    dWg,
    dWd,
    dbd,
    dW3,
    db3,
    dW4,
    db4,
    count,
    samples,
    encoding,
    limit,
    HIDDEN: tl.constexpr,
    ENCODING: tl.constexpr,
    OUTPUTS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Gradients of sigmas (N,) and colours (N, 3) -> those of encoded (N, E), written; of all weights, added."""
    dtype = encoded.dtype.element_ty
    W1 = _matrix(W1, HIDDEN, encoding, HIDDEN, ENCODING, 0, dtype)
    W2 = _matrix(W2, OUTPUTS, HIDDEN, OUTPUTS, HIDDEN, 0, dtype)
    Wg = _matrix(Wg, HIDDEN, OUTPUTS - 1, HIDDEN, OUTPUTS, 1, dtype)
    Wd = _matrix(Wd, HIDDEN, 16, HIDDEN, 16, 0, dtype)
    W3 = _matrix(W3, HIDDEN, HIDDEN, HIDDEN, HIDDEN, 0, dtype)
    W4 = _matrix(W4, 3, HIDDEN, OUTPUTS, HIDDEN, 0, dtype)
    unit, output = tl.arange(0, HIDDEN), tl.arange(0, OUTPUTS)
    feature = tl.arange(0, ENCODING)[None, :]
    sum1, sum2 = tl.zeros([ENCODING, HIDDEN], tl.float32), tl.zeros([HIDDEN, OUTPUTS], tl.float32)
    sumg, sum3 = tl.zeros([OUTPUTS, HIDDEN], tl.float32), tl.zeros([HIDDEN, HIDDEN], tl.float32)
    sumd, sum4 = tl.zeros([16, HIDDEN], tl.float32), tl.zeros([HIDDEN, OUTPUTS], tl.float32)
    biasd = tl.zeros([HIDDEN], tl.float32)
    bias1, bias2 = tl.zeros([HIDDEN], tl.float32), tl.zeros([OUTPUTS], tl.float32)
    bias3, bias4 = tl.zeros([HIDDEN], tl.float32), tl.zeros([OUTPUTS], tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(count, SAMPLES), tl.num_programs(0)):
        start = block * SAMPLES
        sample = start + tl.arange(0, SAMPLES).to(tl.int64)
        inside = sample < count
        of_ray, harmonics = _of_rays(directions, start, sample, count, samples, dtype)
        e, h, o, sigma, c, d, rgb = _activations(
            encoded, b1, b2, bd, b3, b4, W1, W2, Wg, Wd, W3, W4, of_ray, harmonics, sample, inside, encoding, limit,
            HIDDEN, ENCODING, OUTPUTS,
        )  # fmt: skip
        wanted = inside[:, None] & (output[None, :] < 3)
        grad = tl.load(grad_colours + sample[:, None] * 3 + output[None, :], mask=wanted, other=0.0)
        grad_rgb = grad * rgb * (1.0 - rgb)
        bias4 += tl.sum(grad_rgb, axis=0)
        grad_rgb = grad_rgb.to(dtype)
        sum4 += _dot(tl.trans(d), grad_rgb)
        grad_d = tl.where(d > 0, _dot(grad_rgb, tl.trans(W4)), 0.0)
        bias3 += tl.sum(grad_d, axis=0)
        grad_d = grad_d.to(dtype)
        sum3 += _dot(tl.trans(c), grad_d)
        grad_c = tl.where(c > 0, _dot(grad_d, tl.trans(W3)), 0.0).to(dtype)
        sumg += _dot(tl.trans(o), grad_c)

        grad_direction = _dot(of_ray, grad_c)
        biasd += tl.sum(grad_direction, axis=0)
        sumd += _dot(tl.trans(harmonics), grad_direction.to(dtype))

        grad_log_sigma = tl.load(grad_sigmas + sample, mask=inside, other=0.0) * sigma
        grad_o = tl.where(output[None, :] == 0, grad_log_sigma[:, None], _dot(grad_c, tl.trans(Wg)))
        bias2 += tl.sum(grad_o, axis=0)
        grad_o = grad_o.to(dtype)
        sum2 += _dot(tl.trans(h), grad_o)
        grad_h = tl.where(h > 0, _dot(grad_o, tl.trans(W2)), 0.0)
        bias1 += tl.sum(grad_h, axis=0)
        grad_h = grad_h.to(dtype)
        sum1 += _dot(tl.trans(e), grad_h)
        address = grad_encoded + sample[:, None] * encoding + feature
        grad_e = _dot(grad_h, tl.trans(W1)).to(grad_encoded.dtype.element_ty)
        tl.store(address, grad_e, mask=inside[:, None] & (feature < encoding))
    _add(dW1, sum1, HIDDEN, encoding, HIDDEN, ENCODING, 0)
    _add(dW2, sum2, OUTPUTS, HIDDEN, OUTPUTS, HIDDEN, 0)
    _add(dWg, sumg, HIDDEN, OUTPUTS - 1, HIDDEN, OUTPUTS, 1)
    _add(dWd, sumd, HIDDEN, 16, HIDDEN, 16, 0)
    _add(dW3, sum3, HIDDEN, HIDDEN, HIDDEN, HIDDEN, 0)
    _add(dW4, sum4, 3, HIDDEN, OUTPUTS, HIDDEN, 0)
    tl.atomic_add(db1 + unit, bias1, sem="relaxed")
    tl.atomic_add(db2 + output, bias2, sem="relaxed")
    tl.atomic_add(dbd + unit, biasd, sem="relaxed")
    tl.atomic_add(db3 + unit, bias3, sem="relaxed")
    tl.atomic_add(db4 + output, bias4, mask=output < 3, sem="relaxed")


class Radiance(torch.autograd.Function):
    """``apply(encoded (N, E), directions (R, 3), limit, *radiance.Weights)`` -> sigmas (N,), colours (N, 3), float32.

    N = R S, with S of at least `radiance.FEWEST_FUSED`. The type of `encoded`, bfloat16 or float32, is what the matrix
    products take; they sum in float32. Directions get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, encoded: Tensor, directions: Tensor, limit: float, *weights: Tensor) -> tuple[Tensor, Tensor]:
        encoded, directions = encoded.contiguous(), directions.contiguous()
        ctx.save_for_backward(encoded, directions, *weights)
        ctx.limit = limit
        count = len(encoded)
        sigmas, colours = torch.empty(4 * count, device=encoded.device).split([count, 3 * count])
        numbers, blocks, options = _launch(encoded, directions, limit, weights[0], *_FORWARD_BLOCK)
        with torch.cuda.device_of(encoded):
            _forward[(blocks,)](encoded, directions, *weights, sigmas, colours, *numbers, **options)
        return sigmas, colours.view(count, 3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sigmas: Tensor, grad_colours: Tensor) -> tuple[Tensor | None, ...]:
        encoded, directions, *weights = ctx.saved_tensors
        grad_encoded = torch.empty_like(encoded)
        # All sums in one buffer, cleared in one launch.
        flat = torch.zeros(sum(weight.numel() for weight in weights), device=encoded.device)
        parts = flat.split([weight.numel() for weight in weights])
        sums = [part.view_as(weight) for part, weight in zip(parts, weights, strict=True)]
        grads = grad_sigmas.contiguous(), grad_colours.contiguous()
        numbers, blocks, options = _launch(encoded, directions, ctx.limit, weights[0], *_BACKWARD_BLOCK)
        with torch.cuda.device_of(encoded):
            _backward[(min(_PROGRAMS, blocks),)](
                encoded, directions, *weights, *grads, grad_encoded, *sums, *numbers, **options
            )
        return grad_encoded, None, None, *sums


def _launch(
    encoded: Tensor, directions: Tensor, limit: float, W1: Tensor, samples: int, warps: int
) -> tuple[tuple[int, int, int, float], int, dict[str, int]]:
    """Numbers of a launch, its blocks, and what its kernel is compiled for."""
    count, encoding = encoded.shape
    padded = max(16, triton.next_power_of_2(encoding))
    sizes = {"HIDDEN": len(W1), "ENCODING": padded, "OUTPUTS": _OUTPUTS, "SAMPLES": samples, "num_warps": warps}
    return (count, count // len(directions), encoding, limit), triton.cdiv(count, samples), sizes
