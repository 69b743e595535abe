"""Furnishes a room: what stands where, from one random generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerf_ros.world.kinds import structure
from lerf_ros.world.kinds.catalogue import OBJECTS, build_furniture, build_object, colours_of, lookalikes
from lerf_ros.world.kinds.furniture import Surface
from lerf_ros.world.placement import Footprint, best_spot
from lerf_ros.world.poses import standing
from lerf_ros.world.shapes import Shape

OBJECT_GAP = 0.07  # m, between things on one surface
ON_SURFACE = {
    "table": 5,
    "round table": 3,
    "desk": 4,
    "bookcase": 3,
    "cabinet": 5,
    "sofa": 2,
    "armchair": 1,
    "bed": 2,
    "stool": 1,
}


@dataclass(frozen=True)
class Placed:
    """A shape in its place. `supported_by` is the index of what it stands on (None: the room itself)."""

    kind: str
    colour: str
    role: str
    shape: Shape
    T_world_shape: np.ndarray
    supported_by: int | None = None


class Layout:
    """A furnished room of `size` (x, y, height), its middle at the origin, floor at z = 0; `placed` is all in it."""

    def __init__(self, rng: np.random.Generator, split: str) -> None:
        self._rng, self._split = rng, split
        self.size = np.array([rng.uniform(4.2, 6.0), rng.uniform(4.0, 5.0), 2.5])
        self.placed: list[Placed] = []
        self.footprints: list[Footprint] = []  # furniture and objects, world
        self._keep_free: list[Footprint] = []  # in front of the door
        self._on_wall: list[tuple[int, float, float]] = []  # wall, position, half width of what hangs there
        self._named: set[tuple[str, str]] = set()
        self._counts: dict[str, int] = {}
        self._build_structure()
        surfaces = self._furnish()
        self._decorate_walls()
        for index, surface, pose, count in surfaces:
            self._fill(index, surface, pose, count)
        self._fill_floor(int(rng.integers(5, 8)))

    # -- the room ---------------------------------------------------------------------------------------------------

    def _build_structure(self) -> None:
        rng = self._rng
        for name, build, colours in (
            ("wall", structure.walls, list(structure.WALL_COLOURS)),
            ("floor", structure.floor, structure.FLOOR_COLOURS),
            ("ceiling", structure.ceiling, ("white",)),
        ):
            colour = str(rng.choice(colours))
            self.placed.append(Placed(name, colour, "structure", build(self.size, colour, rng), np.eye(4)))
        wall, along = int(rng.integers(4)), rng.uniform(-0.8, 0.8)
        self._hang("door", structure.door, ("white", "wooden", "brown", "green", "blue", "red"), wall, along, 0.5)
        inward = self._wall_pose(wall, along, 0.45)
        self._keep_free.append(Footprint(inward[:2, 3], np.array([0.45, 0.5]), _yaw(inward), 0, 2))

    def _wall_pose(self, wall: int, along: float, depth: float, z: float = 0.0) -> np.ndarray:
        """Standing `depth` m from wall 0..3, looking into the room; `along` is the distance from the wall's middle."""
        yaw = wall * np.pi / 2
        inward, side = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
        xy = -inward * (self.size[wall % 2] / 2 - depth) + side * along
        return standing(xy[0], xy[1], z, yaw)

    def _hang(self, kind: str, build, colours, wall: int, along: float, half_width: float) -> None:
        colour = str(self._rng.choice(colours))
        pose = self._wall_pose(wall, along, 0.0)
        self.placed.append(Placed(kind, colour, "structure", build(colour, self._rng), pose))
        self._on_wall.append((wall, along, half_width))

    def _decorate_walls(self) -> None:
        """A window and some pictures, where nothing tall stands before them."""
        rng, tall = self._rng, [f for f in self.footprints if f.high > 1.0]
        wanted: list[tuple] = [("window", structure.window, ("white", "wooden", "brown"), 0.72)]
        wanted += [("picture", structure.picture, ("wooden", "black", "white", "yellow", "brown"), 0.42)] * int(
            rng.integers(2, 5)
        )
        for kind, build, colours, half in wanted:
            for _ in range(20):
                wall = int(rng.integers(4))
                along = rng.uniform(-1, 1) * (self.size[1 - wall % 2] / 2 - half - 0.1)
                pose = self._wall_pose(wall, along, 0.1)
                spot = Footprint(pose[:2, 3], np.array([0.1, half]), _yaw(pose), 0.9, 2.2)
                free = all(w != wall or abs(a - along) > h + half + 0.05 for w, a, h in self._on_wall)
                if free and all(spot.gap(f) > 0.05 for f in tall):
                    self._hang(kind, build, colours, wall, along, half)
                    break

    # -- furniture --------------------------------------------------------------------------------------------------

    def _colour(self, kind: str) -> str | None:
        """A colour that makes `kind` and everything that looks like it unambiguous in this room; None when used up."""
        taken = {colour for other, colour in self._named if other in lookalikes(kind)}
        free = [c for c in colours_of(kind, self._split) if c not in taken]
        return str(self._rng.choice(free)) if free else None

    def _furnish(self) -> list[tuple[int, Surface, np.ndarray, int]]:
        rng = self._rng
        centre_piece = str(rng.choice(["table", "round table", "table"]))
        beside_walls = ["bookcase", "cabinet", str(rng.choice(["sofa", "bed", "sofa"])), "desk"]
        beside_walls += [
            str(k)
            for k in rng.choice(["armchair", "cabinet", "stool", "bookcase"], int(rng.integers(1, 3)), replace=False)
        ]
        carriers: list[tuple[int, Surface, np.ndarray, int]] = []
        for kind in beside_walls:
            carriers += self._place_furniture(kind, self._beside_wall)
        table_at = len(self.placed)
        carriers += self._place_furniture(centre_piece, self._in_the_middle)
        if len(self.placed) > table_at:
            self._place_chairs(table_at, int(rng.integers(1, 3)))
            colour = str(rng.choice(structure.RUG_COLOURS))
            table = self.placed[table_at].T_world_shape
            pose = standing(table[0, 3] * 0.5, table[1, 3] * 0.5, 0, float(rng.choice([0, np.pi / 2])))
            self.placed.append(Placed("rug", colour, "structure", structure.rug(colour, rng), pose))
        return carriers

    def _place_furniture(self, kind: str, propose, gap: float = 0.12) -> list[tuple[int, Surface, np.ndarray, int]]:
        colour = self._colour(kind)
        if colour is None:
            return []
        shape, surfaces = build_furniture(kind, colour, self._rng)
        spot = best_spot(self._rng, lambda rng: propose(rng, shape), self.footprints + self._keep_free, gap)
        if spot is None:
            return []
        pose = self._put(kind, colour, "furniture", shape, spot)
        index = len(self.placed) - 1
        return [(index, surface, pose, ON_SURFACE[kind]) for surface in surfaces]

    def _put(
        self, kind: str, colour: str, role: str, shape: Shape, spot: Footprint, support: int | None = None
    ) -> np.ndarray:
        """Adds a shape so that the middle of its footprint is at the spot; returns its pose."""
        vertices = shape.vertices()
        middle = (vertices.min(axis=0) + vertices.max(axis=0))[:2] / 2
        xy = spot.centre - middle @ spot.axes
        pose = standing(xy[0], xy[1], spot.low, spot.yaw)
        self.placed.append(Placed(kind, colour, role, shape, pose, support))
        self.footprints.append(spot)
        self._named.add((kind, colour))
        self._counts[kind] = self._counts.get(kind, 0) + 1
        return pose

    def _footprint(self, shape: Shape, xy: np.ndarray, yaw: float, z: float = 0.0) -> Footprint:
        low, high = shape.vertices().min(axis=0), shape.vertices().max(axis=0)
        return Footprint(np.asarray(xy, dtype=np.float64), (high - low)[:2] / 2, yaw, z + low[2], z + high[2])

    def _beside_wall(self, rng: np.random.Generator, shape: Shape) -> Footprint | None:
        depth, width = np.ptp(shape.vertices(), axis=0)[:2] / 2
        wall = int(rng.integers(4))
        reach = self.size[1 - wall % 2] / 2 - width - 0.05
        if reach <= 0:
            return None
        pose = self._wall_pose(wall, rng.uniform(-reach, reach), depth + 0.02)
        return self._footprint(shape, pose[:2, 3], _yaw(pose))

    def _in_the_middle(self, rng: np.random.Generator, shape: Shape) -> Footprint:
        xy = rng.uniform(-1, 1, 2) * (self.size[:2] / 2 - 1.5)
        return self._footprint(shape, xy, float(rng.choice([0, np.pi / 2])) + rng.uniform(-0.08, 0.08))

    def _place_chairs(self, table: int, count: int) -> None:
        """Chairs around a table, looking at it."""
        pose = self.placed[table].T_world_shape
        half = np.ptp(self.placed[table].shape.vertices(), axis=0)[:2] / 2

        def at_table(rng: np.random.Generator, shape: Shape) -> Footprint | None:
            side = int(rng.integers(4))
            out = np.array([np.cos(side * np.pi / 2), np.sin(side * np.pi / 2)])
            xy = out * (half + rng.uniform(0.3, 0.4)) + out[::-1] * rng.uniform(-0.25, 0.25)
            world = pose[:2, :2] @ xy + pose[:2, 3]
            outward = pose[:2, :2] @ out
            spot = self._footprint(shape, world, float(np.arctan2(-outward[1], -outward[0]) + rng.uniform(-0.25, 0.25)))
            limit = self.size[:2] / 2 - 0.05
            return spot if spot.inside(-limit, limit) else None

        for _ in range(count):
            self._place_furniture("chair", at_table, gap=0.03)

    # -- things -----------------------------------------------------------------------------------------------------

    def _object(self, place: str, headroom: float) -> tuple[str, str, Shape] | None:
        """A new object for a place, of a kind that the room has fewest of."""
        rng = self._rng
        kinds = [k for k in OBJECTS.values() if place in k.places]
        weights = np.array([0.06 ** self._counts.get(k.name, 0) for k in kinds])
        for _ in range(8):
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
            colour = self._colour(kind.name)
            if colour is None:
                continue
            shape = build_object(kind.name, colour, rng, rng.uniform(0.95, 1.3))
            if np.ptp(shape.vertices()[:, 2]) < headroom:
                return kind.name, colour, shape
        return None

    def _fill(self, support: int, surface: Surface, pose: np.ndarray, count: int) -> None:
        on_it: list[Footprint] = []
        yaw = _yaw(pose)
        for _ in range(count):
            chosen = self._object(surface.place, surface.headroom)
            if chosen is None:
                continue
            kind, colour, shape = chosen
            limit = np.radians(OBJECTS[kind].turned_deg)

            def on_surface(rng: np.random.Generator, shape=shape, limit=limit) -> Footprint | None:
                local = rng.uniform(-0.5, 0.5, 2) * [surface.depth, surface.width]
                turn = rng.uniform(-limit, limit)
                edge = np.array([surface.depth, surface.width]) / 2
                if not self._footprint(shape, local, turn).inside(-edge, edge):
                    return None
                xyz = pose @ [surface.centre[0] + local[0], surface.centre[1] + local[1], surface.centre[2], 1]
                return self._footprint(shape, xyz[:2], yaw + turn, xyz[2])

            spot = best_spot(self._rng, on_surface, on_it, OBJECT_GAP)
            if spot is not None:
                on_it.append(spot)
                self._put(kind, colour, "object", shape, spot, support)

    def _fill_floor(self, count: int) -> None:
        """Things on the floor, near the walls, beside the furniture."""
        limit = self.size[:2] / 2 - 0.06
        rug = [p for p in self.placed if p.kind == "rug"]
        blocked = (
            self.footprints
            + self._keep_free
            + [self._footprint(r.shape, r.T_world_shape[:2, 3], _yaw(r.T_world_shape)) for r in rug]
        )
        for _ in range(count):
            chosen = self._object("floor", 1.2)
            if chosen is None:
                continue
            kind, colour, shape = chosen
            turned = np.radians(min(OBJECTS[kind].turned_deg, 50))

            def on_floor(rng: np.random.Generator, shape=shape, turned=turned) -> Footprint | None:
                wall = int(rng.integers(4))
                pose = self._wall_pose(wall, rng.uniform(-0.5, 0.5) * self.size[1 - wall % 2], rng.uniform(0.2, 0.7))
                spot = self._footprint(shape, pose[:2, 3], _yaw(pose) + rng.uniform(-turned, turned))
                return spot if spot.inside(-limit, limit) else None

            spot = best_spot(self._rng, on_floor, blocked, 0.1)
            if spot is not None:
                blocked.append(spot)
                self._put(kind, colour, "object", shape, spot)


def _yaw(pose: np.ndarray) -> float:
    return float(np.arctan2(pose[1, 0], pose[0, 0]))
