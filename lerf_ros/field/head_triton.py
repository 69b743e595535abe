"""CUDA backend of a head of the language field: one launch forward, two backward.

With the features f of a point, its scale s where the head is told one, and the weights (rows are outputs):

    h_1 = relu(W_1 f + s w + b_1),  h_l = relu(W_l h_(l-1) + b_l),  outputs = W h_L (+ b)

A program takes a block of points through all layers. A head has more weights than a multiprocessor holds, so they
stream by, some rows at a time, and activations go through memory: the backward pass wants them anyhow, and the block's
own lie in a near cache. A first launch backward follows the gradients to the features, a second
one makes those of the weights from what both left behind, many programs a layer, each with some of the points. Their
sums come in any order: gradients agree to rounding, not to the last bit, from run to run.

Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

# Points of a program, rows of weights at a time, warps, stages of their stream: within the 99 KB of shared memory that
# GPUs of compute capability 8.6 and 8.9 have.
_FORWARD_BLOCK, _BACKWARD_BLOCK = (32, 64, 8, 3), (32, 64, 8, 3)
# Rows and columns of a program's weights, points at a time, warps, stages; programs that share the points.
_WEIGHTS_BLOCK, _SHARES = (64, 64, 64, 8, 3), 4


class HeadSizes(NamedTuple):
    """What a head looks like; all widths are multiples of 16.

    Attributes:
        inputs: F, features of a point.
        hidden: H, a power of two.
        layers: L, hidden ones, >= 1.
        outputs: D.
        scale: what it is told of a scale: "log", its standardised logarithm; "plain", itself; or "none".
        bias: whether the last layer has one.
        log_mean, log_std: that standardise.
    """

    inputs: int
    hidden: int
    layers: int
    outputs: int
    scale: str = "none"
    bias: bool = True
    log_mean: float = 0.0
    log_std: float = 1.0

    def shapes(self) -> list[tuple[int, ...]]:
        """Of the weights, in order: W_1, b_1, w (not with the scale "none"), W_2, b_2, .., W, b (with `bias`)."""
        F, H, D = self.inputs, self.hidden, self.outputs
        first: list[tuple[int, ...]] = [(H, F), (H,)] + [(H, 1)] * (self.scale != "none")
        return first + [(H, H), (H,)] * (self.layers - 1) + [(D, H)] + [(D,)] * self.bias

    def constants(self) -> dict[str, Any]:
        """As the kernels take them; X_AT: where X begins among all weights, flat and one after the other."""
        F, H = self.inputs, self.hidden
        scale_at = H * F + H
        hidden_at = scale_at + H * (self.scale != "none")
        places = {"SCALE_AT": scale_at, "HIDDEN_AT": hidden_at, "OUT_AT": hidden_at + (self.layers - 1) * (H * H + H)}
        sizes = {"F": F, "FEATURES": triton.next_power_of_2(F), "H": H, "LAYERS": self.layers, "D": self.outputs}
        return {**sizes, **places, "SCALE": self.scale, "BIAS": self.bias}


@triton.jit
def _dot(left, right):
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _scales(scales, point, inside, log_mean, log_std, SCALE: tl.constexpr):
    """(points,) float32: what the head is told."""
    scale = tl.load(scales + point, mask=inside, other=1.0)
    if SCALE == "log":
        scale = (tl.log(scale) - log_mean) / log_std
    return scale


@triton.jit
def _layer(
    inputs,
    matrices,
    vectors,
    outputs,
    scale,
    point,
    inside,
    matrix_at,
    scale_at,
    INPUTS: tl.constexpr,
    PADDED: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BIAS: tl.constexpr,
    SCALED: tl.constexpr,
    RELU: tl.constexpr,
    ROWS: tl.constexpr,
):
    """One layer of a block of points: inputs (N, INPUTS) -> outputs (N, OUTPUTS), in memory. A bias follows its
    matrix."""
    column = tl.arange(0, PADDED)
    used = column < INPUTS
    x = tl.load(inputs + point[:, None] * INPUTS + column[None, :], mask=inside[:, None] & used[None, :], other=0.0)
    for start in range(0, OUTPUTS, ROWS):
        row = start + tl.arange(0, ROWS)
        exists = row < OUTPUTS
        weights = matrices + matrix_at + row[:, None] * INPUTS + column[None, :]
        W = tl.load(weights, mask=exists[:, None] & used[None, :], other=0.0)
        y = _dot(x, tl.trans(W))
        if BIAS:
            y += tl.load(vectors + matrix_at + OUTPUTS * INPUTS + row, mask=exists, other=0.0)[None, :]
        if SCALED:
            y += scale[:, None] * tl.load(vectors + scale_at + row, mask=exists, other=0.0)[None, :]
        if RELU:
            y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
        address = outputs + point[:, None] * OUTPUTS + row[None, :]
        tl.store(address, y.to(outputs.dtype.element_ty), mask=inside[:, None] & exists[None, :])
    tl.debug_barrier()  # other threads read them in the next layer


@triton.jit(do_not_specialize=["count"])
def _forward(
    features,
    scales,
    matrices,
    vectors,
    hidden,
    outputs,
    count,
    log_mean,
    log_std,
    F: tl.constexpr,
    FEATURES: tl.constexpr,
    H: tl.constexpr,
    LAYERS: tl.constexpr,
    D: tl.constexpr,
    SCALE_AT: tl.constexpr,
    HIDDEN_AT: tl.constexpr,
    OUT_AT: tl.constexpr,
    SCALE: tl.constexpr,
    BIAS: tl.constexpr,
    POINTS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """features (N, F), scales (N,) -> hidden (L, N, H), outputs (N, D). All weights are flat: matrices, rounded, and
    vectors, float32, hold the same."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    plane = count.to(tl.int64) * H
    scale = 0.0
    if SCALE != "none":
        scale = _scales(scales, point, inside, log_mean, log_std, SCALE)
    _layer(
        features, matrices, vectors, hidden, scale, point, inside, 0, SCALE_AT,
        F, FEATURES, H, True, SCALE != "none", True, ROWS,
    )  # fmt: skip
    for layer in range(1, LAYERS):
        below = hidden + (layer - 1) * plane
        _layer(
            below, matrices, vectors, below + plane, scale, point, inside, HIDDEN_AT + (layer - 1) * (H * H + H), 0,
            H, H, H, True, False, True, ROWS,
        )  # fmt: skip
    _layer(
        hidden + (LAYERS - 1) * plane, matrices, vectors, outputs, scale, point, inside, OUT_AT, 0,
        H, H, D, BIAS, False, False, ROWS,
    )  # fmt: skip


