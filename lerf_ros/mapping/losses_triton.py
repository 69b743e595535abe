"""CUDA backend of the losses on language, `losses.language_loss` and `losses.dino_loss`, of a map's first rays.

A first launch reads what the heads say and what they should, and leaves a few numbers per ray, and the sums of the
dense targets of each block of rays; a second one, of one program, makes the losses of them. Backward is one launch.
Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from lerf_ros.mapping.losses import LEAST_DENSE_VARIANCE

_BLOCK, _CHANNELS, _WARPS = 16, 128, 4  # rays of a program, their channels at a time
_SUMMED, _SUMMING_WARPS = 2048, 16  # rays at a time, of the one program that sums: few waits for memory
_EPSILON = tl.constexpr(1e-12)  # of torch's normalize
_LANGUAGE, _DINO, _PER_SUPERVISED, _PER_SPREAD = (tl.constexpr(i) for i in range(4))  # places in `numbers`


@triton.jit
def _read(rows, ray, inside, start, WIDTH: tl.constexpr, CHANNELS: tl.constexpr):
    """(rays, CHANNELS) float32: some channels of rows (N, WIDTH)."""
    channel = start + tl.arange(0, CHANNELS)[None, :]
    address = rows + ray[:, None] * WIDTH + channel
    return tl.load(address, mask=inside[:, None] & (channel < WIDTH), other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["count"])
def _errors(
    outputs,
    targets,
    dino,
    dense,
    known,
    lengths,
    cosines,
    supervised,
    misses,
    squares,
    dense_sums,
    count,
    D: tl.constexpr,
    DINO: tl.constexpr,
    RAYS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """outputs, targets (R, D) -> lengths of the outputs, cosines, whether there is a target, (R,) each. dino, dense
    (R, DINO), known (R,) -> of known rays |dino - dense|^2 and |dense|^2, and the block's row of their summed targets
    (blocks, DINO)."""
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    square, product, largest = tl.zeros([RAYS], tl.float32), tl.zeros([RAYS], tl.float32), tl.zeros([RAYS], tl.float32)
    for start in range(0, D, CHANNELS):
        output = _read(outputs, ray, inside, start, D, CHANNELS)
        target = _read(targets, ray, inside, start, D, CHANNELS)
        square += tl.sum(output * output, axis=1)
        product += tl.sum(output * target, axis=1)
        largest = tl.maximum(largest, tl.max(tl.abs(target), axis=1))
    length = tl.maximum(tl.sqrt(square), _EPSILON, propagate_nan=tl.PropagateNan.ALL)
    tl.store(lengths + ray, length, mask=inside)
    tl.store(cosines + ray, product / length, mask=inside)
    tl.store(supervised + ray, tl.where(largest > 0.0, 1.0, 0.0), mask=inside)
    if DINO:
        is_known = tl.load(known + ray, mask=inside, other=0) != 0
        miss, square = tl.zeros([RAYS], tl.float32), tl.zeros([RAYS], tl.float32)
        for start in range(0, DINO, CHANNELS):
            found = _read(dino, ray, is_known, start, DINO, CHANNELS)
            target = _read(dense, ray, is_known, start, DINO, CHANNELS)
            miss += tl.sum((found - target) * (found - target), axis=1)
            square += tl.sum(target * target, axis=1)
            channel = start + tl.arange(0, CHANNELS)
            tl.store(dense_sums + tl.program_id(0) * DINO + channel, tl.sum(target, axis=0), mask=channel < DINO)
        tl.store(misses + ray, miss, mask=inside)
        tl.store(squares + ray, square, mask=inside)


@triton.jit
def _total(values, count, SUMMED: tl.constexpr):
    total = tl.zeros([SUMMED], tl.float32)
    for start in range(0, count, SUMMED):
        item = start + tl.arange(0, SUMMED)
        total += tl.load(values + item, mask=item < count, other=0).to(tl.float32)
    return tl.sum(total)


@triton.jit(do_not_specialize=["count", "blocks"])
def _losses(
    cosines,
    supervised,
    misses,
    squares,
    known,
    dense_sums,
    numbers,
    count,
    blocks,
    least_variance,
    DINO: tl.constexpr,
    CHANNELS: tl.constexpr,
    SUMMED: tl.constexpr,
):
    """What `_errors` left -> numbers (4,): both losses, and what their sums were divided by, inverted."""
    have_target = _total(supervised, count, SUMMED)
    per_supervised = 1.0 / tl.maximum(have_target, 1.0)
    tl.store(numbers + _LANGUAGE, (have_target - _total(cosines, count, SUMMED)) * per_supervised)
    tl.store(numbers + _PER_SUPERVISED, per_supervised)
    if DINO:
        have_dense = tl.maximum(_total(known, count, SUMMED), 1.0)
        square_of_mean = 0.0
        rows: tl.constexpr = 4 * SUMMED // CHANNELS
        for start in range(0, DINO, CHANNELS):
            channel = start + tl.arange(0, CHANNELS)[None, :]
            total = tl.zeros([rows, CHANNELS], tl.float32)
            for first in range(0, blocks, rows):
                row = first + tl.arange(0, rows)[:, None]
                total += tl.load(dense_sums + row * DINO + channel, mask=(row < blocks) & (channel < DINO), other=0.0)
            mean = tl.sum(total, axis=0) / have_dense
            square_of_mean += tl.sum(mean * mean)
        spread = _total(squares, count, SUMMED) - have_dense * square_of_mean
        per_spread = 1.0 / tl.maximum(spread, least_variance * have_dense)
        tl.store(numbers + _DINO, _total(misses, count, SUMMED) * per_spread)
        tl.store(numbers + _PER_SPREAD, per_spread)


@triton.jit(do_not_specialize=["count"])
def _backward(
    outputs,
    targets,
    dino,
    dense,
    known,
    lengths,
    cosines,
    numbers,
    grad_language,
    grad_dino,
    grad_outputs,
    grad_found,
    count,
    D: tl.constexpr,
    DINO: tl.constexpr,
    RAYS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Gradients of both losses (), or None -> grad_outputs (R, D), grad_found (R, DINO)."""
    ray = tl.program_id(0).to(tl.int64) * RAYS + tl.arange(0, RAYS)
    inside = ray < count
    share = 0.0
    if grad_language is not None:
        share = tl.load(grad_language) * tl.load(numbers + _PER_SUPERVISED)
    length = tl.load(lengths + ray, mask=inside, other=1.0)
    cosine = tl.load(cosines + ray, mask=inside, other=0.0)
    for start in range(0, D, CHANNELS):
        output = _read(outputs, ray, inside, start, D, CHANNELS)
        target = _read(targets, ray, inside, start, D, CHANNELS)
        grad = share * (cosine[:, None] * (output / length[:, None]) - target) / length[:, None]
        channel = start + tl.arange(0, CHANNELS)[None, :]
        address = grad_outputs + ray[:, None] * D + channel
        tl.store(address, grad.to(grad_outputs.dtype.element_ty), mask=inside[:, None] & (channel < D))
    if DINO:
        is_known = tl.load(known + ray, mask=inside, other=0) != 0
        share = 0.0
        if grad_dino is not None:
            share = 2.0 * tl.load(grad_dino) * tl.load(numbers + _PER_SPREAD)
        for start in range(0, DINO, CHANNELS):
            found = _read(dino, ray, is_known, start, DINO, CHANNELS)
            grad = share * (found - _read(dense, ray, is_known, start, DINO, CHANNELS))
            channel = start + tl.arange(0, CHANNELS)[None, :]
            address = grad_found + ray[:, None] * DINO + channel
            tl.store(address, grad.to(grad_found.dtype.element_ty), mask=inside[:, None] & (channel < DINO))


