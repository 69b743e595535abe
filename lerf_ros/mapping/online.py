"""The map while the robot drives: training and encoding share the time, one bounded unit of work after another."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from lerf_ros.captured import Aside
from lerf_ros.features.dense import load_dense
from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_device
from lerf_ros.keyframes.depth_prior import load_depth_prior
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.corrections import Correction, Trajectory
from lerf_ros.mapping.extraction import MapSurface
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.mapper import KeyframeDecision, Mapper
from lerf_ros.mapping.shrinking import Shrinking
from lerf_ros.mapping.stereo_depth import StereoWork
from lerf_ros.mapping.training import StepStats

_LOG = logging.getLogger(__name__)
_LONGEST_UNIT = 0.5  # s, of stereo: what takes longer was compiling kernels


class _Part(NamedTuple):
    """Of the crops of a level, those from ``start`` to before ``stop``."""

    level: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Crops:
    """Crops of a level of a keyframe that are still to be encoded."""

    slot: int
    level: int


@dataclass(frozen=True)
class _Image:
    """A keyframe whose dense features are still to be encoded."""

    slot: int
    generation: int


class OnlineMapper:
    """A `Mapper` and the encoder that feeds it. One thread drives it.

    Crops of keyframes are encoded from coarse to fine levels, within a level the newest keyframes first: language comes
    up everywhere quickly and sharpens later. Coarse levels are small: what they leave of a batch of `pyramid.batch`
    crops is filled with the next coarse levels of the same keyframe. Dense features, where `dense.model` wants them,
    come after the first of these batches: they are no answer by themselves, but cost little and regularise all that
    follows. While anything waits, it is encoded for `pyramid.time_share` of the working time (`pyramid.urgent_share`
    while coarse levels wait): on a GPU beside training, elsewhere in its place.

    When the device's memory runs out, crops per unit of work, rays per step or crops per batch of a closer look are
    halved for the rest of the map's life, with a warning.

    Args:
        encoder: on the same device.

    Raises:
        EncoderError: `dense.model` cannot be loaded.
        DepthPriorError: `depth.prior` cannot be loaded.
    """

    def __init__(self, config: MapperConfig, encoder: Encoder, device: torch.device | str, seed: int = 0) -> None:
        self._device, self._seed = torch.device(device), seed
        self._aside = Aside(self._device)
        self.encoder = encoder
        self._depth_prior = load_depth_prior(config.depth.prior, device)
        self._dense = load_dense(config.dense.model, config.dense.pretrained, device, encoder)
        # a map knows which features it was made with, whatever "auto" means elsewhere
        self._config = config if self._dense is None else config.override({"dense.model": self._dense.name})
        self.reset()

    def reset(self) -> None:
        """Forgets the map and begins a new one with the settings that this object was made with."""
        dense_dim = self._dense.dim if self._dense is not None else 0
        self.mapper = Mapper(
            self._config, None, self.encoder.embed_dim, self._device, self._seed, dense_dim, self._depth_prior
        )
        self._encoding_time = self._working_time = self._owed_by_stereo = 0.0
        self._begin()

    def _begin(self) -> None:
        """What belongs to the former map is forgotten, its close-ups with the keyframes that they hold included."""
        self._begun: dict[tuple[int, int, int], int] = {}  # (slot, generation, level): crops that are encoded
        self._close_ups: CloseUps | None = None
        self._at_once = Shrinking("pyramid.batch", self.mapper.config.pyramid.batch)
        self._encoded: list[Callable[[], object]] | None = None  # to be called when what is being encoded is there

    def ingest(self, frame: Frame) -> KeyframeDecision:
        """Offers a frame to the map."""
        return self.mapper.add_frame(frame)

    def tune(self, values: Mapping[str, float]) -> None:
        """As `Mapper.tune`; holds beyond a reset."""
        self.mapper.tune(values)
        self._config = self._config.override(values)

    def correct(self, trajectory: Trajectory) -> Correction:
        """As `Mapper.correct`; crops belong to images, wherever these were taken."""
        return self.mapper.correct(trajectory)

    def advance(self, may_step: bool = True) -> StepStats | None:
        """One unit of work: a training step, or encoding, or finding depth of a keyframe (both return None). Before a
        keyframe there is none. Refined poses are taken over from the background before it.

        Args:
            may_step: False: encoding only, if there is any to do.
        Raises:
            torch.OutOfMemoryError: even the smallest unit takes more memory than there is.
        """
        store = self.mapper.store
        if store is None or len(store) == 0:
            return None
        self.mapper.refine_poses()
        if (work := self._next_stereo()) is not None:
            self._find_depth(work)
            return None
        begun = time.monotonic()
        stats = self._encode_or_step(store, may_step)
        self._owed_by_stereo -= time.monotonic() - begun
        return stats

    def _next_stereo(self) -> StereoWork | None:
        """What is to be done now for the depth of keyframes: at once, if one has none yet; else as `depth.time_share`
        allows."""
        stereo = self.mapper.stereo
        work = stereo.next_work if stereo is not None else None
        return work if work is not None and (work.urgent or self._owed_by_stereo <= 0) else None

    def _find_depth(self, work: StereoWork) -> None:
        self._wait_for_training()
        begun = time.monotonic()
        self.mapper.find_depth(work)
        self._wait_for_training()
        taken, share = min(time.monotonic() - begun, _LONGEST_UNIT), self.mapper.config.depth.time_share
        owed = taken * (1 - share) / share if share > 0 else math.inf
        self._owed_by_stereo = max(self._owed_by_stereo, owed)  # not the sum: urgent work is not paid back

    def _encode_or_step(self, store: KeyframeStore, may_step: bool) -> StepStats | None:
        begun = time.monotonic()
        stats = None if self._encode(store, must=not may_step) or not may_step else self.mapper.step()
        self._working_time += time.monotonic() - begun
        return stats

    def _encode(self, store: KeyframeStore, must: bool) -> bool:
        """Begins to encode what comes next, if nothing is being encoded and its share of the time, or `must`, allows.
        Returns whether it did."""
        if self._aside.is_busy:
            if not must:
                return False
            self._aside.wait()
        self._finish_encoding()
        waiting = self._next_to_encode(store) if self.encoding else None
        if waiting is None:
            self._encoding_time = self._working_time = 0.0
            return False
        if not must and self._encoding_time > self._encoding_share(store, waiting) * self._working_time:
            return False
        self._encoding_since = time.monotonic()
        if isinstance(waiting, _Crops):
            uses = store.images, store.embeds
            encode = partial(self._encode_crops, store, waiting)
            self._encoded = self._at_once.run(lambda room: self._aside.begin(partial(encode, room), uses))
        else:
            work = partial(self._encode_image, store, waiting)
            self._encoded = self._aside.begin(work, (store.images, store.dense))
        if not self._aside.is_busy:
            self._finish_encoding()
        return True

    def _finish_encoding(self) -> None:
        """Lets training use what has been encoded by now."""
        if self._encoded is None:
            return
        for finish in self._encoded:
            finish()
        self._encoded = None
        self._encoding_time += time.monotonic() - self._encoding_since
        self.mapper.version += 1

    def _wait_for_training(self) -> None:
        """So that its time on the device is booked where it belongs."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def settle(self) -> None:
        """Waits for all that was asked of the device."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def surface(self, max_points: int, max_age: float = 0.0) -> MapSurface:
        """As `Mapper.surface`; a closer look at it asks close-ups of the keyframes, too."""
        store, config = self.mapper.store, self.mapper.config
        if store is not None and config.close_up.share > 0 and config.language.scale == "physical":
            if self._close_ups is None or self._close_ups.store is not store:
                self._close_ups = CloseUps(config.close_up, store, self.encoder)
            return self.mapper.surface(max_points, self._close_ups, max_age)
        return self.mapper.surface(max_points, max_age=max_age)

    @property
    def encoding(self) -> bool:
        """Whether anything waits to be encoded."""
        store = self.mapper.store
        return store is not None and bool(store.crops_missing or (store.dense_missing and self._encodes_dense))

    @property
    def pyramid_progress(self) -> float:
        """Share in [0, 1] of the crops of all keyframes that training can use; 0 before the first keyframe."""
        store = self.mapper.store
        if store is None or len(store) == 0:
            return 0.0
        return 1 - store.crops_missing / (len(store) * store.layout.total)

    def save(self, path: Path | str) -> None:
        """As `Mapper.save`, with the encoder's name."""
        self.mapper.save(path, self.encoder.name)

    def load(self, path: Path | str) -> None:
        """As `Mapper.load`; a map of another encoder is refused. What was not encoded yet is encoded now.

        Dense features of another kind than the present ones stay as they are; new keyframes get none.
        """
        self.mapper.load(path, self.encoder.name)
        self._begin()
        if self._dense is not None and not self._encodes_dense:
            _LOG.warning(
                "the map %s was made with the dense features '%s', not '%s': its new keyframes get none",
                path,
                self.mapper.config.dense.model,
                self._dense.name,
            )

    @property
    def _encodes_dense(self) -> bool:
        """Whether the map takes the dense features that are loaded."""
        wanted = self.mapper.config.dense.model, self.mapper.dense_dim
        return self._dense is not None and wanted == (self._dense.name, self._dense.dim)

    def _encoding_share(self, store: KeyframeStore, waiting: _Crops | _Image | None) -> float:
        """Of the working time that may go into encoding, as what waits is urgent or not."""
        pyramid = self.mapper.config.pyramid
        if isinstance(waiting, _Crops) and not self._is_coarse(store, waiting.level):
            return pyramid.time_share
        return pyramid.urgent_share

    def _is_coarse(self, store: KeyframeStore, level: int) -> bool:
        return bool(store.layout.sizes[level] >= self.mapper.config.pyramid.coarse * store.layout.height)

    def _next_to_encode(self, store: KeyframeStore) -> _Crops | _Image | None:
        """What to encode next: the coarsest level missing anywhere, one that is begun or else that of the newest
        keyframe, with dense features after the coarsest level of all."""
        missing = ~store.host_valid
        coarsest = len(store.layout.levels) - 1
        for level in range(coarsest, -1, -1):
            if missing[:, level].any():
                waiting = [slot for slot in store.newest_first if missing[slot, level]]
                slot = next((s for s in waiting if (s, store.generations[s], level) in self._begun), waiting[0])
                return _Crops(slot, level)
            if level == coarsest and self._encodes_dense:
                for slot in store.newest_first:
                    if not store.host_dense_valid[slot]:
                        return _Image(slot, store.generations[slot])
        return None

    def _batch(self, store: KeyframeStore, crops: _Crops, room: int) -> list[_Part]:
        """Up to `room` missing crops of a keyframe: of a level, then of finer ones that are coarse, too."""
        parts: list[_Part] = []
        for number in range(crops.level, -1, -1):
            if room == 0 or (parts and not self._is_coarse(store, number)):
                break
            if not store.host_valid[crops.slot, number]:
                start = self._begun.get((crops.slot, store.generations[crops.slot], number), 0)
                stop = min(start + room, store.layout.levels[number].count)
                parts.append(_Part(number, start, stop))
                room -= stop - start
        return parts

    @torch.no_grad()
    def _encode_crops(self, store: KeyframeStore, crops: _Crops, room: int) -> list[Callable[[], object]]:
        """Encodes up to `room` crops, of the level that waits and, where they fit, of others of its keyframe. Returns
        what is to be called when that is done."""
        parts, generation = self._batch(store, crops, room), store.generations[crops.slot]
        levels = [store.layout.levels[part.level] for part in parts]
        flat = [np.arange(part.start, part.stop) + level.offset for part, level in zip(parts, levels)]
        index = on_device(np.concatenate(flat), self._device)
        cut = store.layout.cut(store.images, torch.full_like(index, crops.slot), index, self.encoder.image_size)
        embeds = self.encoder.encode_images(cut).split([len(each) for each in flat])
        self._begun = {key: start for key, start in self._begun.items() if store.generations[key[0]] == key[1]}
        finished: list[Callable[[], object]] = []
        for part, level, part_embeds in zip(parts, levels, embeds):
            key = crops.slot, generation, part.level
            store.write_embeds(crops.slot, generation, level.offset + part.start, part_embeds)
            self._begun[key] = part.stop
            if part.stop == level.count:
                finished.append(partial(store.finish_level, *key))
                del self._begun[key]
        return finished

    @torch.no_grad()
    def _encode_image(self, store: KeyframeStore, image: _Image) -> list[Callable[[], object]]:
        assert self._dense is not None
        features = self._dense.encode(store.colours(image.slot)[None], store.dense_grid)[0]
        store.write_dense(image.slot, image.generation, features)
        return [partial(store.finish_dense, image.slot, image.generation)]
