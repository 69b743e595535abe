"""What single crops of the keyframes say, before anything is averaged: those that training uses, as they are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels
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
    """The pyramids of all keyframes, asked directly.

    Attributes:
        store: the same; M = K `store.layout.total` crops of its K keyframes are numbered one keyframe after another.
    """

    def __init__(self, store: KeyframeStore) -> None:
        self.store = store

    @torch.no_grad()
    def at(self, x_world: Tensor) -> CropsAt:
        """The crops of all keyframes around points (P, 3); nobody sees one that is NaN."""
        store, layout, K = self.store, self.store.layout, len(self.store)
        every = torch.arange(K, device=store.poses.device)[:, None]
        sight = seen_by(store, every, x_world)
        corners = layout.corners(sight.uv.flatten(0, 1))
        crops, weights = (each.unflatten(0, sight.sees.shape) for each in corners)
        crops = crops + layout.total * every[..., None, None]
        return CropsAt(crops, weights, sight.sees[..., None] & store.valid[:K, None])

    @torch.no_grad()
    def similarity(self, text_embeds: Tensor) -> Tensor:
        """Cosines (M, T) of texts (T, D) with all crops; -inf where one is not encoded."""
        store, layout = self.store, self.store.layout
        levels = layout.levels_of(torch.arange(layout.total, device=store.valid.device))
        encoded = store.valid[: len(store), levels].view(-1, 1)
        return torch.where(encoded, self.cosines(text_embeds), -torch.inf)

    @torch.no_grad()
    def cosines(self, text_embeds: Tensor) -> Tensor:
        """As `similarity`, of no meaning where a crop is not encoded."""
        embeds, text = self.store.embeds[: len(self.store)], text_embeds.T
        if embeds.is_cuda:
            return torch.mm(embeds.flatten(0, 1), text.to(embeds), out_dtype=torch.float32)
        return torch.cat([of_keyframe.float() @ text.float() for of_keyframe in embeds])  # no faster in halves

    def middles(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """What was measured in the middle of crops (C,) int64: x_world (C, 3) m, NaN where nothing was, and the crops'
        physical size (C,) m there; float64. Where our kernels run, one launch finds them."""
        if runs_kernels(crops.device):
            from lerf_ros.mapping.keyframe_crops_triton import middles_triton  # not everywhere installed

            return middles_triton(self.store, crops)
        return self.middles_torch(crops)

    def middles_torch(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Reference backend of `middles`."""
        store, camera, layout = self.store, self.store.camera, self.store.layout
        slots, crops = crops // layout.total, crops % layout.total
        sizes, _, columns, stride, offset, first_centre = layout.table_on(crops.device)
        level = layout.levels_of(crops)
        number, across = crops - offset[level].long(), columns[level].long()
        row_column = torch.stack([number % across, number // across], dim=-1)
        centres = first_centre[level, None] + stride[level, None] * row_column
        u, v = centres.unbind(dim=-1)
        nearest = torch.stack([u.clamp(0, camera.width - 1), v.clamp(0, camera.height - 1)], dim=-1).round()
        x_world, depth_z = store.lifted(slots, nearest)
        return x_world, sizes[level] * depth_z / store.intrinsics[slots, 1]
