"""Which keyframes see which points, and where."""

from __future__ import annotations

import torch
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore

_VISIBLE_WITHIN = 0.05  # of the depth: a keyframe sees a point if it measured this close to it


def seen_by(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Points (N, 3) in keyframes slots (V,): uv (V, N, 2) px, depth_z (V, N) m, and who sees which (V, N) bool.

    A keyframe sees a point inside its image unless it measured something else there; where it measured nothing, the
    image decides alone.
    """
    uv, depth_z, inside = projected(store, slots, x_world)
    column, row = torch.where(inside[..., None], uv.round(), 0).long().unbind(dim=-1)
    measured = store.depth_z[slots[:, None], row, column].float()
    return uv, depth_z, inside & ~((measured - depth_z).abs() > _VISIBLE_WITHIN * depth_z)


def projected(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `seen_by`, but whether a point lies in the image decides alone."""
    camera, T = store.camera, store.poses[slots]
    fx, fy, cx, cy = store.intrinsics[slots].unsqueeze(-1).unbind(dim=1)
    x_camera = ((x_world - T[:, None, :3, 3]) @ T[:, :3, :3]).float()
    depth_z = x_camera[..., 2].clamp_min(1e-6)
    u, v = fx * x_camera[..., 0] / depth_z + cx, fy * x_camera[..., 1] / depth_z + cy
    column, row = u.round(), v.round()
    inside = (x_camera[..., 2] > 1e-6) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    return torch.stack([u, v], dim=-1), depth_z, inside


def best_views(store: KeyframeStore, centre: Tensor, radius: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The keyframes that show a ball best, largest and whole, the best first: slots (V,), uv (V, 2) of its centre (3,)
    and pixels per metre (V,) there."""
    slots = torch.arange(len(store), device=centre.device)
    uv, depth_z, sees = (seen[:, 0] for seen in seen_by(store, slots, centre[None]))
    px_per_m = torch.where(sees, store.intrinsics[slots, 1] / depth_z, 0.0)
    poles = radius * torch.eye(3).to(centre)
    shown = projected(store, slots, centre + torch.cat([poles, -poles]))[2].float().mean(dim=1)
    best = (px_per_m * shown).topk(min(count, len(store))).indices
    best = best[px_per_m[best] * shown[best] > 0]
    return best, uv[best], px_per_m[best]
