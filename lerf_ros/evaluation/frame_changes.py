"""Changes of a stream of frames, for comparisons: less is measured, or worse, or less often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from lerf_ros.evaluation.variants import FramesChange
from lerf_ros.mapping.frame import Frame


def without_depth(frames: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
    """Colours and poses only."""
    return [replace(frame, depth_z=None) for frame in frames]


def pose_noise(metres: float = 0.0, degrees: float = 0.0) -> FramesChange:
    """Each pose is moved by itself, in the camera's own frame: ``T_world_camera @ N`` where N translates by a normal
    distribution of `metres` per axis and turns by a rotation vector of `degrees` per axis.

    The same random numbers make the noise of every size, so that differences between sizes are not those of the draw.
    """

    def change(frames: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
        changed = []
        for frame in frames:
            N = np.eye(4)
            N[:3, 3] = metres * rng.standard_normal(3)
            N[:3, :3] = Rotation.from_rotvec(degrees * rng.standard_normal(3), degrees=True).as_matrix()
            changed.append(replace(frame, T_world_camera=frame.T_world_camera @ N))
        return changed

    change.__qualname__ = f"pose_noise({metres}, {degrees})"  # results are told apart by it
    return change


def every_nth(n: int) -> FramesChange:
    """Every n-th frame, from the first."""

    def change(frames: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
        return list(frames[::n])

    change.__qualname__ = f"every_nth({n})"
    return change
