"""The room itself: walls, floor, ceiling, door, window, pictures, rug."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.materials import COLOURS, Material, paint
from lerf_ros.world.shapes import Shape, cuboid, cylinder, ellipsoid, tube

WALL_COLOURS = {
    "white": (0.86, 0.85, 0.81),
    "yellow": (0.90, 0.84, 0.62),
    "blue": (0.66, 0.75, 0.85),
    "green": (0.70, 0.80, 0.66),
    "pink": (0.88, 0.74, 0.74),
    "grey": (0.68, 0.68, 0.68),
}
FLOOR_COLOURS = ("wooden", "brown", "grey", "white")
RUG_COLOURS = ("red", "blue", "green", "purple", "orange", "grey", "pink", "yellow", "brown")


def walls(size: np.ndarray, colour: str, rng: np.random.Generator) -> Shape:
    """Four walls, 10 cm thick, around a room of size (x, y, height)."""
    rgb = np.array(WALL_COLOURS[colour])
    if rng.random() < 0.35:
        material = Material(tuple(rgb), "stripes", tuple(rgb * 0.9), float(rng.uniform(0.2, 0.4)), 0.0)
    else:
        material = Material(tuple(rgb), gloss=0.0)
    shape, skirting = Shape(), paint("white")
    for axis in (0, 1):
        length, distance = size[1 - axis], size[axis] / 2
        for side in (-1, 1):
            at = np.zeros(3)
            at[axis] = side * (distance + 0.05)
            turn = (0, 0, 90 * axis)
            shape.add(cuboid((0.1, length + 0.2, size[2])), material, at=at + [0, 0, size[2] / 2], turn_deg=turn)
            at[axis] = side * (distance - 0.006)
            shape.add(cuboid((0.012, length, 0.07)), skirting, at=at + [0, 0, 0.035], turn_deg=turn)
    return shape


def floor(size: np.ndarray, colour: str, rng: np.random.Generator) -> Shape:
    rgb = np.array(COLOURS[colour]) / 255 * rng.uniform(0.85, 1.0)
    pattern, period = (
        ("boards", 0.12) if colour in ("wooden", "brown") else ("checks", 0.5) if rng.random() < 0.5 else ("cloth", 0.1)
    )
    accent = rgb * (0.45 if pattern == "boards" else 0.8)
    material = Material(tuple(rgb), pattern, tuple(accent), period, 0.02)
    shape = Shape()
    return shape.add(cuboid((size[0] + 0.2, size[1] + 0.2, 0.1)), material, at=(0, 0, -0.05))


def ceiling(size: np.ndarray, colour: str, rng: np.random.Generator) -> Shape:
    shape = Shape()
    return shape.add(cuboid((size[0] + 0.2, size[1] + 0.2, 0.1)), paint(colour, gloss=0.0), at=(0, 0, size[2] + 0.05))


def door(colour: str, rng: np.random.Generator) -> Shape:
    """Standing at the wall (x = 0), looking along +x."""
    main, frame = paint(colour, rng), paint("white")
    shape = Shape()
    shape.add(cuboid((0.03, 0.86, 2.03)), main, at=(0.015, 0, 1.015))
    for y in (-0.2, 0.2):
        for z, h in ((0.55, 0.75), (1.45, 0.8)):
            shape.add(cuboid((0.014, 0.3, h)), main, "panels", (0.035, y, z))
    for side in (-1, 1):
        shape.add(cuboid((0.05, 0.07, 2.1)), frame, "frame", (0.025, side * 0.465, 1.05))
    shape.add(cuboid((0.05, 1.0, 0.07)), frame, "frame", (0.025, 0, 2.065))
    shape.add(
        tube([[0.03, -0.36, 1.02], [0.085, -0.36, 1.02], [0.085, -0.25, 1.02]], 0.012, 8), paint("metal"), "handle"
    )
    return shape.add(ellipsoid((0.01, 0.03, 0.03), 12), paint("metal"), "handle", (0.03, -0.36, 1.02))


def window(colour: str, rng: np.random.Generator) -> Shape:
    """A window with a sill; its middle is 1.45 m up."""
    frame, w, h, z = paint(colour, rng), 1.2, 1.1, 1.5
    sky = Material((0.62, 0.80, 0.97), "leaves", (0.92, 0.96, 1.0), gloss=0.6)
    shape = Shape()
    shape.add(cuboid((0.012, w, h)), sky, "glass", (0.006, 0, z))
    for y in (-w / 2, 0, w / 2):
        shape.add(cuboid((0.05, 0.06, h + 0.06)), frame, "frame", (0.025, y, z))
    for dz in (-h / 2, 0.1, h / 2):
        shape.add(cuboid((0.045, w, 0.05)), frame, "frame", (0.022, 0, z + dz))
    return shape.add(cuboid((0.14, w + 0.16, 0.03)), frame, "sill", (0.07, 0, z - h / 2 - 0.04))


def picture(colour: str, rng: np.random.Generator) -> Shape:
    """A framed landscape or abstract painting; `colour` is its frame's."""
    w, h, z = rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.55), 1.55
    shape = Shape()
    shape.add(cuboid((0.02, w, h)), paint(colour, rng), "frame", (0.01, 0, z))
    shape.add(cuboid((0.004, w - 0.06, h - 0.06)), paint("white"), at=(0.021, 0, z))
    tones = [tuple(np.array(COLOURS[c]) / 255) for c in rng.choice(list(COLOURS)[:9], 4, replace=False)]
    if rng.random() < 0.5:
        shape.add(
            cuboid((0.004, w - 0.14, (h - 0.14) / 2)),
            Material((0.6, 0.78, 0.95), "leaves", (0.9, 0.95, 1)),
            at=(0.023, 0, z + (h - 0.14) / 4),
        )
        shape.add(
            cuboid((0.004, w - 0.14, (h - 0.14) / 2)),
            Material((0.3, 0.55, 0.2), "leaves", (0.5, 0.7, 0.3)),
            at=(0.023, 0, z - (h - 0.14) / 4),
        )
        shape.add(
            cylinder(h * 0.1, 0.004),
            Material(tones[0]),
            at=(0.024, rng.uniform(-0.1, 0.1), z + 0.08),
            turn_deg=(0, 90, 0),
        )
    else:
        for tone in tones:
            size, y, dz = (
                rng.uniform(0.08, 0.18),
                rng.uniform(-w / 2 + 0.12, w / 2 - 0.12),
                rng.uniform(-h / 2 + 0.12, h / 2 - 0.12),
            )
            shape.add(cylinder(size * 0.45, 0.003), Material(tone), at=(0.022, y, z + dz), turn_deg=(0, 90, 0))
    return shape


def rug(colour: str, rng: np.random.Generator) -> Shape:
    w, d = rng.uniform(1.5, 2.1), rng.uniform(1.1, 1.5)
    rgb = np.array(paint(colour, rng).rgb)
    pattern = str(rng.choice(["stripes", "checks", "cloth"]))
    shape = Shape()
    shape.add(
        cuboid((d, w, 0.008)),
        Material(tuple(rgb), pattern, tuple(np.clip(rgb * 0.7 + 0.12, 0, 1)), 0.22, 0.0),
        at=(0, 0, 0.004),
    )
    edge = Material(tuple(rgb * 0.6), "cloth", gloss=0.0)
    for side in (-1, 1):
        shape.add(cuboid((d, 0.06, 0.01)), edge, "border", (0, side * (w / 2 - 0.03), 0.005))
        shape.add(cuboid((0.06, w - 0.12, 0.01)), edge, "border", (side * (d / 2 - 0.03), 0, 0.005))
    return shape
