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
        slot, point = (sees & store.valid[every[:, 0]].any(dim=1, keepdim=True)).nonzero(as_tuple=True)
        levels = [layout.corners(level, uv[slot, point]) for level in range(len(layout.levels))]
        index, weights = (torch.stack(parts, dim=1) for parts in zip(*levels, strict=True))
        embeds = store.embeds[slot[:, None, None], index].float()
        similarity = torch.einsum("rlcd,rtd->rlct", embeds, text_embeds[point])
        return CropsAt(point, similarity, weights, store.valid[slot])

    @torch.no_grad()
    def similarity(self, text_embeds: Tensor) -> Tensor:
        """Cosines (M, T) of texts (T, D) with all crops, one keyframe after another; -inf where one is not encoded."""
        store = self._store
        counts = torch.tensor([level.count for level in store.layout.levels], device=store.valid.device)
        encoded = store.valid[: len(store)].repeat_interleave(counts, dim=1).view(-1, 1)
        text = text_embeds.to(store.embeds)
        return torch.where(encoded, (store.embeds[: len(store)].flatten(0, 1) @ text.T).float(), -torch.inf)

    def middles(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """What was measured in the middle of crops (C,), numbered as in `similarity`: x_world (C, 3) m, NaN where
        nothing was, and the crops' physical size (C,) m there."""
        store, total = self._store, self._store.layout.total
        centres, sizes = (values.to(crops.device)[crops % total] for values in self._crops)
        x_world, depth_z = store.lifted(crops // total, centres)
        return x_world, sizes * depth_z / store.intrinsics[crops // total, 1]

    @cached_property
    def _crops(self) -> tuple[Tensor, Tensor]:
        """Of a keyframe's crops: the nearest pixels to their centres (total, 2), and their sizes (total,) px."""
        store, layout = self._store, self._store.layout
        last = torch.tensor([store.camera.width - 1, store.camera.height - 1])
        centres = torch.cat([layout.centres(level) for level in range(len(layout.levels))])
        sizes = torch.tensor([float(level.crop_px) for level in layout.levels for _ in range(level.count)])
        return centres.clamp_min(0).minimum(last).round(), sizes