@triton.jit
def _pulled(
    grads,
    matrices,
    point,
    inside,
    matrix_at,
    INPUTS: tl.constexpr,
    PADDED: tl.constexpr,
    OUTPUTS: tl.constexpr,
    POINTS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """(points, PADDED) float32: gradients of a layer's inputs, from those of its outputs (N, OUTPUTS)."""
    column = tl.arange(0, PADDED)
    used = column < INPUTS
    total = tl.zeros([POINTS, PADDED], tl.float32)
    for start in range(0, OUTPUTS, ROWS):
        row = start + tl.arange(0, ROWS)
        exists = row < OUTPUTS
        at = grads + point[:, None] * OUTPUTS + row[None, :]
        grad = tl.load(at, mask=inside[:, None] & exists[None, :], other=0.0)
        weights = matrices + matrix_at + row[:, None] * INPUTS + column[None, :]
        total += _dot(grad, tl.load(weights, mask=exists[:, None] & used[None, :], other=0.0))
    return total


@triton.jit
def _keep_active(total, hidden, grad_hidden, point, inside, H: tl.constexpr):
    """Stores the gradients of a hidden layer before its relu."""
    at = point[:, None] * H + tl.arange(0, H)[None, :]
    active = tl.load(hidden + at, mask=inside[:, None], other=0.0) > 0.0
    tl.store(grad_hidden + at, tl.where(active, total, 0.0).to(grad_hidden.dtype.element_ty), mask=inside[:, None])
    tl.debug_barrier()  # other threads read them in the layer below


@triton.jit(do_not_specialize=["count"])
def _backward(
    matrices,
    hidden,
    grad_outputs,
    grad_hidden,
    grad_features,
    count,
    F: tl.constexpr,
    FEATURES: tl.constexpr,
    H: tl.constexpr,
    LAYERS: tl.constexpr,
    D: tl.constexpr,
    SCALE_AT: tl.constexpr,
    HIDDEN_AT: tl.constexpr,
    OUT_AT: tl.constexpr,
    SCALE: tl.constexpr,
    BIAS: tl.constexpr,
    POINTS: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Gradients of outputs (N, D) -> of hidden (L, N, H), before the relu, and of features (N, F)."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    inside = point < count
    plane = count.to(tl.int64) * H
    top = (LAYERS - 1) * plane
    total = _pulled(grad_outputs, matrices, point, inside, OUT_AT, H, H, D, POINTS, ROWS)
    _keep_active(total, hidden + top, grad_hidden + top, point, inside, H)
    for layer in range(1, LAYERS):  # counted from the top
        above = top - (layer - 1) * plane
        matrix_at = OUT_AT - layer * (H * H + H)
        total = _pulled(grad_hidden + above, matrices, point, inside, matrix_at, H, H, H, POINTS, ROWS)
        below = above - plane
        _keep_active(total, hidden + below, grad_hidden + below, point, inside, H)
    total = _pulled(grad_hidden, matrices, point, inside, 0, F, FEATURES, H, POINTS, ROWS)
    feature = tl.arange(0, FEATURES)[None, :]
    address = grad_features + point[:, None] * F + feature
    tl.store(address, total.to(grad_features.dtype.element_ty), mask=inside[:, None] & (feature < F))


@triton.jit
def _layer_weights(
    inputs,
    grads,
    scales,
    sums,
    count,
    log_mean,
    log_std,
    matrix_at,
    scale_at,
    INPUTS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    BIAS: tl.constexpr,
    SCALE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Adds what a share of the points says to one tile of a layer's weights, and to the rows' other weights."""
    across: tl.constexpr = (INPUTS + COLUMNS - 1) // COLUMNS
    down: tl.constexpr = (OUTPUTS + ROWS - 1) // ROWS
    tile = tl.program_id(0)
    if tile < down * across:
        row = tile // across * ROWS + tl.arange(0, ROWS)
        column = tile % across * COLUMNS + tl.arange(0, COLUMNS)
        exists, used = row < OUTPUTS, column < INPUTS
        total = tl.zeros([ROWS, COLUMNS], tl.float32)
        of_bias, of_scale = tl.zeros([ROWS], tl.float32), tl.zeros([ROWS], tl.float32)
        for start in range(tl.program_id(2) * POINTS, count, tl.num_programs(2) * POINTS):
            point = start + tl.arange(0, POINTS)
            inside = point < count
            place = point.to(tl.int64)[:, None]
            grad = tl.load(grads + place * OUTPUTS + row[None, :], mask=inside[:, None] & exists[None, :], other=0.0)
            x = tl.load(inputs + place * INPUTS + column[None, :], mask=inside[:, None] & used[None, :], other=0.0)
            total += _dot(tl.trans(grad), x)
            if BIAS:
                of_bias += tl.sum(grad.to(tl.float32), axis=0)
            if SCALE != "none":
                scale = _scales(scales, point, inside, log_mean, log_std, SCALE)
                of_scale += tl.sum(grad.to(tl.float32) * scale[:, None], axis=0)
        address = sums + matrix_at + row[:, None] * INPUTS + column[None, :]
        tl.atomic_add(address, total, mask=exists[:, None] & used[None, :], sem="relaxed")
        if tile % across == 0:  # the first of several tiles with the same rows
            if BIAS:
                tl.atomic_add(sums + matrix_at + OUTPUTS * INPUTS + row, of_bias, mask=exists, sem="relaxed")
            if SCALE != "none":
                tl.atomic_add(sums + scale_at + row, of_scale, mask=exists, sem="relaxed")


@triton.jit(do_not_specialize=["count"])
def _backward_weights(
    features,
    scales,
    hidden,
    grad_outputs,
    grad_hidden,
    sums,
    count,
    log_mean,
    log_std,
    F: tl.constexpr,
    FEATURES: tl.constexpr,
    H: tl.constexpr,
    LAYERS: tl.constexpr,
    D: tl.constexpr,
    SCALE_AT: tl.constexpr,
    HIDDEN_AT: tl.constexpr,
    OUT_AT: tl.constexpr,
    SCALE: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Adds the gradients of all weights to sums, flat. Programs: tiles of the largest layer, layers, shares."""
    layer = tl.program_id(1)
    plane = count.to(tl.int64) * H
    if layer == 0:
        _layer_weights(
            features, grad_hidden, scales, sums, count, log_mean, log_std, 0, SCALE_AT,
            F, H, True, SCALE, ROWS, COLUMNS, POINTS,
        )  # fmt: skip
    elif layer < LAYERS:
        matrix_at, below = HIDDEN_AT + (layer - 1) * (H * H + H), (layer - 1) * plane
        _layer_weights(
            hidden + below, grad_hidden + below + plane, scales, sums, count, log_mean, log_std, matrix_at, 0,
            H, H, True, "none", ROWS, COLUMNS, POINTS,
        )  # fmt: skip
    else:
        _layer_weights(
            hidden + (LAYERS - 1) * plane, grad_outputs, scales, sums, count, log_mean, log_std, OUT_AT, 0,
            H, D, BIAS, "none", ROWS, COLUMNS, POINTS,
        )  # fmt: skip


class Head(torch.autograd.Function):
    """``apply(features (N, F), scales (N,) or None, sizes, *weights)`` -> outputs (N, D).

    The type of the features, bfloat16 or float32, is that of the outputs and of what the matrix products take; they sum
    in float32. The weights are float32, see `HeadSizes.shapes`. Scales get no gradient.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, scales: Tensor | None, sizes: HeadSizes, *weights: Tensor) -> Tensor:
        features = features.contiguous()
        scales = None if scales is None else scales.float().contiguous()
        vectors = torch.cat([weight.flatten() for weight in weights])
        matrices = vectors.to(features.dtype)
        count = len(features)
        hidden = features.new_empty(sizes.layers, count, sizes.hidden)
        outputs = features.new_empty(count, sizes.outputs)
        points, rows, warps, stages = _FORWARD_BLOCK
        with torch.cuda.device_of(features):
            _forward[(triton.cdiv(count, points),)](
                *(features, scales, matrices, vectors, hidden, outputs, count, sizes.log_mean, sizes.log_std),
                **sizes.constants(),
                **{"POINTS": points, "ROWS": rows, "num_warps": warps, "num_stages": stages},
            )
        ctx.save_for_backward(features, scales, matrices, hidden)
        ctx.sizes = sizes
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        features, scales, matrices, hidden = ctx.saved_tensors
        sizes: HeadSizes = ctx.sizes
        count, grad_outputs = len(features), grad_outputs.contiguous()
        grad_hidden, grad_features = torch.empty_like(hidden), torch.empty_like(features)
        sums = torch.zeros(len(matrices), device=features.device)  # all in one buffer, cleared in one launch
        with torch.cuda.device_of(features):
            points, rows, warps, stages = _BACKWARD_BLOCK
            _backward[(triton.cdiv(count, points),)](
                *(matrices, hidden, grad_outputs, grad_hidden, grad_features, count),
                **sizes.constants(),
                **{"POINTS": points, "ROWS": rows, "num_warps": warps, "num_stages": stages},
            )
            rows, columns, points, warps, stages = _WEIGHTS_BLOCK
            tiles = triton.cdiv(max(sizes.hidden, sizes.outputs), rows) * triton.cdiv(
                max(sizes.hidden, sizes.inputs), columns
            )
            _backward_weights[(tiles, sizes.layers + 1, _SHARES)](
                *(features, scales, hidden, grad_outputs, grad_hidden, sums, count, sizes.log_mean, sizes.log_std),
                **sizes.constants(),
                **{"ROWS": rows, "COLUMNS": columns, "POINTS": points, "num_warps": warps, "num_stages": stages},
            )
        parts = sums.split([math.prod(shape) for shape in sizes.shapes()])
        grads = [part.view(shape) for part, shape in zip(parts, sizes.shapes(), strict=True)]
        return grad_features, None, None, *grads
