"""Why frames were not used, and how often: every reason that exists, in one place."""

from __future__ import annotations

import threading
from enum import Enum


class DropReason(str, Enum):
    """One word for each way in which an image does not become a frame of the map."""

    BAD_IMAGE = "bad_image"  # empty, truncated, damaged or of an unknown encoding
    NO_CAMERA_INFO = "no_camera_info"  # nothing on ~/camera_info
    BAD_CAMERA_INFO = "bad_camera_info"  # uncalibrated, of an unknown distortion model, or of another image size
    NO_POSE = "no_pose"  # no pose near enough to the image's stamp
    BAD_POSE = "bad_pose"  # NaN, not a unit quaternion, or between other frames than map and camera
    NO_DEPTH = "no_depth"  # depth is required and did not come
    BAD_DEPTH = "bad_depth"  # empty, truncated, damaged or of an unknown encoding
    UNREGISTERED_DEPTH = "unregistered_depth"  # of another frame or aspect than the image
    STALE = "stale"  # not newer than the image before it
    OVERRUN = "overrun"  # a newer frame came before the mapper had time for this one
    REJECTED = "rejected"  # the mapper refused it


class DroppedFrame(Exception):
    """An image cannot become a frame; the text says why and what to do."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class DropCounter:
    """Counts by reason and remembers the latest detail of each. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[DropReason, int] = {}
        self._details: dict[DropReason, str] = {}

    def add(self, reason: DropReason, detail: str = "") -> None:
        with self._lock:
            self._counts[reason] = self._counts.get(reason, 0) + 1
            self._details[reason] = detail

    def count(self, reason: DropReason) -> int:
        with self._lock:
            return self._counts.get(reason, 0)

    def total(self) -> int:
        with self._lock:
            return sum(self._counts.values())

    def snapshot(self) -> list[tuple[str, int]]:
        """("reason: latest detail", count) of every reason that occurred, the first to occur first."""
        with self._lock:
            return [
                (f"{reason.value}: {self._details[reason]}" if self._details[reason] else reason.value, count)
                for reason, count in self._counts.items()
            ]
