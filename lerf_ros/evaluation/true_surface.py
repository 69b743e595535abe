"""The true surface of a room: how far an answer is from what was asked for, what it lies on, and what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from trimesh.triangles import closest_point

from lerf_ros.world.parts import PARTS
from lerf_ros.world.render import Scene
from lerf_ros.world.room import Room
from lerf_ros.world.truth import TruthQuery

ON_PART = 0.005  # m; a depth camera cannot tell a decal from what it is on: that near to a part is on it
FLAT_GROWTH = 0.01  # m; two standard deviations of a depth camera's noise at 2 m: boxes of parts grow by no less
_VISIBLE = 0.003  # m, between a point and what a ray to it hits first
_FARTHEST = 4.0  # m, from which a camera is taken to see a point


class TrueSurface:
    """The mesh of a room with its labels; distances in metres, points in the map frame."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._scene: Scene = room.scene
        self._triangles = room.scene.vertices[room.scene.faces].astype(np.float64)
        self._centres = self._triangles.mean(axis=1)
        self._radii = np.linalg.norm(self._triangles - self._centres[:, None], axis=2).max(axis=1)

    def distance(self, x_world: NDArray[np.float64], instance_id: int, parts: Sequence[str] | None = None) -> float:
        """From a point (3,) to the nearest point of a thing, or of some named parts of it."""
        faces = self._scene.instance == instance_id
        if parts is not None:
            faces &= np.isin(self._scene.part, [1 + PARTS.index(part) for part in parts])
        return self._nearest(x_world, np.flatnonzero(faces))[2]

    def query_distance(self, x_world: NDArray[np.float64], query: TruthQuery) -> float:
        """From a point (3,) to the nearest point of anything that answers a (present) question."""
        return min(self.distance(x_world, i, self._parts(query, i)) for i in query.instance_ids)

    def answers(self, x_world: NDArray[np.float64], query: TruthQuery) -> bool:
        """Whether a point is a right answer: inside a grown box; for a part, and on no other part of the thing.

        On the part: no other surface of the thing is nearer (by more than `ON_PART`) than the part's own or that of
        one nested in it. The box of a flat part grows by `FLAT_GROWTH` at least.
        """
        if query.part is None:
            return any(bool(box.grown().contains(x_world)) for box in query.boxes)
        flat = [np.maximum(FLAT_GROWTH - (box.grown().size - box.size) / 2, 0) for box in query.boxes]
        inside = any(bool(box.grown().contains(x_world, grow)) for box, grow in zip(query.boxes, flat, strict=True))
        return inside and any(
            self.distance(x_world, i, self._parts(query, i)) <= self.distance(x_world, i) + ON_PART
            for i in query.instance_ids
        )

    def label(self, x_world: NDArray[np.float64]) -> tuple[int, str, float]:
        """(instance id, name of the part or "", distance) of the surface nearest to a point (3,)."""
        face, _, distance = self._nearest(x_world, np.arange(len(self._triangles)))
        return int(self._scene.instance[face]), ("", *PARTS)[self._scene.part[face]], distance

    def nearest(self, x_world: NDArray[np.float64]) -> NDArray[np.float64]:
        """The point (3,) of the surface nearest to a point (3,)."""
        return self._nearest(x_world, np.arange(len(self._triangles)))[1]

    def sample(
        self, count: int, rng: np.random.Generator, instance_id: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Points (N, 3), uniform by area over what the walk's frames show of the room, or of one thing, and the face
        (N,) of each. `count` points are drawn on the whole surface; N are left that can be seen."""
        faces = np.arange(len(self._triangles))
        if instance_id is not None:
            faces = np.flatnonzero(self._scene.instance == instance_id)
        a, b, c = self._triangles[faces].transpose(1, 0, 2)
        areas = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        chosen = faces[rng.choice(len(faces), count, p=areas / areas.sum())]
        u, v = np.sqrt(rng.random(count)), rng.random(count)
        weights = np.stack([1 - u, u * (1 - v), u * v], axis=1)
        points = np.einsum("nk,nkc->nc", weights, self._triangles[chosen])
        seen = self._seen(points)
        return points[seen], chosen[seen]

    def chance(self, query: TruthQuery, count: int, rng: np.random.Generator) -> float:
        """How often a random point of what is visible of the asked thing itself, part or not, is a right answer."""
        points = np.concatenate([self.sample(count, rng, i)[0] for i in query.instance_ids])
        return float(np.mean([self.answers(x, query) for x in points])) if len(points) else 0.0

    def _parts(self, query: TruthQuery, instance_id: int) -> tuple[str, ...] | None:
        if query.part is None:
            return None
        return (query.part, *self._room.things[instance_id].nested.get(query.part, ()))

    def _nearest(
        self, x_world: NDArray[np.float64], faces: NDArray[np.int64]
    ) -> tuple[int, NDArray[np.float64], float]:
        """The nearest of some faces (F,) to a point (3,), its nearest point (3,), and the distance. Spheres around the
        faces rule most out."""
        x_world = np.asarray(x_world, np.float64)
        to_centre = np.linalg.norm(self._centres[faces] - x_world, axis=1)
        faces = faces[to_centre - self._radii[faces] <= (to_centre + self._radii[faces]).min()]
        nearest = closest_point(self._triangles[faces], np.broadcast_to(x_world, (len(faces), 3)))
        distances = np.linalg.norm(nearest - x_world, axis=1)
        best = int(np.argmin(distances))
        return int(faces[best]), nearest[best], float(distances[best])

    def _seen(self, points: NDArray[np.float64]) -> NDArray[np.bool_]:
        seen = np.zeros(len(points), bool)
        camera = self._room.camera
        for T_world_camera in self._every_other_pose:
            left = np.flatnonzero(~seen)
            x_camera = (points[left] - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
            z = np.maximum(x_camera[:, 2], 1e-6)
            u, v = camera.fx * x_camera[:, 0] / z + camera.cx, camera.fy * x_camera[:, 1] / z + camera.cy
            inside = (x_camera[:, 2] > 0.1) & (x_camera[:, 2] < _FARTHEST)
            inside &= (u >= 0) & (u <= camera.width - 1) & (v >= 0) & (v <= camera.height - 1)
            left = left[inside]
            if len(left):
                rays = points[left] - T_world_camera[:3, 3]
                hits = self._scene.cast(T_world_camera[:3, 3], rays)
                short = np.linalg.norm(rays, axis=1) * np.abs(1 - hits["tfar"])
                seen[left] = (hits["primID"] >= 0) & (short < _VISIBLE)
        return seen

    @cached_property
    def _every_other_pose(self) -> NDArray[np.float64]:
        return self._room.trajectory[::2]
