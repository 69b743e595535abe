"""Which keyframes see which points, and where."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore

_VISIBLE_WITHIN = 0.05  # of the depth: a keyframe sees a point if it measured this close to it


class Sight(NamedTuple):
    """N points in V keyframes: uv (V, N, 2) px, depth_z (V, N) m, measured_z (V, N) m, what the keyframe measured at
    that pixel, NaN: nothing, and sees (V, N) bool."""

    uv: Tensor
    depth_z: Tensor
    measured_z: Tensor
    sees: Tensor


def seen_by(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> Sight:
    """Points (N, 3) in keyframes: slots (V, 1), the same for all of them, or (V, N), for each point its own.

    A keyframe sees a point inside its image unless it measured something else there; where it measured nothing, the
    image decides alone.
    """
    uv, depth_z, inside = projected(store, slots, x_world)
    column, row = torch.where(inside[..., None], uv.round(), 0).long().unbind(dim=-1)
    measured_z = store.depth_z[slots, row, column].float()
    return Sight(uv, depth_z, measured_z, inside & ~((measured_z - depth_z).abs() > _VISIBLE_WITHIN * depth_z))


def projected(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """As `seen_by`: uv, depth_z, and whether a point lies in the image."""
    camera, T = store.camera, store.poses[slots]
    focal, middle = store.intrinsics[slots].split(2, dim=-1)
    x_camera = ((x_world - T[..., :3, 3])[..., None] * T[..., :3, :3]).sum(dim=-2).float()
    depth_z = x_camera[..., 2].clamp_min(1e-6)
    uv = focal * x_camera[..., :2] / depth_z[..., None] + middle
    column, row = uv.round().unbind(dim=-1)
    inside = (x_camera[..., 2] > 1e-6) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    return uv, depth_z, inside


class Views(NamedTuple):
    """The keyframes that show each of L places best, the best first: slots (V, L); uv (V, L, 2) px of the place's
    centre; px_per_m (V, L) there; known (V, L) bool, False where there are no more."""

    slots: Tensor
    uv: Tensor
    px_per_m: Tensor
    known: Tensor


def best_views(store: KeyframeStore, centres: Tensor, radii: Tensor, count: int) -> Views:
    """The keyframes, at most `count`, that show balls with centres (L, 3) and radii (L,) best: large and whole."""
    every = torch.arange(len(store), device=centres.device)[:, None]
    uv, depth_z, _, sees = seen_by(store, every, centres)
    px_per_m = store.intrinsics[every, 1] / depth_z
    axes = torch.eye(3, dtype=centres.dtype, device=centres.device)
    poles = centres[:, None] + radii[:, None, None] * torch.cat([axes, -axes])
    shown = projected(store, every, poles.view(-1, 3))[2].view(len(store), len(centres), -1).float().mean(dim=2)
    worth, slots = (px_per_m * sees * shown).topk(min(count, len(store)), dim=0)
    uv = uv.gather(0, slots[..., None].expand(-1, -1, 2))
    return Views(slots, uv, px_per_m.gather(0, slots), worth > 0)
