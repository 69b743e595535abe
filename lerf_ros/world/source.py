"""Where frames come from: a generated room or a recording, behind one interface."""

from __future__ import annotations

from typing import Protocol

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame


class FrameSource(Protocol):
    """A finite, ordered stream of posed frames from one camera."""

    name: str
    camera: Camera
    rate_hz: float

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Frame: ...
