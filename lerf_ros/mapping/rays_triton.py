"""CUDA backend of `rays`: the rays of a step, and what their pixels say, in one launch after the one that draws random
numbers; and the rays of given pixels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore

_RAYS = 64  # per program


@triton.jit
def _pick(chance, count):
    """A whole number in [0, count), by chance in [0, 1); 0 where count is 0."""
    picked = (chance * count.to(tl.float32)).to(tl.int64)
    return tl.maximum(tl.minimum(picked, count - 1), 0)


@triton.jit
def _trace(ray, slot, u, v, inside, poses, intrinsics, center, origins, directions, radius):
    """Writes origin and direction of rays of pixels u, v; returns their z per t."""
    camera = intrinsics + 4 * slot
    x = (u - tl.load(camera + 2, mask=inside, other=0.0)) / tl.load(camera, mask=inside, other=1.0)
    y = (v - tl.load(camera + 3, mask=inside, other=0.0)) / tl.load(camera + 1, mask=inside, other=1.0)
    z = 1.0 / tl.sqrt(x * x + y * y + 1.0)
    for axis in tl.static_range(3):
        row = poses + 16 * slot + 4 * axis
        r0 = tl.load(row, mask=inside, other=0.0).to(tl.float32)
        r1 = tl.load(row + 1, mask=inside, other=0.0).to(tl.float32)
        r2 = tl.load(row + 2, mask=inside, other=0.0).to(tl.float32)
        tl.store(directions + 3 * ray + axis, (r0 * x + r1 * y + r2) * z, mask=inside)
        # in float64: a map may lie far from zero
        origin = (tl.load(row + 3, mask=inside, other=0.0) - tl.load(center + axis)) / radius
        tl.store(origins + 3 * ray + axis, origin.to(tl.float32), mask=inside)
    return z


@triton.jit(do_not_specialize=["rays", "language_rays", "recent_rays", "guided_rays"])
def _draw(
    chance,
    images,
    depth_z,
    depth_sigma,
    poses,
    intrinsics,
    center,
    all_count,
    language,
    language_count,
    recent,
    recent_count,
    origins,
    directions,
    z_per_t,
    slots,
    uv,
    rgb,
    t_measured,
    t_sigma,
    rays,
    language_rays,
    recent_rays,
    guided_rays,
    height,
    width,
    radius,
    RAYS: tl.constexpr,
):
    """chance (5, R) -> what `RayBatch` holds; see `draw_batch`."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    first = tl.load(chance + ray, mask=inside, other=0.0)
    count_all, count_language, count_recent = tl.load(all_count), tl.load(language_count), tl.load(recent_count)
    slot = _pick(first, count_all)
    of_language = tl.load(language + _pick(first, count_language), mask=inside, other=0)
    slot = tl.where((ray < language_rays) & (count_language > 0), of_language, slot)
    of_recent = tl.load(recent + _pick(first, count_recent), mask=inside, other=0)
    is_recent = (ray >= language_rays) & (ray < language_rays + recent_rays)
    slot = tl.where(is_recent & (count_recent > 0), of_recent, slot)

    columns, rows = width.to(tl.int64), height.to(tl.int64)
    u = _pick(tl.load(chance + rays + ray, mask=inside, other=0.0), columns)
    v = _pick(tl.load(chance + 2 * rays + ray, mask=inside, other=0.0), rows)
    pixel = (slot * rows + v) * columns + u
    depth = tl.load(depth_z + pixel, mask=inside, other=0.0).to(tl.float32)
    redrawn = (depth != depth) & (ray < guided_rays)
    u = tl.where(redrawn, _pick(tl.load(chance + 3 * rays + ray, mask=inside, other=0.0), columns), u)
    v = tl.where(redrawn, _pick(tl.load(chance + 4 * rays + ray, mask=inside, other=0.0), rows), v)
    pixel = (slot * rows + v) * columns + u
    depth = tl.load(depth_z + pixel, mask=inside, other=0.0).to(tl.float32)

    u_px, v_px = u.to(tl.float32), v.to(tl.float32)
    z = _trace(ray, slot, u_px, v_px, inside, poses, intrinsics, center, origins, directions, radius)
    for axis in tl.static_range(3):
        value = tl.load(images + 3 * pixel + axis, mask=inside, other=0).to(tl.float32) / 255.0
        tl.store(rgb + 3 * ray + axis, value, mask=inside)
    tl.store(z_per_t + ray, z, mask=inside)
    tl.store(t_measured + ray, depth / z, mask=inside)
    sigma = tl.load(depth_sigma + pixel, mask=inside, other=0.0).to(tl.float32)
    tl.store(t_sigma + ray, sigma / z, mask=inside)
    tl.store(slots + ray, slot, mask=inside)
    tl.store(uv + 2 * ray, u_px, mask=inside)
    tl.store(uv + 2 * ray + 1, v_px, mask=inside)


