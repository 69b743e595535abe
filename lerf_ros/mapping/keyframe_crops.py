"""What single crops of the keyframes say, before anything is averaged: those that training uses, as they are."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import seen_by


class CropsAt(NamedTuple):
    """Crops of V keyframes around P points, in L sizes: crops (V, P, L, 4) int64, the four around, numbered as in
    `KeyframeCrops.similarity`; weights (V, P, L, 4), bilinear; encoded (V, P, L) bool, whether the keyframe sees the
    point and has crops of that size."""

    crops: Tensor
    weights: Tensor
    encoded: Tensor


class KeyframeCrops:
    """The pyramids of all keyframes, asked directly."""

    def __init__(self, store: KeyframeStore) -> None:
        self._store = store

    @torch.no_grad()
    def at(self, x_world: Tensor) -> CropsAt:
        """The crops of all keyframes around points (P, 3); nobody sees one that is NaN."""
        store, layout, K = self._store, self._store.layout, len(self._store)
        every = torch.arange(K, device=store.poses.device)[:, None]
        sight = seen_by(store, every, x_world)
        corners = layout.corners(sight.uv.flatten(0, 1))
        crops, weights = (each.unflatten(0, sight.sees.shape) for each in corners)
        crops = crops + layout.total * every[..., None, None]
        return CropsAt(crops, weights, sight.sees[..., None] & store.valid[:K, None])

    @torch.no_grad()
    def similarity(self, text_embeds: Tensor) -> Tensor:
        """Cosines (M, T) of texts (T, D) with all crops, one keyframe after another; -inf where one is not encoded."""
        embeds, text = self._store.embeds[: len(self._store)], text_embeds.T
        encoded = self._store.valid[: len(embeds), self._levels].view(-1, 1)
        if embeds.is_cuda:
            cosines = torch.mm(embeds.flatten(0, 1), text.to(embeds), out_dtype=torch.float32)
        else:  # which is no faster in halves
            cosines = torch.cat([of_keyframe.float() @ text.float() for of_keyframe in embeds])
        return torch.where(encoded, cosines, -torch.inf)

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
