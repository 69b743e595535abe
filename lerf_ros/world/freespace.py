"""Where a camera can be: not in walls, not in things, nothing right before the lens."""

from __future__ import annotations

import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.render import Scene
from lerf_ros.world.truth import TruthObject

_PROBE = Camera(8.0, 8.0, 4.5, 3.5, 10, 8)  # a few rays, to see whether something stands right before the lens


def is_free(x_world: np.ndarray, size: np.ndarray, things: dict[int, TruthObject], margin: float = 0.12) -> bool:
    """Whether a point (3,) lies in a room of `size`, away from walls and from the boxes of all things."""
    half = size[:2] / 2 - 2 * margin
    if (np.abs(x_world[:2]) > half).any() or not margin < x_world[2] < size[2] - margin:
        return False
    return not any(t.box.contains(x_world, margin) for t in things.values() if t.role != "structure")


def sees(scene: Scene, eye: np.ndarray, target: np.ndarray, instance: int) -> bool:
    """Whether the straight line from the eye to the target first meets that instance."""
    face = scene.cast(eye, (target - eye)[None])["primID"][0]
    return bool(face >= 0 and scene.instance[face] == instance)


def clearance(scene: Scene, T_world_camera: np.ndarray) -> float:
    """The smallest depth_z (m) before a camera, over a few rays."""
    return float(np.nanmin(scene.masks(_PROBE, T_world_camera)[0]))
