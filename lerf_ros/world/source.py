"""Where frames come from: a generated room or a recording, behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.recordings import RgbdFolder
from lerf_ros.world.room import Room


class FrameSource(Protocol):
    """A finite, ordered stream of posed frames from one camera."""

    name: str
    camera: Camera
    rate_hz: float

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Frame: ...


def open_source(spec: str) -> FrameSource:
    """Opens "room:SEED" (a generated room) or the path of a recorded RGB-D folder.

    Raises:
        ValueError: the spec is neither, or the recording cannot be read; the message says what to do.
    """
    if spec.startswith("room:"):
        seed = spec.removeprefix("room:")
        if not seed.isdecimal():
            raise ValueError(f'"{spec}" does not name a room: write room:SEED with a whole number, such as room:7')
        return Room(int(seed))
    if not Path(spec).expanduser().exists():
        raise ValueError(f'"{spec}" is neither an existing folder nor of the form room:SEED, such as room:7')
    return RgbdFolder(Path(spec).expanduser())
