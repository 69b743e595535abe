"""What is compared: named changes of settings, frames and time, and the methods that are asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper

FramesChange = Callable[[Sequence[Frame], np.random.Generator], Sequence[Frame]]
MapperFactory = Callable[[MapperConfig, Encoder, torch.device, int], OnlineMapper]


def as_they_are(frames: Sequence[Frame], rng: np.random.Generator) -> Sequence[Frame]:
    return frames


@dataclass(frozen=True)
class Variant:
    """One way to map a room and to ask the map.

    Attributes:
        name: unique among `ablations.VARIANTS`, and in all results.
        settings: {dotted name: value} over the preset's settings, see `MapperConfig.override`.
        frames: changes the stream (pose noise, no depth, ...); its random numbers depend on the room alone.
        budget: share of the run's seconds (or steps) that this variant gets.
        methods: names in `methods.METHODS`, all asked on the same finished map.
        mapper: makes the map; another class stands for another way of mapping.
        rooms: at most so many of the run's rooms, the first ones; None: all.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    frames: FramesChange = as_they_are
    budget: float = 1.0
    methods: tuple[str, ...] = ("field",)
    mapper: MapperFactory = OnlineMapper
    rooms: int | None = None
