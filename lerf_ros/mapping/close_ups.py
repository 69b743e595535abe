"""Close-ups: crops of the keyframes, far denser than their pyramids, that are encoded where a question looks."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.config import CloseUpConfig
from lerf_ros.mapping.keyframes import KeyframeStore


@dataclass(frozen=True)
class _Pictures:
    """Of one keyframe: embeds (total, D) float16 on the device; which of them are encoded, done (total,), the host
    knows without asking the device."""

    embeds: Tensor
    done: NDArray[np.bool_]


class CloseUps:
    """Dense pyramids of the keyframes, each crop encoded when it is first needed and then kept.

    Encoding everything so densely would take thirty times as long as the pyramids that training needs; questions look
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
        self.store, self._encoder, self._batch = store, encoder, config.batch
        camera, strides = store.camera, [config.stride] * len(config.fractions)
        self.layout = PyramidLayout.build(camera.height, camera.width, config.fractions, strides)
        self.capacity = max(1, config.memory_mb * 2**20 // (2 * self.layout.total * encoder.embed_dim))
        self._kept: OrderedDict[tuple[int, int], _Pictures] = OrderedDict()

    @torch.no_grad()
    def around(self, slot: int, uv: NDArray[np.float32], least_px: float = 0.0) -> tuple[Tensor, NDArray[np.bool_]]:
        """Embeddings (layout.total, D) of a keyframe's crops, of which those around the pixels uv (P, 2), from which
        `PyramidLayout.interpolate` reads, are encoded; and at which levels (L,) bool: those of crops of at least
        least_px, or else the largest."""
        pictures = self._pictures(slot)
        sizes = np.array([level.crop_px for level in self.layout.levels])
        wanted = sizes >= min(least_px, sizes[-1])
        image: Tensor | None = None
        for level, crops in enumerate(self.layout.around(uv)):
            missing = crops[~pictures.done[crops]] if wanted[level] else crops[:0]
            for start in range(0, len(missing), self._batch):
                image = self.store.colours(slot) if image is None else image
                index = torch.from_numpy(missing[start : start + self._batch]).to(image.device)
                offset = self.layout.levels[level].offset
                cut = self.layout.crops(image, level, index - offset, self._encoder.image_size)
                pictures.embeds[index] = self._encoder.encode_images(cut).half()
            pictures.done[missing] = True
        return pictures.embeds, wanted

    def _pictures(self, slot: int) -> _Pictures:
        key = slot, self.store.generations[slot]
        if key not in self._kept:
            device, total = self.store.images.device, self.layout.total
            embeds = torch.zeros(total, self._encoder.embed_dim, dtype=torch.float16, device=device)
            self._kept[key] = _Pictures(embeds, np.zeros(total, bool))
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return self._kept[key]