class LanguageLosses(torch.autograd.Function):
    """``apply(outputs (R, D), targets (R, D), dino (R, D'), dense (R, D'), known (R,))`` -> language, dino: scalars.

    Outputs are embeddings before they are normalised, of any float type; targets float32, unit norm or zero. Without
    dino, dense and known (None, all three) the second loss is zero. Targets get no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, outputs: Tensor, targets: Tensor, dino: Tensor | None, dense: Tensor | None, known: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        outputs, targets = outputs.contiguous(), targets.float().contiguous()
        if dino is not None and dense is not None and known is not None:
            dino, dense, known = dino.contiguous(), dense.float().contiguous(), known.contiguous()
        (count, embed), dims = outputs.shape, 0 if dino is None else dino.shape[1]
        blocks = triton.cdiv(count, _BLOCK)
        lengths, cosines, supervised, misses, squares = torch.empty(5, count, device=outputs.device).unbind()
        dense_sums = torch.empty(blocks, dims, device=outputs.device)
        numbers = torch.empty(4, device=outputs.device) if dims else torch.zeros(4, device=outputs.device)
        shapes: dict[str, Any] = {"DINO": dims, "CHANNELS": _CHANNELS}
        with torch.cuda.device_of(outputs):
            _errors[(blocks,)](
                *(outputs, targets, dino, dense, known),
                *(lengths, cosines, supervised, misses, squares, dense_sums, count),
                **(shapes | {"D": embed, "RAYS": _BLOCK, "num_warps": _WARPS}),
            )
            _losses[(1,)](
                *(cosines, supervised, misses, squares, known, dense_sums, numbers, count, blocks),
                *(LEAST_DENSE_VARIANCE,),
                **(shapes | {"SUMMED": _SUMMED, "num_warps": _SUMMING_WARPS}),
            )
        ctx.save_for_backward(outputs, targets, dino, dense, known, lengths, cosines, numbers)
        ctx.set_materialize_grads(False)
        return numbers[0], numbers[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_language: Tensor | None, grad_dino: Tensor | None) -> tuple[Tensor | None, ...]:
        outputs, targets, dino, *others = ctx.saved_tensors
        grad_outputs = torch.empty_like(outputs)
        grad_found = None if dino is None else torch.empty_like(dino)
        (count, embed), dims = outputs.shape, 0 if dino is None else dino.shape[1]
        with torch.cuda.device_of(outputs):
            _backward[(triton.cdiv(count, _BLOCK),)](
                *(outputs, targets, dino, *others, grad_language, grad_dino, grad_outputs, grad_found, count),
                **{"D": embed, "DINO": dims, "RAYS": _BLOCK, "CHANNELS": _CHANNELS, "num_warps": _WARPS},
            )
        return grad_outputs, None, grad_found, None, None
