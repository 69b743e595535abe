"""Random camera poses that look at something and are nowhere inside anything."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.freespace import clearance, is_free, sees
from lerf_ros.world.poses import look_at
from lerf_ros.world.render import Scene
from lerf_ros.world.truth import TruthObject

CLEARANCE = 0.25  # m, nothing is nearer to the camera along a probe ray


def random_viewpoint(
    scene: Scene,
    size: np.ndarray,
    things: dict[int, TruthObject],
    rng: np.random.Generator,
    near: float = 0.5,
    far: float = 3.0,
) -> np.ndarray:
    """T_world_camera (4, 4): `near` to `far` m from an object (mostly), furniture or anything, 0.4 to 2 m high.

    What is looked at may lie anywhere in the middle of the picture and is not hidden.

    Raises:
        RuntimeError: no free place was found (does not happen in generated rooms).
    """
    for _ in range(400):
        target, instance = _target(size, things, rng)
        distance = np.exp(rng.uniform(np.log(near), np.log(far)))
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(3, 55))
        direction = np.array(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        )
        eye = target + distance * direction
        if not 0.4 <= eye[2] <= 2.0 or not is_free(eye, size, things):
            continue
        if instance is not None and not sees(scene, eye, target, instance):
            continue
        aim = target + rng.uniform(-0.22, 0.22, 3) * distance
        pose = look_at(eye, aim, roll=rng.normal(0, 0.05))
        if clearance(scene, pose) > CLEARANCE:
            return pose
    raise RuntimeError("no free viewpoint found in this room")


def _target(
    size: np.ndarray, things: dict[int, TruthObject], rng: np.random.Generator
) -> tuple[np.ndarray, int | None]:
    choice = rng.random()
    role = "object" if choice < 0.72 else "furniture" if choice < 0.86 else None
    options = [thing for thing in things.values() if thing.role == role]
    if not options:
        return rng.uniform(-0.45, 0.45, 3) * size + [0, 0, size[2] * 0.45], None
    thing = options[int(rng.integers(len(options)))]
    boxes = [thing.box, thing.box, *thing.parts.values()]  # parts get their share of the views
    return boxes[int(rng.integers(len(boxes)))].centre, thing.instance_id
