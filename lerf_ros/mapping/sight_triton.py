"""CUDA backend of `sight.seen_by`: one launch, a program per keyframe and block of points.

Nothing is rounded otherwise than in torch before a pixel is chosen: no fused multiply-add and no approximate division,
so that both backends read the same one. The launch depends on shapes only and never synchronises.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore

_POINTS = 128  # per program


@triton.jit
def rounded(x):
    """The nearest whole number, of two the even one, as torch's."""
    below = tl.floor(x)
    part, odd = x - below, below - 2.0 * tl.floor(0.5 * below)
    return below + tl.where((part > 0.5) | ((part == 0.5) & (odd == 1.0)), 1.0, 0.0)


@triton.jit
def _camera_axis(pose, axis: tl.constexpr, x, y, z, inside):
    """Coordinate of points at x, y, z m from the camera along one of its axes."""
    of_x = tl.load(pose + axis, mask=inside, other=0.0)
    of_y = tl.load(pose + 4 + axis, mask=inside, other=0.0)
    of_z = tl.load(pose + 8 + axis, mask=inside, other=0.0)
    return (x * of_x + y * of_y + z * of_z).to(tl.float32)


@triton.jit
def _pixel(focal, x, depth, middle):
    return tl.div_rn(focal * x, depth) + middle


@triton.jit
def look(x, y, z, slot, exists, poses, intrinsics, depth_images, sigma_images, height, width, nearest, within, sigmas):
    """Points at x, y, z m (float64) in keyframes: u, v px, depth there and as measured, its standard deviation, whether
    they lie inside the image and are seen, and the way to them from the camera, in axes of the world."""
    pose, camera = poses + 16 * slot, intrinsics + 4 * slot
    x -= tl.load(pose + 3, mask=exists, other=0.0)
    y -= tl.load(pose + 7, mask=exists, other=0.0)
    z -= tl.load(pose + 11, mask=exists, other=0.0)
    right = _camera_axis(pose, 0, x, y, z, exists)
    down = _camera_axis(pose, 1, x, y, z, exists)
    forward = _camera_axis(pose, 2, x, y, z, exists)

    depth = tl.where(forward < nearest, nearest, forward)  # NaN stays
    focal_u, focal_v = tl.load(camera, mask=exists, other=1.0), tl.load(camera + 1, mask=exists, other=1.0)
    middle_u, middle_v = tl.load(camera + 2, mask=exists, other=0.0), tl.load(camera + 3, mask=exists, other=0.0)
    u, v = _pixel(focal_u, right, depth, middle_u), _pixel(focal_v, down, depth, middle_v)
    column, row = rounded(u), rounded(v)
    inside = (forward > nearest) & (column >= 0.0) & (column < width) & (row >= 0.0) & (row < height)
    column, row = tl.where(inside, column, 0.0).to(tl.int64), tl.where(inside, row, 0.0).to(tl.int64)
    pixel = (slot * height + row) * width + column
    measured = tl.load(depth_images + pixel, mask=exists, other=0.0).to(tl.float32)
    sigma = tl.load(sigma_images + pixel, mask=exists, other=0.0).to(tl.float32)
    differs = tl.abs(measured - depth) > within * depth + sigmas * sigma
    sees = inside & (differs == 0)
    return u, v, depth, measured, sigma, inside, sees, x.to(tl.float32), y.to(tl.float32), z.to(tl.float32)


@triton.jit(do_not_specialize=["points", "views", "next_view", "next_point", "height", "width"])
def _sight(
    slots,
    x_world,
    poses,
    intrinsics,
    depth_images,
    sigma_images,
    uv,
    depths,
    flags,
    points,
    views,
    next_view,
    next_point,
    height,
    width,
    nearest,
    within,
    sigmas,
    POINTS: tl.constexpr,
):
    """slots with strides, x_world (N, 3), poses (K, 4, 4), intrinsics (K, 4), depth_images and
    sigma_images (K, height, width) -> uv
    (V, N, 2), depths (3, V, N) at the point, as measured, and sigma, flags (2, V, N): inside, sees."""
    point = tl.program_id(0) * POINTS + tl.arange(0, POINTS)
    view = tl.program_id(1)
    exists = point < points
    point = point.to(tl.int64)
    slot = tl.load(slots + view * next_view + point * next_point, mask=exists, other=0)
    x = tl.load(x_world + 3 * point, mask=exists, other=0.0)
    y = tl.load(x_world + 3 * point + 1, mask=exists, other=0.0)
    z = tl.load(x_world + 3 * point + 2, mask=exists, other=0.0)
    u, v, depth, measured, sigma, inside, sees, _, _, _ = look(
        x, y, z, slot, exists, poses, intrinsics, depth_images, sigma_images, height, width, nearest, within, sigmas
    )
    at = view.to(tl.int64) * points + point
    half = views.to(tl.int64) * points
    tl.store(uv + 2 * at, tl.where(inside, u, 0.0), mask=exists)
    tl.store(uv + 2 * at + 1, tl.where(inside, v, 0.0), mask=exists)
    tl.store(depths + at, depth, mask=exists)
    tl.store(depths + half + at, measured, mask=exists)
    tl.store(depths + 2 * half + at, sigma, mask=exists)
    tl.store(flags + at, inside.to(tl.uint8), mask=exists)
    tl.store(flags + half + at, sees.to(tl.uint8), mask=exists)


def seen_by_triton(
    store: KeyframeStore, slots: Tensor, x_world: Tensor, nearest: float, within: float, sigmas: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `sight.seen_by`, on a CUDA GPU: the fields of `Sight`."""
    V, N, device = len(slots), len(x_world), x_world.device
    uv = torch.empty(V, N, 2, device=device)
    depths = torch.empty(3, V, N, device=device)
    flags = torch.empty(2, V, N, dtype=torch.uint8, device=device)
    next_point = slots.stride(1) if slots.shape[1] == N else 0
    tensors = (slots, x_world.double().contiguous(), store.poses, store.intrinsics, store.depth_z, store.depth_sigma)
    height, width = store.camera.height, store.camera.width
    numbers = (N, V, slots.stride(0), next_point, height, width, nearest, within, sigmas)
    with torch.cuda.device_of(x_world):
        if V * N:
            grid = (triton.cdiv(N, _POINTS), V)
            _sight[grid](*tensors, uv, depths, flags, *numbers, POINTS=_POINTS, enable_fp_fusion=False)
    depth_z, measured_z, sigma_z = depths.unbind()
    inside, sees = flags.view(torch.bool).unbind()
    return uv, depth_z, measured_z, sigma_z, inside, sees
