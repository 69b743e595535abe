"""Close-ups: crops of the keyframes, far denser than their pyramids, that are encoded where a question looks."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.host import on_device, on_host
from lerf_ros.mapping.close_up_budget import EncodingPace, affordable
from lerf_ros.mapping.close_up_means import CELL, Means, Pyramids, Sights, means, needed_crops
from lerf_ros.mapping.config import CloseUpConfig
from lerf_ros.mapping.crop_means import log_bins
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.shrinking import Shrinking
from lerf_ros.mapping.sight import seen_by

_PIXELS = 2**23  # of crops that are cut at a time, at most: 100 MB, and with them what a vision transformer keeps
_MIDDLE = 0.1  # of a crop's side, to all sides of its centre


class _Missing(NamedTuple):
    """Crops of a keyframe, flat indices in the layout, that have to be encoded."""

    slot: int
    row: int
    crops: NDArray[np.int64]


def _split(missing: Sequence[_Missing], count: int) -> tuple[list[_Missing], list[_Missing]]:
    """The first `count` crops of all, and the others."""
    first, others = [], []
    for part in missing:
        taken = min(count, len(part.crops))
        count -= taken
        first += [part._replace(crops=part.crops[:taken])] if taken else []
        others += [part._replace(crops=part.crops[taken:])] if taken < len(part.crops) else []
    return first, others


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
        capacity: pyramids that are kept at most: `close_up.memory_mb` in all, but enough for one place.
    """

    def __init__(self, config: CloseUpConfig, store: KeyframeStore, encoder: Encoder) -> None:
        self.store, self._encoder, self._config = store, encoder, config
        camera, strides = store.camera, [config.stride] * len(config.fractions)
        self.layout = PyramidLayout.build(camera.height, camera.width, config.fractions, strides)
        affordable = config.memory_mb * 2**20 // (2 * self.layout.total * encoder.embed_dim)
        self.capacity = min(max(affordable, config.views), store.config.capacity)
        device = store.images.device
        self._batch = Shrinking("close_up.batch", min(config.batch, _PIXELS // encoder.image_size**2))
        self._pace = EncodingPace(device)
        self._embeds = torch.zeros(
            self.capacity, self.layout.total, encoder.embed_dim, dtype=torch.float16, device=device
        )
        self._done = np.zeros((self.capacity, self.layout.total), bool)  # the host knows without asking the device
        cells = -(-camera.height // CELL), -(-camera.width // CELL)
        self._front = torch.zeros(  # as exact as the keyframes' depth, of which it is a part
            self.capacity, len(self.layout.levels), *cells, dtype=torch.float16, device=device
        )
        log_scales = log_bins(config.scale_bins, config.scale_min, config.scale_max, device)
        focal_px = store.intrinsics[:, 1]
        self._pyramids = Pyramids(self.layout, self._embeds, self._front, focal_px, log_scales, log_scales.exp())
        self._rows: OrderedDict[tuple[int, int], int] = OrderedDict()  # of the above, by slot and generation

    @property
    def memory_bytes(self) -> int:
        """Device memory of all pyramids that are kept."""
        return sum(kept.numel() * kept.element_size() for kept in (self._embeds, self._front))

    @property
    def places(self) -> int:
        """How many places can be looked at in one call of `means`."""
        return max(1, self.capacity // self._config.views)

    def sights(self, x_world: Tensor, slots: Tensor, wanted: Tensor, least_px: Tensor) -> Sights:
        """Points (N, 3) in crops of keyframes.

        Args:
            slots: (V, N) keyframes asked about each point, of at most `places` times `close_up.views` ...
            wanted: (V, N) bool, ... where they are ...
            least_px: (V, N), ... in crops of this size and larger.
        """
        sight = seen_by(self.store, slots, x_world)
        return Sights(slots, sight.uv, sight.depth_z, sight.sees & wanted, least_px)

    def needed(self, sights: Sights) -> Tensor:
        """(capacity of the store, total) bool: which crops `means` reads."""
        return needed_crops(sights, self.layout, self.store.config.capacity)

    def means(self, sights: Sights, of_slot: Tensor) -> Means:
        """What crops of keyframes say about points, as far as they are encoded, see `encoded`."""
        return means(sights, self._pyramids, of_slot)

    def encoded(self, slots: Tensor, needed: Tensor) -> Tensor:
        """Encodes the crops needed (n, total) bool of keyframes slots (n,), some perhaps named again; returns, of each
        slot of the store, the row of its close-ups and which sizes are encoded there wherever they are needed:
        (capacity, 1 + L) int64.

        The largest crops come first, and are always there; then the smaller ones, while no more than `close_up.crops`
        of a keyframe have to be encoded, and no more than the encoder manages in `close_up.seconds`. What is left is
        for the next question."""
        named, of_named = on_host(slots, needed)
        every, first = np.unique(named, return_index=True)
        is_asked = of_named[first].any(axis=1)
        asked_slots, asked = every[is_asked], of_named[first[is_asked]]
        rows = np.array(self._rows_of(asked_slots.tolist()), np.int64)
        if self._config.seconds and self._pace.per_second is None:
            self._encode_asked(asked_slots, rows, asked, self._batch.size)
            self._pace.settle()
        budget = self._config.seconds * (self._pace.per_second or 0) or math.inf
        of_slot = np.zeros((self.store.config.capacity, 1 + len(self.layout.levels)), np.int64)
        of_slot[asked_slots, 0] = rows
        of_slot[asked_slots, 1:] = self._encode_asked(asked_slots, rows, asked, budget)
        return on_device(of_slot, self.store.images.device)

    def _encode_asked(
        self, slots: NDArray[np.int64], rows: NDArray[np.int64], asked: NDArray[np.bool_], budget: float
    ) -> NDArray[np.bool_]:
        """Encodes of crops asked (n, total) of keyframes, whose close-ups are in rows (n,), those that are missing and
        affordable; returns of which sizes (n, L) all that are asked are there then."""
        new = asked & ~self._done[rows]
        by_level = [new[:, level.offset : level.offset + level.count] for level in self.layout.levels]
        counts = np.stack([np.count_nonzero(of_level, axis=1) for of_level in by_level], axis=1)
        allowed, encoded = affordable(counts, self._config.crops, budget)
        missing = []
        for number in range(len(by_level) - 1, -1, -1):
            for i in np.flatnonzero(encoded[:, number]).tolist():
                crops = self.layout.levels[number].offset + np.flatnonzero(by_level[number][i])[: encoded[i, number]]
                missing.append(_Missing(int(slots[i]), int(rows[i]), crops))
        count = int(encoded.sum())
        # Few crops take as long as some more; but where the budget allows no more, the pace has to be found anew.
        is_telling = count > 0 and count >= min(self._batch.size // 2, budget)
        with self._pace.measured(count) if is_telling else nullcontext():
            self._encode(missing)
        return allowed

    def _encode(self, missing: Sequence[_Missing]) -> None:
        """Encodes crops of all keyframes and levels together, as many at a time as memory allows."""
        while missing:
            missing = self._batch.run(partial(self._encode_some, missing))

    @torch.no_grad()
    def _encode_some(self, missing: Sequence[_Missing], count: int) -> Sequence[_Missing]:
        """Cuts and encodes the first `count` crops, all of them or, where that fails, none; returns the others."""
        missing, others = _split(missing, count)
        crops = np.concatenate([each.crops for each in missing])
        counts = [len(each.crops) for each in missing]
        slots, rows = (np.repeat(of, counts) for of in ([m.slot for m in missing], [m.row for m in missing]))
        work = np.stack([slots, crops, rows * self.layout.total + crops])
        embeds, images = self._embeds.flatten(0, 1), self.store.images
        of_slots, flat, places = on_device(work, images.device).unbind()
        cut = self.layout.cut(images, of_slots, flat, self._encoder.image_size)
        embeds[places] = self._encoder.encode_images(cut).half()
        for each in missing:
            self._done[each.row, each.crops] = True
        return others

    def _rows_of(self, slots: Sequence[int]) -> list[int]:
        """Where the close-ups of keyframes, at most `capacity`, are kept."""
        keys = [(slot, self.store.generations[slot]) for slot in slots]
        for key in keys:
            if key in self._rows:
                self._rows.move_to_end(key)
        new = [key for key in keys if key not in self._rows]
        for key in new:
            full = len(self._rows) == self.capacity
            self._rows[key] = self._rows.popitem(last=False)[1] if full else len(self._rows)
        if new:
            rows = [self._rows[key] for key in new]
            self._done[rows] = False
            device = self._front.device
            nearest = self._nearest(on_device([slot for slot, _ in new], device))
            self._front[on_device(rows, device)] = nearest.to(self._front.dtype)
        return [self._rows[key] for key in keys]

    def _nearest(self, slots: Tensor) -> Tensor:
        """(n, L, h, w) m: of keyframes, every `CELL`-th pixel and each crop size, the least depth measured in the
        middle of a crop there; infinite where there is none."""
        depth_z = self.store.depth_z[slots].float()
        nearness = torch.where(torch.isfinite(depth_z), -depth_z, -torch.inf)[:, None]
        nearness = F.max_pool2d(nearness, CELL, ceil_mode=True)
        cells = [round(_MIDDLE * level.crop_px / CELL) for level in self.layout.levels]
        return -torch.cat([F.max_pool2d(nearness, 2 * n + 1, stride=1, padding=n) for n in cells], dim=1)
