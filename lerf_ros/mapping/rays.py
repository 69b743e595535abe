"""Rays of keyframes: a training batch of fixed shape, drawn without asking the device anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lerf_ros.geometry.camera import Camera, directions_from_uv
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.poses import Pose
from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.config import ReplayConfig
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.render.rays import Rays


@dataclass(frozen=True)
class RayBatch:
    """R rays of a step and what their pixels say.

    slots (R,) int64; uv (R, 2) pixels; z_per_t (R,); rgb (R, 3) in [0, 1]; t_measured (R,) m along the ray, NaN: not
    known; t_sigma (R,) m, its standard deviation as far as stereo has it, 0 where a depth camera measured.
    """

    rays: Rays
    z_per_t: Tensor
    slots: Tensor
    uv: Tensor
    rgb: Tensor
    t_measured: Tensor
    t_sigma: Tensor


def rays_of_view(camera: Camera, T_world_camera: Pose, uv: Tensor, bounds: SceneBounds) -> tuple[Rays, Tensor]:
    """Rays, and z_per_t (R,), of the pixels uv (R, 2) of one view; on uv's device."""
    pose = torch.from_numpy(T_world_camera).to(uv.device)
    directions, z_per_t = directions_from_uv(uv, camera.fx, camera.fy, camera.cx, camera.cy)
    origins = bounds.to_local(pose[None, :3, 3]).expand(len(uv), 3)
    return Rays(origins, directions @ pose[:3, :3].float().T, bounds.radius), z_per_t


def rays_of_slots(store: KeyframeStore, slots: Tensor, uv: Tensor, bounds: SceneBounds) -> tuple[Rays, Tensor]:
    """Rays, and z_per_t (R,), of the pixels uv (R, 2) of the keyframes in slots (R,). Where our kernels run, one launch
    makes them, and agrees to rounding."""
    if runs_kernels(uv.device):
        from lerf_ros.mapping.rays_triton import rays_triton  # not everywhere installed

        center = bounds.center_on(uv.device)
        origins, directions, z_per_t = rays_triton(store, slots, uv, center, bounds.radius)
        return Rays(origins, directions, bounds.radius), z_per_t
    return rays_of_slots_torch(store, slots, uv, bounds)


def rays_of_slots_torch(store: KeyframeStore, slots: Tensor, uv: Tensor, bounds: SceneBounds) -> tuple[Rays, Tensor]:
    """Reference backend of `rays_of_slots`."""
    fx, fy, cx, cy = store.intrinsics[slots].unbind(dim=-1)
    directions, z_per_t = directions_from_uv(uv, fx, fy, cx, cy)
    rotations = store.poses[:, :3, :3].float()[slots]
    origins = bounds.to_local(store.poses[:, :3, 3])[slots]
    return Rays(origins, torch.einsum("rij,rj->ri", rotations, directions), bounds.radius), z_per_t


def draw_batch(
    store: KeyframeStore, rays: int, language_rays: int, guided_rays: int, config: ReplayConfig, bounds: SceneBounds
) -> RayBatch:
    """Random pixels of keyframes.

    The first `language_rays` come from keyframes with encoded crops (while there are any); of the others, the share
    `replay.recent` comes from new keyframes and the rest from all, so that old places are not forgotten. Of the
    first `guided_rays`, pixels without measured depth are drawn once more: depth shall guide their samples.
    """
    recent_rays = round((rays - language_rays) * config.recent)
    chance = torch.rand(5, rays, device=store.images.device)
    if runs_kernels(chance.device):
        from lerf_ros.mapping.rays_triton import draw_triton  # not everywhere installed

        center = bounds.center_on(chance.device)
        origins, directions, *of_pixels = draw_triton(
            store, chance, language_rays, recent_rays, guided_rays, center, bounds.radius
        )
        return RayBatch(Rays(origins, directions, bounds.radius), *of_pixels)
    return drawn_batch(store, chance, language_rays, recent_rays, guided_rays, bounds)


def drawn_batch(
    store: KeyframeStore, chance: Tensor, language_rays: int, recent_rays: int, guided_rays: int, bounds: SceneBounds
) -> RayBatch:
    """`draw_batch` with given random numbers chance (5, R), in [0, 1): of the keyframe, of u and v, and of the other u
    and v of pixels that are drawn once more."""
    anywhere = _pick(chance[0], store.count)
    of_language = store.language[_pick(chance[0, :language_rays], store.language_count)]
    of_language = torch.where(store.language_count > 0, of_language, anywhere[:language_rays])
    newest = slice(language_rays, language_rays + recent_rays)
    of_recent = store.recent[_pick(chance[0, newest], store.recent_count)]
    of_recent = torch.where(store.recent_count > 0, of_recent, anywhere[newest])
    slots = torch.cat([of_language, of_recent, anywhere[newest.stop :]])

    width, height = store.camera.width, store.camera.height
    u, v, other_u, other_v = (_pick(c, size) for c, size in zip(chance[1:], (width, height, width, height)))
    redrawn = store.depth_z[slots, v, u].isnan()
    redrawn[guided_rays:].fill_(False)  # assigning a number would carry it over from the host
    u, v = torch.where(redrawn, other_u, u), torch.where(redrawn, other_v, v)
    uv = torch.stack([u, v], dim=-1).float()
    batch_rays, z_per_t = rays_of_slots_torch(store, slots, uv, bounds)
    rgb = store.images[slots, v, u].float() / 255
    t_measured = store.depth_z[slots, v, u].float() / z_per_t
    t_sigma = store.depth_sigma[slots, v, u].float() / z_per_t
    return RayBatch(batch_rays, z_per_t, slots, uv, rgb, t_measured, t_sigma)


def _pick(chance: Tensor, count: Tensor | int) -> Tensor:
    """Whole numbers (R,) int64 in [0, count) by chance (R,) in [0, 1); 0 where count is 0."""
    return (chance * count).long().clamp_max(count - 1).clamp_min(0)  # rounding may lead to count itself
