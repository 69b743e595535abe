"""Corrections of poses: what a loop closure says about keyframes that are in the map already, and what their refinement
says about other frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from lerf_ros.geometry.poses import Pose


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


class Drift:
    """By how much given poses err over time, where that changes slowly from keyframe to keyframe, as errors of odometry
    and of calibration do. Where the mean error of the keyframes before and after one says less about its own than zero
    does, errors are noise, and no other pose is corrected by them.

    Errors are those of positions, m, and of orientations, rotation vectors, both in axes of the world. Between two
    keyframes they are interpolated; before the first and after the last they stay.

    Args:
        stamps_ns: (N,) int64 of keyframes, in any order.
        T_given, T_refined: (N, 4, 4) T_world_camera.
    """

    def __init__(
        self, stamps_ns: NDArray[np.int64], T_given: NDArray[np.float64], T_refined: NDArray[np.float64]
    ) -> None:
        order = np.argsort(stamps_ns, kind="stable")
        self._stamps_ns = stamps_ns[order].astype(np.float64)
        turns = T_refined[order, :3, :3] @ T_given[order, :3, :3].transpose(0, 2, 1)
        shifts = T_refined[order, :3, 3] - T_given[order, :3, 3]
        self._errors = np.concatenate([shifts, Rotation.from_matrix(turns).as_rotvec()], axis=1)  # (N, 6)
        self.is_slow = _explained(self._errors[:, :3]) + _explained(self._errors[:, 3:]) > 0

    def corrected(self, T_world_camera: Pose, stamp_ns: int) -> Pose:
        """Where a camera was in truth, as far as the keyframes around it tell."""
        if not self.is_slow:
            return T_world_camera
        error = [np.interp(float(stamp_ns), self._stamps_ns, each) for each in self._errors.T]
        pose = T_world_camera.copy()
        pose[:3, :3] = Rotation.from_rotvec(error[3:]).as_matrix() @ T_world_camera[:3, :3]
        pose[:3, 3] += error[:3]
        return pose


def _explained(errors: NDArray[np.float64]) -> float:
    """Share of the sum of squares of errors (N, D) that the mean of those before and after each explains; negative
    where it adds to them, as it does to noise."""
    inner = np.square(errors[1:-1]).sum()
    left = np.square(errors[1:-1] - (errors[:-2] + errors[2:]) / 2).sum()
    return float(1 - left / inner) if inner > 0 else 0.0
