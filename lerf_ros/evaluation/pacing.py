"""Frames of a source at an even pace, with work in between: what a robot's camera does to the mapper, without ROS."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lerf_ros.mapping.frame import Frame


def drive(
    frames: Sequence[Frame], seconds: float, ingest: Callable[[Frame], object], work: Callable[[], object]
) -> None:
    """Hands over the frames evenly during the first half of the time and works throughout.

    Args:
        ingest: takes a frame, e.g. `Mapper.add_frame`.
        work: one unit of work, e.g. `Mapper.step`.
    """
    began, fed = time.monotonic(), 0
    while (elapsed := time.monotonic() - began) < seconds:
        due = min(len(frames), 1 + int(2 * elapsed / seconds * len(frames)))
        for frame in frames[fed:due]:
            ingest(frame)
        fed = due
        work()
