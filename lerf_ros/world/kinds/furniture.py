"""Furniture: shapes, and the surfaces on which other things stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lerf_ros.world.kinds.kind import PAINTED, Kind
from lerf_ros.world.materials import Material, paint
from lerf_ros.world.shapes import Shape, cuboid, cylinder, pillow

BLACK, METAL = paint("black"), paint("metal")


@dataclass(frozen=True)
class Surface:
    """A level rectangle that carries things: centre (x, y, z) in the furniture's frame, extents, free height, place."""

    centre: tuple[float, float, float]
    depth: float
    width: float
    headroom: float
    place: str


def _legs(shape: Shape, material: Material, depth: float, width: float, height: float, thickness: float = 0.05) -> None:
    for x in (-1, 1):
        for y in (-1, 1):
            shape.add(
                cuboid((thickness, thickness, height)),
                material,
                "legs",
                (x * (depth - thickness) / 2, y * (width - thickness) / 2, height / 2),
            )


def table(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    d, w, h = rng.uniform(0.75, 0.9), rng.uniform(1.2, 1.5), rng.uniform(0.7, 0.76)
    shape = Shape()
    shape.add(cuboid((d, w, 0.04)), main, "top", (0, 0, h - 0.02))
    shape.add(cuboid((d * 0.86, w * 0.9, 0.07)), main, at=(0, 0, h - 0.075))
    _legs(shape, main, d * 0.94, w * 0.96, h - 0.04, 0.065)
    return shape, [Surface((0, 0, h), d, w, 0.9, "table")]


def round_table(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    r, h = rng.uniform(0.45, 0.55), rng.uniform(0.62, 0.72)
    shape = Shape()
    shape.add(cylinder(r, 0.035, sections=48), main, "top", (0, 0, h - 0.035))
    shape.add(cylinder(0.045, h - 0.035), main, "legs")
    shape.add(cylinder(0.28, 0.03, 0.22), main, "legs")
    side = r * 1.36
    return shape, [Surface((0, 0, h), side, side, 0.9, "table")]


def desk(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    d, w, h = 0.68, rng.uniform(1.2, 1.5), 0.74
    shape = Shape()
    shape.add(cuboid((d, w, 0.035)), main, "top", (0, 0, h - 0.0175))
    shape.add(cuboid((d - 0.06, 0.4, h - 0.035)), main, "drawers", (0, w / 2 - 0.22, (h - 0.035) / 2))
    for i in range(3):
        z = 0.13 + i * 0.21
        shape.add(cuboid((0.012, 0.36, 0.19)), main, "drawers", (d / 2 - 0.028, w / 2 - 0.22, z))
        shape.add(cuboid((0.02, 0.12, 0.015)), METAL, "drawers", (d / 2 - 0.018, w / 2 - 0.22, z + 0.04))
    shape.add(cuboid((d - 0.06, 0.035, h - 0.035)), main, "legs", (0, -w / 2 + 0.03, (h - 0.035) / 2))
    return shape, [Surface((0, 0, h), d, w, 0.9, "table")]


def bookcase(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    d, w, levels, step = 0.34, rng.uniform(0.95, 1.25), 4, 0.42
    h = levels * step + 0.08
    shape = Shape()
    shape.add(cuboid((0.015, w, h)), main, "back", (-d / 2 + 0.008, 0, h / 2))
    for side in (-1, 1):
        shape.add(cuboid((d, 0.028, h)), main, "sides", (0, side * (w / 2 - 0.014), h / 2))
    surfaces = []
    for level in range(levels + 1):
        z = 0.08 + level * step
        shape.add(cuboid((d, w - 0.05, 0.026)), main, "shelves", (0, 0, z - 0.013))
        surfaces.append(Surface((0.03, 0, z), d - 0.06, w - 0.1, step - 0.05 if level < levels else 0.45, "shelf"))
    bottom = surfaces.pop(0)  # nobody sees small things down there: drawers instead
    del surfaces[-1]
    for side in (-1, 1):
        y, z = side * (w / 4 - 0.01), bottom.centre[2] + (step - 0.026) / 2
        shape.add(cuboid((d - 0.03, w / 2 - 0.04, step - 0.05)), main, "drawers", (0, y, z))
        shape.add(cuboid((0.02, 0.13, 0.016)), METAL, "drawers", (d / 2 - 0.008, y, z + 0.08))
    return shape, surfaces


def cabinet(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    d, w, h = 0.46, rng.uniform(1.0, 1.4), rng.uniform(0.72, 0.85)
    shape = Shape()
    shape.add(cuboid((d, w, h - 0.1)), main, at=(0, 0, 0.1 + (h - 0.1) / 2))
    shape.add(cuboid((d + 0.03, w + 0.03, 0.03)), main, "top", (0, 0, h - 0.015))
    _legs(shape, BLACK, d * 0.9, w * 0.95, 0.1)
    for side in (-1, 1):
        shape.add(
            cuboid((0.014, w / 2 - 0.03, h - 0.2)), main, "doors", (d / 2 + 0.004, side * w / 4, 0.1 + (h - 0.13) / 2)
        )
        shape.add(cuboid((0.03, 0.02, 0.14)), METAL, "doors", (d / 2 + 0.02, side * 0.06, h * 0.6))
    return shape, [Surface((0, 0, h), d, w, 0.9, "table")]


def sofa(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    w, d = rng.uniform(1.6, 1.95), 0.88
    shape = Shape()
    shape.add(pillow((d, w, 0.34), 16), main, at=(0, 0, 0.23))
    shape.add(pillow((0.24, w, 0.52), 8), main, "back", (-d / 2 + 0.12, 0, 0.58))
    seats = (w - 0.4) / 2
    for side in (-1, 1):
        shape.add(pillow((d - 0.22, seats, 0.16), 7), main, "seat", (0.1, side * seats / 2, 0.4))
        shape.add(pillow((d - 0.04, 0.2, 0.42), 8), main, "arms", (0, side * (w / 2 - 0.1), 0.42))
        for x in (-1, 1):
            shape.add(cylinder(0.025, 0.08), BLACK, "legs", (x * (d / 2 - 0.1), side * (w / 2 - 0.12), 0))
    return shape, [Surface((0.1, 0, 0.48), 0.5, w - 0.5, 0.8, "soft")]


def armchair(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    shape = Shape()
    shape.add(pillow((0.8, 0.82, 0.32), 14), main, at=(0, 0, 0.24))
    shape.add(pillow((0.22, 0.8, 0.6), 7), main, "back", (-0.3, 0, 0.62))
    shape.add(pillow((0.58, 0.48, 0.16), 7), main, "seat", (0.1, 0, 0.4))
    for side in (-1, 1):
        shape.add(pillow((0.76, 0.18, 0.4), 7), main, "arms", (0, side * 0.33, 0.44))
        for x in (-1, 1):
            shape.add(cylinder(0.024, 0.1), paint("wooden"), "legs", (x * 0.3, side * 0.3, 0))
    return shape, [Surface((0.1, 0, 0.48), 0.42, 0.42, 0.8, "soft")]


def bed(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    w, length = rng.uniform(1.1, 1.4), 2.0
    frame, sheet = paint("wooden", rng), paint("white")
    shape = Shape()
    shape.add(cuboid((length, w, 0.2)), frame, at=(0, 0, 0.25))
    shape.add(cuboid((0.06, w + 0.06, 0.9)), frame, "headboard", (-length / 2 - 0.01, 0, 0.45))
    shape.add(pillow((length - 0.06, w - 0.04, 0.22), 16), sheet, "mattress", (0.0, 0, 0.4))
    shape.add(pillow((length * 0.68, w + 0.02, 0.24), 18), main, "blanket", (length * 0.16, 0, 0.41))
    for y in (-w / 4, w / 4):
        shape.add(pillow((0.36, w * 0.4, 0.14), 3), sheet, "pillow", (-length / 2 + 0.26, y, 0.55))
    _legs(shape, frame, length * 0.96, w * 0.94, 0.2, 0.07)
    return shape, [Surface((0.35, 0, 0.53), 1.1, w - 0.3, 0.8, "soft")]


def chair(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    s, h = 0.43, 0.46
    shape = Shape()
    shape.add(cuboid((s, s, 0.04)), main, "seat", (0, 0, h - 0.02))
    _legs(shape, main, s, s, h - 0.04, 0.04)
    for side in (-1, 1):
        shape.add(cuboid((0.035, 0.04, 0.46)), main, "back", (-s / 2 + 0.02, side * (s / 2 - 0.02), h + 0.23))
    for z in (0.16, 0.29, 0.42):
        shape.add(cuboid((0.022, s - 0.06, 0.075)), main, "back", (-s / 2 + 0.02, 0, h + z))
    return shape, []


def stool(main: Material, rng: np.random.Generator) -> tuple[Shape, list[Surface]]:
    h = rng.uniform(0.42, 0.5)
    shape = Shape()
    shape.add(cylinder(0.18, 0.04), main, "seat", (0, 0, h - 0.04))
    for a in (45, 135, 225, 315):
        c, s = np.cos(np.radians(a)), np.sin(np.radians(a))
        shape.add(cuboid((0.034, 0.034, h - 0.03)), main, "legs", (0.13 * c, 0.13 * s, (h - 0.03) / 2), (0, 0, a))
    return shape, [Surface((0, 0, h), 0.24, 0.24, 0.8, "table")]


FURNITURE_COLOURS = ("wooden", "white", "black", "brown", "grey", "red", "blue", "green", "yellow")
_furniture = [
    (table, FURNITURE_COLOURS, "plain", ()),
    (round_table, FURNITURE_COLOURS, "plain", ("side table",)),
    (desk, FURNITURE_COLOURS, "plain", ("writing desk",)),
    (bookcase, ("wooden", "white", "black", "brown", "grey", "blue"), "plain", ("shelf", "bookshelf", "shelves")),
    (cabinet, FURNITURE_COLOURS, "plain", ("sideboard", "cupboard")),
    (sofa, PAINTED, "cloth", ("couch",)),
    (armchair, PAINTED, "cloth", ()),
    (bed, PAINTED, "cloth", ()),
    (chair, (*FURNITURE_COLOURS, "metal", "orange", "pink"), "plain", ()),
    (stool, (*FURNITURE_COLOURS, "metal", "orange", "pink"), "plain", ()),
]
KINDS = tuple(
    Kind(build.__name__.replace("_", " "), build, colours, (), synonyms, pattern, "furniture")
    for build, colours, pattern, synonyms in _furniture
)