@triton.jit(do_not_specialize=["rays"])
def _of_pixels(slots, uv, poses, intrinsics, center, origins, directions, z_per_t, rays, radius, RAYS: tl.constexpr):
    """slots (R,), uv (R, 2) -> origins (R, 3), directions (R, 3), z_per_t (R,)."""
    ray = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = ray < rays
    slot = tl.load(slots + ray, mask=inside, other=0)
    u, v = tl.load(uv + 2 * ray, mask=inside, other=0.0), tl.load(uv + 2 * ray + 1, mask=inside, other=0.0)
    z = _trace(ray, slot, u, v, inside, poses, intrinsics, center, origins, directions, radius)
    tl.store(z_per_t + ray, z, mask=inside)


def draw_triton(
    store: KeyframeStore,
    chance: Tensor,
    language_rays: int,
    recent_rays: int,
    guided_rays: int,
    center: Tensor,
    radius: float,
) -> tuple[Tensor, ...]:
    """As `rays.draw_batch`, with the random numbers chance (5, R) in [0, 1) and the scene's centre (3,) float64.

    Returns:
        origins (R, 3), directions (R, 3), z_per_t (R,), slots (R,), uv (R, 2), rgb (R, 3), t_measured (R,), t_sigma
        (R,).
    """
    device, rays = chance.device, chance.shape[1]
    floats = torch.empty(14 * rays, device=device).split([n * rays for n in (3, 3, 1, 2, 3, 1, 1)])
    origins, directions, z_per_t, uv, rgb, t_measured, t_sigma = (
        part.view(rays, -1) if len(part) > rays else part for part in floats
    )
    slots = torch.empty(rays, dtype=torch.int64, device=device)
    with torch.cuda.device_of(chance):
        _draw[(triton.cdiv(rays, _RAYS),)](
            chance,
            store.images,
            store.depth_z,
            store.depth_sigma,
            store.poses,
            store.intrinsics,
            center,
            store.count,
            store.language,
            store.language_count,
            store.recent,
            store.recent_count,
            origins,
            directions,
            z_per_t,
            slots,
            uv,
            rgb,
            t_measured,
            t_sigma,
            rays,
            language_rays,
            recent_rays,
            guided_rays,
            store.camera.height,
            store.camera.width,
            radius,
            RAYS=_RAYS,
        )
    return origins, directions, z_per_t, slots, uv, rgb, t_measured, t_sigma


def rays_triton(
    store: KeyframeStore, slots: Tensor, uv: Tensor, center: Tensor, radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `rays.rays_of_slots`: origins (R, 3), directions (R, 3), z_per_t (R,)."""
    rays, device = len(slots), uv.device
    origins, directions = torch.empty(rays, 3, device=device), torch.empty(rays, 3, device=device)
    z_per_t = torch.empty(rays, device=device)
    of_store = store.poses, store.intrinsics, center
    with torch.cuda.device_of(uv):
        if rays:
            asked = slots.contiguous(), uv.contiguous()
            results = origins, directions, z_per_t
            _of_pixels[(triton.cdiv(rays, _RAYS),)](*asked, *of_store, *results, rays, radius, RAYS=_RAYS)
    return origins, directions, z_per_t
