"""Held-out views of a map: what its training steps, and seconds of work, are worth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from measuring import synchronise

from lerf_ros.evaluation.heldout import evaluate_views, rendered
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.world.recordings import RgbdFolder
from lerf_ros.world.source import open_source

_QUEUED = 20  # steps that may wait on the device: what is not done yet does not count


@dataclass(frozen=True)
class Quality:
    """Of a kind of map: mean PSNR of the held-out views, rendered without depth, and median depth error."""

    name: str
    steps: int
    seconds: float
    psnr_db: float
    depth_error_m: float


def held_out_quality(
    name: str, online: OnlineMapper, held_out: Sequence[Frame], steps: int, seconds: float, stride: int = 1
) -> list[Quality]:
    """Works, crops included, and judges the map after `steps` steps and after `seconds` of work (0: not), whichever
    comes first; rendering takes nothing from the time."""
    mapper = online.mapper
    spent, resumed, results = 0.0, time.monotonic(), []
    after_steps, after_seconds = steps > 0, seconds > 0
    while after_steps or after_seconds:
        if online.advance() is not None and mapper.steps % _QUEUED == 0:
            synchronise(mapper.device)
        steps_due = after_steps and mapper.steps >= steps
        seconds_due = after_seconds and spent + time.monotonic() - resumed >= seconds
        if steps_due or seconds_due:
            synchronise(mapper.device)
            spent += time.monotonic() - resumed
            view = evaluate_views(lambda frame: rendered(mapper, frame, stride), held_out, stride)
            results.append(Quality(name, mapper.steps, spent, view.psnr, view.depth_error))
            after_steps, after_seconds = after_steps and not steps_due, after_seconds and not seconds_due
            resumed = time.monotonic()
    return results


def held_out_frames(folder: str, training: str) -> list[Frame]:
    """All frames of a folder; where depth is not registered, as the training frames' folder says: it has more of them
    to tell from."""
    source, other = open_source(folder), open_source(training)
    if isinstance(source, RgbdFolder) and isinstance(other, RgbdFolder):
        source.registration, source.camera = other.registration, other.camera
    return [source[i] for i in range(len(source))]
