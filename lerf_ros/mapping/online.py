"""The map while the robot drives: training and encoding share the time, one bounded unit of work after another."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.mapper import KeyframeDecision, Mapper
from lerf_ros.mapping.training import StepStats


@dataclass(frozen=True)
class _Crops:
    """Crops of one level of one keyframe that are still to be encoded."""

    slot: int
    generation: int
    level: int
    start: int


class OnlineMapper:
    """A `Mapper` and the encoder that feeds it. One thread drives it.

    Crops of keyframes are encoded from coarse to fine levels, within a level the newest keyframes first: language comes
    up everywhere quickly and sharpens later. While crops wait, `pyramid.time_share` of the working time encodes them
    and the rest trains.

    Args:
        encoder: on the same device.
    """

    def __init__(self, config: MapperConfig, encoder: Encoder, device: torch.device | str, seed: int = 0) -> None:
        self._config, self._device, self._seed = config, torch.device(device), seed
        self.encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Forgets the map and begins a new one with the settings that this object was made with."""
        self.mapper = Mapper(self._config, None, self.encoder.embed_dim, self._device, self._seed)
        self._begun: _Crops | None = None
        self._encoding_time = self._training_time = 0.0

    def ingest(self, frame: Frame) -> KeyframeDecision:
        """Offers a frame to the map. Raises ValueError when it cannot belong to it (another image size)."""
        return self.mapper.add_frame(frame)

    def advance(self) -> StepStats | None:
        """One unit of work: a training step, or a batch of crops (returns None). Before a keyframe there is none."""
        store = self.mapper.store
        if store is None or len(store) == 0:
            return None
        crops = self._next_crops(store)
        if crops is None:
            self._encoding_time = self._training_time = 0.0
        share = self.mapper.config.pyramid.time_share
        begun = time.monotonic()
        if crops is not None and self._encoding_time * (1 - share) <= self._training_time * share:
            self._settle()  # queued training steps are not the encoder's time
            self._training_time += time.monotonic() - begun
            begun = time.monotonic()
            self._encode(store, crops)
            self._settle()
            self._encoding_time += time.monotonic() - begun
            return None
        stats = self.mapper.step()
        self._training_time += time.monotonic() - begun
        return stats

    @property
    def pyramid_progress(self) -> float:
        """Share in [0, 1] of the crops of all keyframes that training can use; 0 before the first keyframe."""
        store = self.mapper.store
        if store is None or len(store) == 0:
            return 0.0
        counts = [level.count for level in store.layout.levels]
        return float((store.host_valid @ counts).sum()) / (len(store) * store.layout.total)

    def save(self, path: Path | str) -> None:
        """As `Mapper.save`, with the encoder's name."""
        self.mapper.save(path, self.encoder.name)

    def load(self, path: Path | str) -> None:
        """As `Mapper.load`; a map of another encoder is refused. Crops that were not encoded yet are encoded now."""
        self.mapper.load(path, self.encoder.name)
        self._begun = None

    def _next_crops(self, store: KeyframeStore) -> _Crops | None:
        """What to encode next: the level begun, else the coarsest level missing anywhere, of the newest keyframe."""
        begun = self._begun
        if begun is not None and store.generations[begun.slot] == begun.generation:
            return begun
        missing = ~store.host_valid
        for level in reversed(range(len(store.layout.levels))):
            for slot in store.newest_first:
                if missing[slot, level]:
                    return _Crops(slot, store.generations[slot], level, 0)
        return None

    @torch.no_grad()
    def _encode(self, store: KeyframeStore, crops: _Crops) -> None:
        level = store.layout.levels[crops.level]
        stop = min(crops.start + self.mapper.config.pyramid.batch, level.count)
        image = store.images[crops.slot].permute(2, 0, 1).float() / 255
        cut = store.layout.crops(image, crops.level, crops.start, stop, self.encoder.image_size)
        embeds = self.encoder.encode_images(cut)
        store.write_embeds(crops.slot, crops.generation, level.offset + crops.start, embeds)
        if stop == level.count:
            store.finish_level(crops.slot, crops.generation, crops.level)
            self._begun = None
        else:
            self._begun = _Crops(crops.slot, crops.generation, crops.level, stop)
        self.mapper.version += 1

    def _settle(self) -> None:
        """Waits for the device, so that its time is booked where it belongs."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
