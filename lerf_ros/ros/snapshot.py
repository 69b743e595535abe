"""Everything that the node says about itself, gathered at one moment: what ~/status and /diagnostics are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lerf_ros.ros.input_health import InputHealth
from lerf_ros.ros.worker import WorkerStatistics

MUCH_OUTSIDE = 0.2  # of what is measured; more than that beyond the mapped volume is worth a word
_SPEED_PERIOD = 2.0  # s over which steps are counted


@dataclass(frozen=True)
class Learning:
    """How the map comes on.

    Attributes:
        steps_per_second: over the last seconds.
        age: s since the first keyframe (or since the map was loaded); NaN before.
        unchanged: s since a training step or a keyframe changed the map; NaN without one.
    """

    steps_per_second: float = 0.0
    age: float = math.nan
    unchanged: float = math.nan


class Observer:
    """Watches the worker's numbers from outside: what is called at any times knows how fast they change."""

    def __init__(self) -> None:
        self._counted, self._steps, self._speed = -math.inf, 0, 0.0
        self._begun = self._changed = math.nan
        self._seen = (0, 0)  # keyframes, steps

    def look(self, statistics: WorkerStatistics, now: float) -> Learning:
        """Args: now, s, monotonic."""
        if now - self._counted >= _SPEED_PERIOD:
            self._speed = max(0.0, (statistics.steps - self._steps) / (now - self._counted))
            self._counted, self._steps = now, statistics.steps
        seen = statistics.keyframes, statistics.steps
        if not statistics.keyframes:
            self._begun = self._changed = math.nan
        elif seen != self._seen:
            self._changed = now
            self._begun = now if math.isnan(self._begun) else self._begun
        self._seen = seen
        return Learning(self._speed, now - self._begun, now - self._changed)


@dataclass(frozen=True)
class Snapshot:
    """The node at one moment.

    Attributes:
        state: of the lifecycle, or "error" when the worker has died.
        message: what the node does or waits for, in words.
        failed: the worker has died, or the last transition did not succeed.
        device: "cpu", or the name of the GPU; empty before the node is configured.
        gpu: that the map is on; None: on the CPU, or there is none.
        drops: ("reason: latest detail", count).
        mistyped: what is wrong about names of parameters.
    """

    state: str
    message: str
    failed: bool
    device: str
    gpu: torch.device | None
    statistics: WorkerStatistics
    learning: Learning
    health: InputHealth
    drops: list[tuple[str, int]]
    mistyped: list[str]
    last_query: str
