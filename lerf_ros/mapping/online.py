"""The map while the robot drives: training and encoding share the time, one bounded unit of work after another."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.mapper import KeyframeDecision, Mapper
from lerf_ros.mapping.training import StepStats


class OnlineMapper:
    """A `Mapper` and the encoder that feeds it. One thread drives it.

    Crops of keyframes are encoded from coarse to fine levels, within a level the newest keyframes first: language comes
    up everywhere quickly and sharpens later. While crops wait, `pyramid.time_share` of the working time encodes them
    and the rest trains.
    """

    def __init__(self, config: MapperConfig, encoder: Encoder, device: torch.device | str, seed: int = 0) -> None:
        self.encoder = encoder
        self.mapper = Mapper(config, None, encoder.embed_dim, device, seed)
        self._partial: dict[tuple[int, int, int], int] = {}  # (slot, generation, level) -> crops written so far
        self._encoding_time = self._working_time = 0.0

    def ingest(self, frame: Frame) -> KeyframeDecision:
        """Offers a frame to the map. Raises ValueError when it cannot belong to it (another image size)."""
        return self.mapper.add_frame(frame)

    def advance(self) -> StepStats | None:
        """One unit of work: a batch of crops (returns None) or a training step. Nothing to do before a keyframe."""
        if len(self.mapper.store_or_none() or ()) == 0:
            return None

    @property
    def pyramid_progress(self) -> float:
        """Share in [0, 1] of the crops of all keyframes that training can use; 0 before the first keyframe."""
