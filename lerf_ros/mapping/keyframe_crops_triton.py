"""CUDA backend of `KeyframeCrops.middles`: one launch, which depends on shapes only and never synchronises."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight_triton import rounded

_CROPS = 64  # per program


@triton.jit
def level_of(crop, table, LEVELS: tl.constexpr):
    """The levels of crops of a pyramid, which lie level by level."""
    level = tl.zeros_like(crop)
    for number in tl.static_range(1, LEVELS):
        level += (crop >= tl.load(table + 4 * LEVELS + number).to(tl.int64)).to(tl.int64)
    return level


@triton.jit(do_not_specialize=["count", "total", "height", "width"])
def _middles(
    crops,
    table,
    poses,
    intrinsics,
    depth_images,
    x_world,
    sizes,
    count,
    total,
    height,
    width,
    LEVELS: tl.constexpr,
    CROPS: tl.constexpr,
):
    """crops (C,) of all pyramids -> x_world (C, 3) and sizes (C,), float64; count is C."""
    number = tl.program_id(0).to(tl.int64) * CROPS + tl.arange(0, CROPS)
    exists = number < count
    crop = tl.load(crops + number, mask=exists, other=0)
    slot, crop = crop // total, crop % total
    level = level_of(crop, table, LEVELS)
    columns, stride = tl.load(table + 2 * LEVELS + level).to(tl.int64), tl.load(table + 3 * LEVELS + level)
    crop -= tl.load(table + 4 * LEVELS + level).to(tl.int64)
    first_centre = tl.load(table + 5 * LEVELS + level)
    u = first_centre + stride * (crop % columns).to(tl.float32)
    v = first_centre + stride * (crop // columns).to(tl.float32)
    u = rounded(tl.minimum(tl.maximum(u, 0.0), width - 1.0)).to(tl.int64)
    v = rounded(tl.minimum(tl.maximum(v, 0.0), height - 1.0)).to(tl.int64)

    depth = tl.load(depth_images + (slot * height + v) * width + u, mask=exists, other=0.0).to(tl.float64)
    camera, pose = intrinsics + 4 * slot, poses + 16 * slot
    focal_u, focal_v = tl.load(camera).to(tl.float64), tl.load(camera + 1).to(tl.float64)
    right = (u.to(tl.float64) - tl.load(camera + 2).to(tl.float64)) / focal_u * depth
    down = (v.to(tl.float64) - tl.load(camera + 3).to(tl.float64)) / focal_v * depth
    for axis in tl.static_range(3):
        of_axis = pose + 4 * axis
        turned = tl.load(of_axis) * right + tl.load(of_axis + 1) * down + tl.load(of_axis + 2) * depth
        tl.store(x_world + 3 * number + axis, turned + tl.load(of_axis + 3), mask=exists)
    tl.store(sizes + number, tl.load(table + level).to(tl.float64) * depth / focal_v, mask=exists)


def middles_triton(store: KeyframeStore, crops: Tensor) -> tuple[Tensor, Tensor]:
    """As `KeyframeCrops.middles`, on a CUDA GPU."""
    count, camera, table = len(crops), store.camera, store.layout.table_on(crops.device)
    x_world = torch.empty(count, 3, dtype=torch.float64, device=crops.device)
    sizes = torch.empty(count, dtype=torch.float64, device=crops.device)
    of_store = store.poses, store.intrinsics, store.depth_z
    with torch.cuda.device_of(crops):
        if count:
            numbers = count, store.layout.total, camera.height, camera.width
            constants = {"LEVELS": table.shape[1], "CROPS": _CROPS, "enable_fp_fusion": False}
            grid = (triton.cdiv(count, _CROPS),)
            _middles[grid](crops.contiguous(), table, *of_store, x_world, sizes, *numbers, **constants)
    return x_world, sizes
