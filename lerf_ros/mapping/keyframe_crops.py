"""What single crops of the keyframes say, before anything is averaged: those that training uses, as they are."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import seen_by


class CropsAt(NamedTuple):
    """R sights of points by keyframes, in crops of L sizes: point (R,) int64; similarity (R, L, 4, T), cosines of the
    four crops around; weights (R, L, 4), bilinear; encoded (R, L) bool, whether crops of that size are there."""

    point: Tensor
    similarity: Tensor
    weights: Tensor
    encoded: Tensor


class KeyframeCrops:
    """The pyramids of all keyframes, asked directly."""

    def __init__(self, store: KeyframeStore) -> None:
        self._store = store

    @torch.no_grad()
    def at(self, x_world: Tensor, text_embeds: Tensor) -> CropsAt:
        """What the keyframes that see points (P, 3) say there about text_embeds (P, T, D), for each point its own."""
        store, layout = self._store, self._store.layout
        x_world, text_embeds = x_world.to(store.poses), text_embeds.to(store.poses.device, torch.float32)
        every = torch.arange(len(store), device=x_world.device)[:, None]
        uv, _, _, sees = seen_by(store, every, x_world)
        slot, point = (sees & store.valid[: len(store)].any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        index, weights = layout.corners(uv[slot, point])
        embeds = layout.read(store.embeds, slot, index)
        similarity = torch.einsum("rlcd,rtd->rlct", embeds, text_embeds[point])
        return CropsAt(point, similarity, weights, store.valid[slot])

    @torch.no_grad()
    def similarity(self, text_embeds: Tensor) -> Tensor:
        """Cosines (M, T) of texts (T, D) with all crops, one keyframe after another; -inf where one is not encoded."""
        store = self._store
        encoded = store.valid[: len(store), self._levels].view(-1, 1)
        text = text_embeds.to(store.embeds)
        return torch.where(encoded, (store.embeds[: len(store)].flatten(0, 1) @ text.T).float(), -torch.inf)

    def middles(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """What was measured in the middle of crops (C,), numbered as in `similarity`: x_world (C, 3) m, NaN where
        nothing was, and the crops' physical size (C,) m there."""
        store, total = self._store, self._store.layout.total
        slots, crops = crops // total, crops % total
        sizes = store.layout.sizes_on(crops.device)[self._levels[crops]]
        x_world, depth_z = store.lifted(slots, self._centres[crops])
        return x_world, sizes * depth_z / store.intrinsics[slots, 1]

    @cached_property
    def _levels(self) -> Tensor:
        """(total,) int64, of a keyframe's crops."""
        counts = torch.tensor([level.count for level in self._store.layout.levels])
        return torch.arange(len(counts)).repeat_interleave(counts).to(self._store.embeds.device)

    @cached_property
    def _centres(self) -> Tensor:
        """(total, 2) px, the nearest pixels to the centres of a keyframe's crops."""
        camera, layout = self._store.camera, self._store.layout
        last = torch.tensor([camera.width - 1, camera.height - 1])
        centres = torch.cat([layout.centres(level) for level in range(len(layout.levels))])
        return centres.clamp_min(0).minimum(last).round().to(self._store.embeds.device)
