"""Which frames of a stream become keyframes."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.config import KeyframeConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.scene import measured_points

_RECENT_FRAMES = 15  # frames over which the median sharpness is taken


def motion(T_world_camera: Pose, others: NDArray[np.float64], config: KeyframeConfig) -> NDArray[np.float64]:
    """How far a camera is from others, in keyframe steps: the larger of translation and rotation, each in units of
    its threshold. Above 1 means "moved". (K,) for others (K, 4, 4); the angle as in `geometry.poses.rotation_angle`."""
    translation = np.linalg.norm(others[:, :3, 3] - T_world_camera[:3, 3], axis=-1)
    chord = np.linalg.norm(others[:, :3, :3] - T_world_camera[:3, :3], axis=(-2, -1)) / np.sqrt(8.0)
    rotation = 2.0 * np.arcsin(np.minimum(chord, 1.0))
    return np.maximum(translation / config.translation, rotation / config.rotation)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the half-size grey image (Pech-Pacheco et al. 2000): low when blurred."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(grey.shape) > 1 else grey
    return float(cv2.Laplacian(half, cv2.CV_32F).var())


def cells_seen(frame: Frame, size: float) -> NDArray[np.int64]:
    """Sorted keys of the cells of edge `size` metres in which the frame measured depth; empty without depth."""
    return cells_of(measured_points(frame), size)


def cells_of(x_world: NDArray[np.float64], size: float) -> NDArray[np.int64]:
    """Sorted keys of the cells of edge `size` metres in which points (N, 3) lie."""
    i, j, k = (np.floor(x_world / size).astype(np.int64) & 0x1FFFFF).T
    return np.unique(i << 42 | j << 21 | k)


@dataclass(frozen=True)
class Selection:
    """What became of an offered frame: the frame to keep now (an earlier one that waited, perhaps), or None."""

    frame: Frame | None
    reason: str


class KeyframeSelector:
    """Decides on each frame of a stream, in order.

    A frame is wanted when it moved more than `keyframe.translation` or `keyframe.rotation` from the nearest keyframe,
    or when more than `keyframe.unseen_share` of the cells that it sees are unmapped. A wanted frame that is blurred
    against its recent neighbours waits for a sharper one that is wanted too; after `keyframe.blur_wait` frames the
    sharpest of those that waited is taken anyway. One frame waits at most.
    """

    def __init__(self, config: KeyframeConfig) -> None:
        self._config = config
        self._recent: deque[float] = deque(maxlen=_RECENT_FRAMES)
        self._waiting: tuple[Frame, float] | None = None
        self._waited = 0

    def tune(self, config: KeyframeConfig) -> None:
        """Other thresholds from the next frame on."""
        self._config = config

    def forget(self) -> None:
        """Drops the frame that waits, if one does."""
        self._waiting = None

    def offer(self, frame: Frame, poses: NDArray[np.float64], seen: NDArray[np.int64]) -> Selection:
        """Decides on a frame.

        Args:
            poses: (K, 4, 4) T_world_camera of the keyframes.
            seen: sorted keys of the cells that keyframes saw (`cells_seen`).
        """
        sharp = sharpness(frame.image)
        self._recent.append(sharp)
        blurred = sharp < self._config.blur_ratio * float(np.median(self._recent))
        reason = self._why_wanted(frame, poses, seen)
        if reason and not blurred:
            self._waiting = None
            return Selection(frame, reason)
        if self._waiting is not None:
            self._waited += 1
        if reason and (self._waiting is None or sharp > self._waiting[1]):
            self._waited = 0 if self._waiting is None else self._waited
            self._waiting = (frame, sharp)
        if self._waiting is None:
            return Selection(None, "has not moved")
        if self._waited < self._config.blur_wait:
            return Selection(None, "blurred: waits for a sharper neighbour")
        sharpest, self._waiting = self._waiting[0], None
        return Selection(sharpest, "blurred, but no sharper neighbour came")

    def _why_wanted(self, frame: Frame, poses: NDArray[np.float64], seen: NDArray[np.int64]) -> str:
        if len(poses) == 0:
            return "first keyframe"
        if motion(frame.T_world_camera, poses, self._config).min() > 1.0:
            return "moved"
        cells = cells_seen(frame, self._config.unseen_voxel)
        if len(cells) and np.isin(cells, seen, invert=True).mean() > self._config.unseen_share:
            return "sees unmapped volume"
        return ""
