"""CUDA backend of the vote of the views: a launch that judges all crops, and one, a program per place, in which the
keyframes vote. Sums are taken in the same order each time.

Launches depend on shapes only and never synchronise.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.features.pyramid_triton import read_level
from lerf_ros.mapping.keyframe_crops_triton import level_of
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import NEAREST, VISIBLE_SIGMAS, VISIBLE_WITHIN
from lerf_ros.mapping.sight_triton import look

_CROPS = 256  # per program
_VIEWS = 64  # that vote at the same time


@triton.jit(do_not_specialize=["crops", "total", "texts", "phrases"])
def _judged(
    cosines,
    valid,
    table,
    logits,
    relevancy,
    crops,
    total,
    texts,
    phrases,
    k,
    LEVELS: tl.constexpr,
    CROPS: tl.constexpr,
):
    """cosines (crops, texts + phrases), valid (K, LEVELS) -> logits, relevancy (texts, crops)."""
    crop = tl.program_id(0).to(tl.int64) * CROPS + tl.arange(0, CROPS)
    exists = crop < crops
    level = level_of(crop % total, table, LEVELS)
    is_encoded = tl.load(valid + crop // total * LEVELS + level, mask=exists, other=0) != 0
    of_crop = cosines + crop * (texts + phrases)
    canonical = tl.full([CROPS], float("-inf"), tl.float32)
    for phrase in range(texts, texts + phrases):
        canonical = tl.maximum(canonical, tl.load(of_crop + phrase, mask=is_encoded, other=0.0))
    at = crop  # of one text after another
    for text in range(0, texts):
        logit = k * (tl.load(of_crop + text, mask=is_encoded, other=0.0) - canonical)
        logit = tl.where(is_encoded & (logit == logit), logit, float("-inf"))
        tl.store(logits + at, logit, mask=exists)
        tl.store(relevancy + at, tl.sigmoid(logit), mask=exists)
        at += crops


@triton.jit(do_not_specialize=["keyframes", "total", "height", "width"])
def _shares(
    relevancy,
    numbers,
    x_world,
    poses,
    intrinsics,
    depth_images,
    sigma_images,
    valid,
    table,
    shares,
    keyframes,
    total,
    height,
    width,
    nearest,
    within,
    sigmas,
    LEVELS: tl.constexpr,
    PADDED: tl.constexpr,
    VIEWS: tl.constexpr,
):
    """relevancy (T, keyframes total), numbers (P,), x_world (P, 3) -> shares (P,)."""
    number = tl.program_id(0).to(tl.int64)
    x, y, z = tl.load(x_world + 3 * number), tl.load(x_world + 3 * number + 1), tl.load(x_world + 3 * number + 2)
    of_text = relevancy + tl.load(numbers + number) * keyframes * total
    level = tl.minimum(tl.arange(0, PADDED), LEVELS - 1)[None, :]  # the last one again: that changes no maximum
    found = tl.zeros([VIEWS], tl.float32)
    asked = tl.zeros([VIEWS], tl.float32)
    for first in range(0, keyframes, VIEWS):
        view = first + tl.arange(0, VIEWS)
        exists = view < keyframes
        slot = tl.minimum(view, keyframes - 1).to(tl.int64)
        u, v, _, _, _, _, sees, _, _, _ = look(
            x, y, z, slot, exists, poses, intrinsics, depth_images, sigma_images, height, width, nearest, within, sigmas
        )
        u, v = tl.where(sees, u, 0.0)[:, None], tl.where(sees, v, 0.0)[:, None]
        is_encoded = sees[:, None] & (tl.load(valid + slot[:, None] * LEVELS + level) != 0)
        channel = tl.zeros([VIEWS, PADDED], tl.int32)  # there is but one
        share = read_level(of_text + slot[:, None] * total, table, level, u, v, channel, LEVELS, 1)
        found += tl.max(tl.where(is_encoded, share, 0.0), axis=1)
        asked += tl.max(is_encoded.to(tl.float32), axis=1)
    found, asked = tl.sum(found, axis=0), tl.sum(asked, axis=0)
    tl.store(shares + number, tl.where(asked > 0.0, found / tl.maximum(asked, 1.0), float("nan")))


def judged_triton(store: KeyframeStore, cosines: Tensor, texts: int, k: float) -> tuple[Tensor, Tensor]:
    """As `votes.judged`, on a CUDA GPU, from the cosines (M, texts + canonical phrases) of all crops."""
    (crops, columns), table = cosines.shape, store.layout.table_on(cosines.device)
    logits, relevancy = torch.empty(2, texts, crops, device=cosines.device).unbind()
    with torch.cuda.device_of(cosines):
        if crops:
            numbers = crops, store.layout.total, texts, columns - texts, k
            constants = {"LEVELS": table.shape[1], "CROPS": _CROPS, "enable_fp_fusion": False}
            grid = (triton.cdiv(crops, _CROPS),)
            _judged[grid](cosines.contiguous(), store.valid, table, logits, relevancy, *numbers, **constants)
    return logits, relevancy


def shares_triton(store: KeyframeStore, relevancy: Tensor, numbers: Tensor, x_world: Tensor) -> Tensor:
    """As `Votes.shares`, on a CUDA GPU, from the relevancy (T, M) of all crops."""
    camera, layout, table = store.camera, store.layout, store.layout.table_on(relevancy.device)
    shares = torch.empty(len(numbers), device=relevancy.device)
    of_places = relevancy, numbers.contiguous(), x_world.double().contiguous()
    of_store = store.poses, store.intrinsics, store.depth_z, store.depth_sigma, store.valid
    with torch.cuda.device_of(relevancy):
        if len(numbers):
            sizes = len(store), layout.total, camera.height, camera.width, NEAREST, VISIBLE_WITHIN, VISIBLE_SIGMAS
            levels = table.shape[1]
            constants = {"LEVELS": levels, "PADDED": triton.next_power_of_2(levels), "VIEWS": _VIEWS}
            _shares[(len(numbers),)](*of_places, *of_store, table, shares, *sizes, **constants, enable_fp_fusion=False)
    return shares
