"""Late corrections of poses: what a loop closure says about keyframes that are in the map already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp


@dataclass(frozen=True)
class Correction:
    """What came of corrected poses.

    Attributes:
        keyframes: that the map has; of them
        matched: have a stamp for which there is a pose, and
        moved: had another one; the others were where they should be.
        translation, rotation: the largest move, m and rad.
    """

    keyframes: int
    matched: int
    moved: int
    translation: float = 0.0
    rotation: float = 0.0


class Trajectory:
    """Camera poses over time.

    A pose is given at its own stamp, and between two poses that are close enough together: linear in position, with
    constant angular velocity in rotation. Never beyond the first and the last.

    Args:
        stamps_ns: (N,) int64, in any order; of equal ones, the last counts.
        T_world_camera: (N, 4, 4).
        gap: s, two poses this close together are interpolated between.
        tolerance: s, a stamp this close to that of a pose takes it as it is, where there is nothing to interpolate.
    """

    def __init__(
        self, stamps_ns: NDArray[np.int64], T_world_camera: NDArray[np.float64], gap: float, tolerance: float
    ) -> None:
        latest = {int(stamp): i for i, stamp in enumerate(stamps_ns)}
        self._stamps_ns = np.array(sorted(latest), np.int64)
        self._poses = T_world_camera[[latest[int(stamp)] for stamp in self._stamps_ns]]
        self._gap_ns, self._tolerance_ns = gap * 1e9, tolerance * 1e9

    def at(self, stamp_ns: int) -> NDArray[np.float64] | None:
        """T_world_camera (4, 4) at a stamp; None: not known."""
        stamps = self._stamps_ns
        if len(stamps) == 0:
            return None
        after = int(np.searchsorted(stamps, stamp_ns))
        if after < len(stamps) and stamps[after] == stamp_ns:
            return self._poses[after]
        if 0 < after < len(stamps) and stamps[after] - stamps[after - 1] <= self._gap_ns:
            return self._between(after, (stamp_ns - stamps[after - 1]) / (stamps[after] - stamps[after - 1]))
        nearest = min((i for i in (after - 1, after) if 0 <= i < len(stamps)), key=lambda i: abs(stamps[i] - stamp_ns))
        return self._poses[nearest] if abs(stamps[nearest] - stamp_ns) <= self._tolerance_ns else None

    def _between(self, after: int, share: float) -> NDArray[np.float64]:
        before, behind = self._poses[after - 1], self._poses[after]
        pose = np.eye(4)
        rotations = Rotation.from_matrix(np.stack([before[:3, :3], behind[:3, :3]]))
        pose[:3, :3] = Slerp([0.0, 1.0], rotations)(share).as_matrix()
        pose[:3, 3] = (1 - share) * before[:3, 3] + share * behind[:3, 3]
        return pose
