"""Which keyframes see which points, and where."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.keyframes import KeyframeStore

VISIBLE_WITHIN = 0.05  # of the depth: a keyframe sees a point if it measured this close to it, or as close as ...
VISIBLE_SIGMAS = 3.0  # ... so many standard deviations of its depth more
NEAREST = 1e-6  # m: what is nearer to the plane of the camera, or behind it, has no place in the image


class Sight(NamedTuple):
    """N points in V keyframes.

    uv (V, N, 2) px, zero outside the image; depth_z (V, N) m; measured_z (V, N) m, what the keyframe measured at that
    pixel, NaN: nothing, and sigma_z (V, N) m, its standard deviation; inside (V, N) bool, whether the point lies in the
    image, and sees (V, N) bool.
    """

    uv: Tensor
    depth_z: Tensor
    measured_z: Tensor
    sigma_z: Tensor
    inside: Tensor
    sees: Tensor


def seen_by(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> Sight:
    """Points (N, 3) in keyframes: slots (V, 1), the same for all of them, or (V, N), for each point its own.

    A keyframe sees a point inside its image unless it measured something else there; where it measured nothing, the
    image decides alone. No keyframe sees a point that is NaN. Where our kernels run, one launch does it all, and agrees
    to rounding.
    """
    if runs_kernels(x_world.device):
        from lerf_ros.mapping.sight_triton import seen_by_triton  # not everywhere installed

        return Sight(*seen_by_triton(store, slots, x_world, NEAREST, VISIBLE_WITHIN, VISIBLE_SIGMAS))
    return seen_by_torch(store, slots, x_world)


def seen_by_torch(store: KeyframeStore, slots: Tensor, x_world: Tensor) -> Sight:
    """Reference backend of `seen_by`."""
    camera, T = store.camera, store.poses[slots]
    focal, middle = store.intrinsics[slots].split(2, dim=-1)
    x_camera = ((x_world - T[..., :3, 3])[..., None] * T[..., :3, :3]).sum(dim=-2).float()
    depth_z = x_camera[..., 2].clamp_min(NEAREST)
    uv = focal * x_camera[..., :2] / depth_z[..., None] + middle
    column, row = uv.round().unbind(dim=-1)
    inside = (x_camera[..., 2] > NEAREST) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    uv = torch.where(inside[..., None], uv, 0)
    column, row = uv.round().long().unbind(dim=-1)
    measured_z = store.depth_z[slots, row, column].float()
    sigma_z = store.depth_sigma[slots, row, column].float()
    differs = (measured_z - depth_z).abs() > VISIBLE_WITHIN * depth_z + VISIBLE_SIGMAS * sigma_z
    return Sight(uv, depth_z, measured_z, sigma_z, inside, inside & ~differs)


class Views(NamedTuple):
    """The keyframes that show each of L places best, the best first: slots (V, L); uv (V, L, 2) px of the place's
    centre; px_per_m (V, L) there; known (V, L) bool, False where there are no more: then the slot is 0."""

    slots: Tensor
    uv: Tensor
    px_per_m: Tensor
    known: Tensor


def best_views(store: KeyframeStore, centres: Tensor, radii: Tensor, count: int) -> Views:
    """The keyframes, at most `count`, that show balls with centres (L, 3) and radii (L,) best: large and whole. Asks
    all slots of the store, whether keyframes are in them or not: nothing depends on how many there are by now."""
    slots, L = torch.arange(store.config.capacity, device=centres.device), len(centres)
    points = centres[:, None] + radii[:, None, None] * _poles_on(centres.device)  # (L, 7, 3)
    sight = seen_by(store, slots[:, None], points.flatten(0, 1))
    uv, depth_z, inside, sees = (
        each.unflatten(1, (L, -1)) for each in (sight.uv, sight.depth_z, sight.inside, sight.sees)
    )
    px_per_m = store.intrinsics[:, 1:2] / depth_z[..., 0]
    shown = inside[..., 1:].float().mean(dim=2)
    in_use = (slots < store.count)[:, None]
    worth, best = (px_per_m * (sees[..., 0] & in_use) * shown).topk(min(count, len(slots)), dim=0)
    known = worth > 0
    best = torch.where(known, best, 0)
    uv = uv[:, :, 0].gather(0, best[..., None].expand(-1, -1, 2))
    return Views(best, uv, px_per_m.gather(0, best), known)


@lru_cache
def _poles_on(device: torch.device) -> Tensor:
    """(7, 3) float64: the middle of the unit ball and its six poles, made once: captured work reads it."""
    return torch.from_numpy(np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])).to(device)
