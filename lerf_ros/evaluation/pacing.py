"""Frames of a source at an even pace, with work in between: what a robot's camera does to the mapper, without ROS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

FrameT = TypeVar("FrameT")


@dataclass(frozen=True)
class Budget:
    """How long to train: seconds of work, or training steps; one of the two.

    Raises:
        ValueError: none or both are given, or they are not positive.
    """

    seconds: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.seconds is None) == (self.steps is None):
            raise ValueError(f"a budget is a number of seconds or of steps, one of them: {self}")
        if not (self.seconds or self.steps or 0) > 0:
            raise ValueError(f"a budget must be positive: {self}")

    def __mul__(self, factor: float) -> Budget:
        if self.seconds is not None:
            return Budget(seconds=self.seconds * factor)
        assert self.steps is not None
        return Budget(steps=max(1, round(self.steps * factor)))


@dataclass(frozen=True)
class Stop:
    """A moment of a drive: the share of the budget that is spent, and the seconds of work and the training steps so far
    (all of them: a map that grows begins to count anew)."""

    share: float
    seconds: float
    steps: int


def drive(
    frames: Sequence[FrameT],
    budget: Budget,
    ingest: Callable[[FrameT], object],
    work: Callable[[], object | None],
    stops: Sequence[float] = (1.0,),
    settle: Callable[[], object] = lambda: None,
) -> Iterator[Stop]:
    """Hands over the frames evenly during the first half of the budget, works throughout, and yields at every stop;
    what the caller does then takes nothing from the budget. Nothing happens until it is iterated.

    Args:
        ingest: takes a frame, e.g. `Mapper.add_frame`.
        work: one unit of work, e.g. `Mapper.step`; None is returned by what counts as no training step.
        stops: shares of the budget, ascending in (0, 1].
        settle: waits for work that a device still has queued, before each stop.
    """
    began, paused, fed, steps = time.monotonic(), 0.0, 0, 0
    for share in stops:
        while True:
            elapsed = time.monotonic() - began - paused
            spent = elapsed / budget.seconds if budget.seconds is not None else steps / (budget.steps or 1)
            if spent >= share:
                break
            due = min(len(frames), 1 + int(2 * spent * len(frames)))
            for frame in frames[fed:due]:
                ingest(frame)
            fed = max(fed, due)
            steps += work() is not None
        settle()
        stopped = time.monotonic()
        yield Stop(share, stopped - began - paused, steps)
        paused += time.monotonic() - stopped
