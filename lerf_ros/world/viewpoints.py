"""Random camera poses that look at something and are nowhere inside anything."""

from __future__ import annotations

import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.poses import look_at
from lerf_ros.world.room import Room

_PROBE = Camera(8.0, 8.0, 4.5, 3.5, 10, 8)  # a few rays, to see whether something stands right before the lens
CLEARANCE = 0.25  # m, nothing is nearer to the camera along a probe ray


def random_viewpoint(room: Room, rng: np.random.Generator, near: float = 0.5, far: float = 3.0) -> np.ndarray:
    """T_world_camera (4, 4): 0.5 to 3 m from an object (mostly), a piece of furniture or anything, at the height of people and tables.

    What is looked at may lie anywhere in the middle of the picture and is not hidden.

    Raises:
        RuntimeError: no free place was found (does not happen in generated rooms).
    """
    for _ in range(400):
        target, instance = _target(room, rng)
        distance = np.exp(rng.uniform(np.log(near), np.log(far)))
        azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(3, 55))
        direction = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
        eye = target + distance * direction
        if not 0.4 <= eye[2] <= 2.0 or not is_free(room, eye):
            continue
        if instance is not None and not sees(room, eye, target, instance):
            continue
        aim = target + rng.uniform(-0.22, 0.22, 3) * distance
        pose = look_at(eye, aim, roll=rng.normal(0, 0.05))
        if clearance(room, pose) > CLEARANCE:
            return pose
    raise RuntimeError(f"no free viewpoint found in {room.name}")


def _target(room: Room, rng: np.random.Generator) -> tuple[np.ndarray, int | None]:
    choice = rng.random()
    things = room.objects if choice < 0.72 else room.furniture if choice < 0.86 else []
    if not things:
        return rng.uniform(-0.45, 0.45, 3) * room.size + [0, 0, room.size[2] * 0.45], None
    thing = things[int(rng.integers(len(things)))]
    boxes = [thing.box, thing.box, *thing.parts.values()]  # parts get their share of the views
    return boxes[int(rng.integers(len(boxes)))].centre, thing.instance_id


def is_free(room: Room, x_world: np.ndarray, margin: float = 0.12) -> bool:
    """Whether a point (3,) lies in the room, away from walls and from the boxes of all things."""
    half = room.size[:2] / 2 - 2 * margin
    if (np.abs(x_world[:2]) > half).any() or not margin < x_world[2] < room.size[2] - margin:
        return False
    return not any(t.box.contains(x_world, margin) for t in room.things.values() if t.role != "structure")


def sees(room: Room, eye: np.ndarray, target: np.ndarray, instance: int) -> bool:
    """Whether the straight line from the eye to the target first meets that instance."""
    hits = room.scene.cast(eye, (target - eye)[None])
    return bool(hits["primID"][0] >= 0 and room.scene.instance[hits["primID"][0]] == instance)


def clearance(room: Room, T_world_camera: np.ndarray) -> float:
    """The smallest depth_z (m) before a camera."""
    return float(np.nanmin(room.scene.masks(_PROBE, T_world_camera)[0]))
