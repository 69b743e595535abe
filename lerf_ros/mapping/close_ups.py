"""Close-ups: crops of the keyframes, far denser than their pyramids, that are encoded where a question looks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.config import CloseUpConfig
from lerf_ros.mapping.crop_means import CropMeans
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import seen_by

_CELL = 4  # px, of the picture of what is in front
_MIDDLE = 0.1  # of a crop's side, to all sides of its centre
_BEHIND = 0.4  # of a crop's side: what lies farther behind the front is not what the crop is about


@dataclass(frozen=True)
class _Pictures:
    """Of one keyframe: embeds (total, D) float16 on the device; which of them are encoded, done (total,), the host
    knows without asking the device; front (L, h, w), see `_front`."""

    embeds: Tensor
    done: NDArray[np.bool_]
    front: Tensor


class CloseUps:
    """Dense pyramids of the keyframes, each crop encoded when it is first needed and then kept.

    Encoding everything so densely would take ten times as long as the pyramids that training needs; questions look
    at few places, and often at the same. Bounded: the pyramids that were not looked at for longest make room for new
    ones.

    Args:
        store: the keyframes; one that has been replaced is encoded anew.
        encoder: on the store's device.

    Attributes:
        layout: of the crops, for all keyframes.
        capacity: pyramids that are kept at most, `close_up.memory_mb` in all.
    """

    def __init__(self, config: CloseUpConfig, store: KeyframeStore, encoder: Encoder) -> None:
        self.store, self._encoder, self._config = store, encoder, config
        camera, strides = store.camera, [config.stride] * len(config.fractions)
        self.layout = PyramidLayout.build(camera.height, camera.width, config.fractions, strides)
        self.capacity = max(1, config.memory_mb * 2**20 // (2 * self.layout.total * encoder.embed_dim))
        self._kept: OrderedDict[tuple[int, int], _Pictures] = OrderedDict()

    def means(self, x_world: Tensor, slots: Tensor, least_px: Tensor) -> tuple[CropMeans, Tensor]:
        """What crops of keyframes slots (V,), of least_px (V,) and more, say about points (N, 3), and which of the
        points (N,) those keyframes see.

        A crop is about what is in front at its middle. It says nothing about a wall that is seen past the edge of a
        mug, or through its handle: such a point has only the smaller crops.
        """
        store, config = self.store, self._config
        rows = torch.arange(len(x_world), device=x_world.device)
        scales = config.scale_bins, config.scale_min, config.scale_max
        means = CropMeans(len(x_world), store.embed_dim, *scales, x_world.device)
        uv, depth_z, sees = seen_by(store, slots, x_world)
        wanted = zip(slots.tolist(), least_px.tolist(), uv.cpu().numpy(), sees.cpu().numpy(), strict=True)
        for view, (slot, least, host_uv, host_sees) in enumerate(wanted):
            embeds, valid = self.around(slot, host_uv[host_sees], least)
            focal_px = store.intrinsics[slot, 1]
            front = self._pictures(slot).front[torch.from_numpy(valid).to(rows.device)]
            weights = sees[view, :, None] & self._in_front(front, uv[view], depth_z[view], focal_px, valid)
            means.add(rows, self.layout, embeds, valid, uv[view], depth_z[view], focal_px, weights.float())
        return means, sees.any(dim=0)

    @torch.no_grad()
    def around(self, slot: int, uv: NDArray[np.float32], least_px: float = 0.0) -> tuple[Tensor, NDArray[np.bool_]]:
        """Embeddings (layout.total, D) of a keyframe's crops, of which those around the pixels uv (P, 2), from which
        `PyramidLayout.interpolate` reads, are encoded; and at which levels (L,) bool.

        The largest crops come first; then the smaller ones, down to least_px, while no more than `close_up.crops` of
        this keyframe have to be encoded."""
        pictures = self._pictures(slot)
        needed, valid = self.layout.around(uv), np.zeros(len(self.layout.levels), bool)
        image: Tensor | None = None
        encoded = 0
        for level in range(len(valid) - 1, -1, -1):
            missing = needed[level][~pictures.done[needed[level]]]
            encoded += len(missing)
            if valid.any() and (self.layout.levels[level].crop_px < least_px or encoded > self._config.crops):
                break
            valid[level] = True
            for start in range(0, len(missing), self._config.batch):
                image = self.store.colours(slot) if image is None else image
                index = torch.from_numpy(missing[start : start + self._config.batch]).to(image.device)
                offset = self.layout.levels[level].offset
                cut = self.layout.crops(image, level, index - offset, self._encoder.image_size)
                pictures.embeds[index] = self._encoder.encode_images(cut).half()
            pictures.done[missing] = True
        return pictures.embeds, valid

    def _pictures(self, slot: int) -> _Pictures:
        key = slot, self.store.generations[slot]
        if key not in self._kept:
            device, total = self.store.images.device, self.layout.total
            embeds = torch.zeros(total, self._encoder.embed_dim, dtype=torch.float16, device=device)
            self._kept[key] = _Pictures(embeds, np.zeros(total, bool), self._front(slot))
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _front(self, slot: int) -> Tensor:
        """(L, h, w) m: of every `_CELL`-th pixel and each crop size, the least depth measured in the middle of a crop
        there; infinite where there is none."""
        depth_z = self.store.depth_z[slot].float()
        nearness = torch.where(torch.isfinite(depth_z), -depth_z, -torch.inf)[None, None]
        nearness = F.max_pool2d(nearness, _CELL, ceil_mode=True)
        cells = [round(_MIDDLE * level.crop_px / _CELL) for level in self.layout.levels]
        return torch.cat([-F.max_pool2d(nearness, 2 * n + 1, stride=1, padding=n)[0] for n in cells])

    def _in_front(
        self, front: Tensor, uv: Tensor, depth_z: Tensor, focal_px: Tensor, valid: NDArray[np.bool_]
    ) -> Tensor:
        """(P, L) bool: whether a point (P,) at uv, depth_z belongs to what crops around it are about: at some levels of
        the layout, with what is in front there, (L, h, w)."""
        scale = depth_z[:, None] * torch.from_numpy(self.layout.sizes[valid]).to(depth_z) / focal_px
        last = uv.new_tensor([front.shape[2] - 1, front.shape[1] - 1])
        column, row = (uv / _CELL).clamp_min(0).minimum(last).long().unbind(dim=1)
        return depth_z[:, None] - front[:, row, column].T <= _BEHIND * scale
