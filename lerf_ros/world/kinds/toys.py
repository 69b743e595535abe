"""Toys, animals and things to play with."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.kind import ANY, PAINTED, Kind
from lerf_ros.world.materials import Material, paint
from lerf_ros.world.shapes import Shape, arc, cuboid, cylinder, ellipsoid, lathe, pillow, prism, tube

BLACK, WHITE, METAL, WOODEN = paint("black"), paint("white"), paint("metal"), paint("wooden")


def _eyes(shape: Shape, x: float, y: float, z: float, r: float, part: str = "eyes") -> None:
    for side in (-1, 1):
        shape.add(ellipsoid((r, r, r), 10), BLACK, part, (x, side * y, z))


def _shade(main: Material, factor: float) -> Material:
    return Material(
        tuple(np.clip(np.array(main.rgb) * factor + (factor > 1) * 0.12, 0, 1)), main.pattern, gloss=main.gloss
    )


def bear(main: Material, rng: np.random.Generator) -> Shape:
    light = _shade(main, 1.25) if sum(main.rgb) < 2.4 else _shade(main, 0.8)
    shape = Shape()
    shape.add(ellipsoid((0.085, 0.092, 0.105)), main, "body", (0, 0, 0.11))
    shape.add(ellipsoid((0.05, 0.062, 0.072)), light, "body", (0.046, 0, 0.105))
    shape.add(ellipsoid((0.078, 0.088, 0.08)), main, "head", (0.01, 0, 0.265))
    shape.add(ellipsoid((0.038, 0.042, 0.034)), light, "head", (0.075, 0, 0.245))
    shape.add(ellipsoid((0.015, 0.02, 0.014), 12), BLACK, "nose", (0.110, 0, 0.258))
    _eyes(shape, 0.076, 0.034, 0.287, 0.011)
    for side in (-1, 1):
        shape.add(ellipsoid((0.018, 0.036, 0.036), 16), main, "ears", (0, side * 0.072, 0.332))
        shape.add(ellipsoid((0.012, 0.022, 0.022), 12), light, "ears", (0.012, side * 0.072, 0.332))
        shape.add(ellipsoid((0.075, 0.038, 0.04), 16), main, "legs", (0.075, side * 0.068, 0.04))
        shape.add(ellipsoid((0.012, 0.028, 0.03), 12), light, "legs", (0.145, side * 0.068, 0.042))
        shape.add(ellipsoid((0.034, 0.03, 0.068), 16), main, "arms", (0.035, side * 0.098, 0.14), (side * 25, -35, 0))
    return shape


def rabbit(main: Material, rng: np.random.Generator) -> Shape:
    light = paint("pink") if sum(main.rgb) > 1.0 else paint("grey")
    shape = Shape()
    shape.add(ellipsoid((0.078, 0.075, 0.095)), main, "body", (0, 0, 0.095))
    shape.add(ellipsoid((0.062, 0.062, 0.06)), main, "head", (0.03, 0, 0.215))
    shape.add(ellipsoid((0.03, 0.034, 0.024), 14), WHITE, "head", (0.08, 0, 0.198))
    shape.add(ellipsoid((0.01, 0.013, 0.009), 10), paint("pink"), "nose", (0.108, 0, 0.208))
    _eyes(shape, 0.078, 0.032, 0.232, 0.010)
    shape.add(ellipsoid((0.032, 0.032, 0.032), 14), WHITE, "tail", (-0.085, 0, 0.05))
    for side in (-1, 1):
        shape.add(ellipsoid((0.016, 0.026, 0.085), 16), main, "ears", (0.01, side * 0.036, 0.335), (-side * 10, -6, 0))
        shape.add(
            ellipsoid((0.008, 0.016, 0.066), 12), light, "ears", (0.021, side * 0.036, 0.335), (-side * 10, -6, 0)
        )
        shape.add(ellipsoid((0.06, 0.028, 0.026), 14), main, "legs", (0.06, side * 0.05, 0.026))
        shape.add(ellipsoid((0.022, 0.02, 0.045), 14), main, "arms", (0.07, side * 0.042, 0.1), (0, -20, 0))
    return shape


def duck(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(ellipsoid((0.105, 0.075, 0.065)), main, "body", (0, 0, 0.062))
    shape.add(ellipsoid((0.052, 0.05, 0.05)), main, "head", (0.058, 0, 0.158))
    shape.add(
        tube([[-0.06, 0, 0.07], [-0.105, 0, 0.10], [-0.135, 0, 0.135]], np.array([0.045, 0.03, 0.006])), main, "tail"
    )
    beak = paint("orange") if main.rgb[0] < 0.9 or main.rgb[1] > 0.6 else paint("yellow")
    shape.add(ellipsoid((0.036, 0.03, 0.011), 14), beak, "beak", (0.112, 0, 0.153), (0, 8, 0))
    _eyes(shape, 0.096, 0.026, 0.176, 0.009)
    for side in (-1, 1):
        shape.add(
            ellipsoid((0.06, 0.016, 0.034), 16), _shade(main, 0.88), "wings", (-0.015, side * 0.07, 0.078), (0, 15, 0)
        )
    return shape


def elephant(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(ellipsoid((0.12, 0.082, 0.085)), main, "body", (-0.02, 0, 0.145))
    shape.add(ellipsoid((0.065, 0.062, 0.07)), main, "head", (0.115, 0, 0.19))
    trunk = np.array([[0.16, 0, 0.185], [0.195, 0, 0.14], [0.2, 0, 0.085], [0.215, 0, 0.045], [0.245, 0, 0.045]])
    shape.add(tube(trunk, np.array([0.032, 0.027, 0.021, 0.017, 0.015])), main, "trunk")
    shape.add(tube([[-0.135, 0, 0.16], [-0.155, 0, 0.12], [-0.16, 0, 0.08]], 0.007, 6), main, "tail")
    _eyes(shape, 0.162, 0.036, 0.217, 0.009)
    for side in (-1, 1):
        shape.add(
            ellipsoid((0.012, 0.062, 0.07), 16),
            _shade(main, 0.85),
            "ears",
            (0.075, side * 0.095, 0.195),
            (0, 0, side * 25),
        )
        shape.add(
            tube(
                [[0.165, side * 0.03, 0.15], [0.195, side * 0.04, 0.135], [0.225, side * 0.042, 0.145]],
                np.array([0.009, 0.008, 0.003]),
                6,
            ),
            WHITE,
            "tusks",
        )
        for x in (-0.085, 0.055):
            shape.add(cylinder(0.034, 0.12), main, "legs", (x, side * 0.048, 0))
    return shape


def car(main: Material, rng: np.random.Generator) -> Shape:
    body = [(-0.15, 0.03), (0.15, 0.03), (0.155, 0.065), (0.13, 0.082), (-0.145, 0.085), (-0.155, 0.06)]
    cabin = [(-0.12, 0.083), (0.06, 0.083), (0.015, 0.132), (-0.085, 0.132)]
    shape = Shape()
    shape.add(prism(body, 0.125), main)
    shape.add(prism(cabin, 0.108), main, "roof")
    glass = [(-0.104, 0.088), (0.040, 0.088), (0.008, 0.122), (-0.080, 0.122)]
    shape.add(prism(glass, 0.112), paint("black"), "windows")
    shape.add(cuboid((0.07, 0.088, 0.004)), BLACK, "windows", (0.037, 0, 0.111), (0, 47.5, 0))
    shape.add(cuboid((0.055, 0.088, 0.004)), BLACK, "windows", (-0.105, 0, 0.109), (0, -54, 0))
    for side in (-1, 1):
        for x in (-0.092, 0.092):
            shape.add(cylinder(0.035, 0.03), BLACK, "wheels", (x, side * 0.052, 0.035), (-side * 90, 0, 0))
            shape.add(cylinder(0.018, 0.003), METAL, "wheels", (x, side * 0.082, 0.035), (-side * 90, 0, 0))
        shape.add(ellipsoid((0.006, 0.014, 0.011), 10), paint("yellow"), "lights", (0.152, side * 0.04, 0.062))
        shape.add(ellipsoid((0.006, 0.014, 0.009), 10), paint("red"), at=(-0.153, side * 0.04, 0.065))
    return shape


def train(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(cuboid((0.30, 0.10, 0.03)), BLACK, at=(0, 0, 0.05))
    shape.add(cylinder(0.05, 0.19), main, "boiler", (-0.04, 0, 0.11), (0, 90, 0))
    shape.add(cuboid((0.10, 0.115, 0.13)), main, "cab", (-0.09, 0, 0.13))
    shape.add(cuboid((0.125, 0.135, 0.014)), _shade(main, 0.55), "cab", (-0.09, 0, 0.2))
    shape.add(cuboid((0.05, 0.12, 0.045)), BLACK, "windows", (-0.09, 0, 0.155))
    shape.add(
        lathe([(0, 0), (0.016, 0), (0.018, 0.05), (0.03, 0.075), (0, 0.075)]), BLACK, "chimney", (0.115, 0, 0.152)
    )
    shape.add(ellipsoid((0.022, 0.022, 0.022), 12), paint("yellow"), at=(0.045, 0, 0.16))
    shape.add(cylinder(0.052, 0.012), METAL, at=(0.145, 0, 0.11), turn_deg=(0, 90, 0))
    shape.add(cuboid((0.05, 0.1, 0.03)), paint("red"), at=(0.165, 0, 0.035), turn_deg=(0, 30, 0))
    for side in (-1, 1):
        for x, r in ((-0.1, 0.042), (0.005, 0.03), (0.085, 0.03)):
            shape.add(
                cylinder(r, 0.016),
                paint("red") if main.rgb[0] < 0.6 else BLACK,
                "wheels",
                (x, side * 0.048, r),
                (-side * 90, 0, 0),
            )
    return shape


def boat(main: Material, rng: np.random.Generator) -> Shape:
    hull, h = [], 0.075
    for z, w, length in ((0, 0.45, 0.7), (0.5, 0.8, 0.9), (1, 1, 1)):
        y = np.sin(np.linspace(-np.pi, np.pi, 25)[:-1])
        x = np.cos(np.linspace(-np.pi, np.pi, 25)[:-1])
        hull.append(
            np.stack(
                [
                    0.15 * length * np.sign(x) * np.abs(x) ** 0.8 + 0.02 * z,
                    0.055 * w * y * (1 - 0.55 * np.clip(x, 0, 1)),
                    np.full(24, z * h),
                ],
                1,
            )
        )
    rings = [np.stack([np.zeros(24), np.zeros(24), np.zeros(24)], 1), *hull]
    faces = [[24 * i + j, 24 * i + (j + 1) % 24, 24 * (i + 1) + (j + 1) % 24] for i in range(3) for j in range(24)]
    faces += [[24 * i + j, 24 * (i + 1) + (j + 1) % 24, 24 * (i + 1) + j] for i in range(3) for j in range(24)]
    shape = Shape()
    shape.add((np.concatenate(rings), np.array(faces)), main, "hull")
    deck = [
        (0.148 * np.sign(np.cos(a)) * abs(np.cos(a)) ** 0.8 + 0.02, 0.053 * np.sin(a) * (1 - 0.55 * max(np.cos(a), 0)))
        for a in np.linspace(0, 2 * np.pi, 25)[:-1]
    ]
    shape.add(prism(deck, 0.006), WOODEN, at=(0, 0, h), turn_deg=(-90, 0, 0))
    shape.add(tube([[0.01, 0, h], [0.01, 0, 0.37]], 0.006, 8), WOODEN, "mast")
    shape.add(prism([(-0.005, 0.10), (-0.005, 0.36), (-0.135, 0.10)], 0.005), WHITE, "sail")
    shape.add(prism([(0.025, 0.11), (0.15, 0.10), (0.022, 0.34)], 0.005), main, "sail")
    return shape


def rocket(main: Material, rng: np.random.Generator) -> Shape:
    tip = paint("red") if main.rgb[0] < 0.7 or min(main.rgb) > 0.4 else WHITE
    body = [(0, 0.05), (0.04, 0.05), (0.058, 0.11), (0.06, 0.19), (0.05, 0.26)]
    shape = Shape()
    shape.add(lathe([*body, (0, 0.26)]), main)
    shape.add(lathe([(0.05, 0.26), (0.036, 0.31), (0.015, 0.355), (0, 0.375)]), tip, "tip")
    shape.add(cylinder(0.024, 0.012), METAL, at=(0.049, 0, 0.205), turn_deg=(0, 90, 0))
    shape.add(cylinder(0.017, 0.014), paint("blue"), "window", (0.049, 0, 0.205), (0, 90, 0))
    shape.add(cylinder(0.03, 0.04, 0.02), METAL, at=(0, 0, 0.015))
    for a in (45, 135, 225, 315):
        c, s = np.cos(np.radians(a)), np.sin(np.radians(a))
        shape.add(
            prism([(-0.01, 0.06), (0.055, 0.0), (0.06, 0.06), (0.0, 0.15)], 0.008),
            tip,
            "fins",
            (0.048 * c, 0.048 * s, 0),
            (0, 0, a),
        )
    return shape


def robot(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(cuboid((0.085, 0.13, 0.13)), main, "body", (0, 0, 0.145))
    shape.add(cuboid((0.085, 0.105, 0.085)), main, "head", (0, 0, 0.265))
    shape.add(cylinder(0.02, 0.02), METAL, at=(0, 0, 0.208))
    shape.add(cuboid((0.004, 0.08, 0.05)), METAL, "body", (0.044, 0, 0.15))
    shape.add(cuboid((0.004, 0.05, 0.012)), BLACK, "head", (0.044, 0, 0.24))
    shape.add(tube([[0, 0, 0.305], [0, 0, 0.345]], 0.004, 6), METAL, "antenna")
    shape.add(ellipsoid((0.012, 0.012, 0.012), 12), paint("red"), "antenna", (0, 0, 0.35))
    for y, colour in ((-0.02, "red"), (0, "yellow"), (0.02, "green")):
        shape.add(ellipsoid((0.005, 0.008, 0.008), 10), paint(colour), at=(0.047, y, 0.16))
    for side in (-1, 1):
        shape.add(cylinder(0.017, 0.008), paint("yellow"), "eyes", (0.042, side * 0.026, 0.277), (0, 90, 0))
        shape.add(cylinder(0.008, 0.012), BLACK, "eyes", (0.042, side * 0.026, 0.277), (0, 90, 0))
        shape.add(cuboid((0.035, 0.03, 0.11)), METAL, "arms", (0, side * 0.083, 0.15))
        shape.add(cuboid((0.045, 0.04, 0.035)), main, "arms", (0, side * 0.083, 0.085))
        shape.add(cuboid((0.04, 0.04, 0.06)), METAL, "legs", (0, side * 0.036, 0.05))
        shape.add(cuboid((0.08, 0.052, 0.03)), main, "legs", (0.012, side * 0.036, 0.015))
    return shape


def ball(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.11 * rng.uniform(0.8, 1.15)
    other = WHITE if sum(main.rgb) < 2.3 else paint("red")
    shape = Shape()
    shape.add(ellipsoid((r, r, r), 32), main, at=(0, 0, r))
    band = [(r * 1.006 * np.cos(a), r * np.sin(a)) for a in np.radians([-11, -5, 0, 5, 11])]
    return shape.add(lathe(band, 36), other, at=(0, 0, r), turn_deg=(rng.uniform(20, 70), rng.uniform(-40, 40), 0))


def house(main: Material, rng: np.random.Generator) -> Shape:
    roof = paint("red") if main.rgb[0] < 0.6 or min(main.rgb) > 0.3 else paint("brown")
    wall = [(-0.09, 0), (0.09, 0), (0.09, 0.13), (0, 0.21), (-0.09, 0.13)]
    shape = Shape()
    shape.add(prism(wall, 0.17), main, turn_deg=(0, 0, 90))
    shape.add(cuboid((0.006, 0.045, 0.08)), paint("wooden"), "door", (0.086, 0, 0.04))
    for side in (-1, 1):
        shape.add(cuboid((0.21, 0.145, 0.014)), roof, "roof", (0, side * 0.056, 0.176), (-side * 41.5, 0, 0))
        shape.add(cuboid((0.006, 0.036, 0.036)), paint("yellow"), "windows", (0.086, side * 0.055, 0.085))
        shape.add(cuboid((0.05, 0.006, 0.04)), paint("yellow"), "windows", (0, side * 0.089, 0.075))
    return shape.add(cuboid((0.035, 0.035, 0.09)), paint("brown"), "chimney", (-0.045, 0.045, 0.2))


def drum(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.12 * rng.uniform(0.9, 1.1), 0.16 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(cylinder(r, h, sections=36), main)
    shape.add(cylinder(r * 0.97, 0.004), WHITE, "top", (0, 0, h))
    rim = paint("yellow") if main.rgb[1] < 0.6 else paint("red")
    for z in (0, h - 0.014):
        shape.add(lathe([(r * 0.95, 0), (r * 1.05, 0), (r * 1.05, 0.018), (r * 0.97, 0.018)], 36), rim, at=(0, 0, z))
    for i in range(12):
        a, b = i * np.pi / 6, (i + 1) * np.pi / 6
        ends = [[1.02 * r * np.cos(t), 1.02 * r * np.sin(t), z] for t, z in ((a, 0.02), (b, h - 0.02))]
        shape.add(tube(ends if i % 2 else [[*ends[0][:2], ends[1][2]], [*ends[1][:2], ends[0][2]]], 0.004, 6), WHITE)
    for side in (-1, 1):
        shape.add(tube([[-0.07, side * 0.045, h + 0.012], [0.11, side * 0.02, h + 0.012]], 0.006, 8), WOODEN, "sticks")
        shape.add(ellipsoid((0.012, 0.01, 0.01), 10), WOODEN, "sticks", (0.11, side * 0.02, h + 0.014))
    return shape


def guitar(main: Material, rng: np.random.Generator) -> Shape:
    angle = np.linspace(0, 2 * np.pi, 49)[:-1]
    radius = 0.15 - 0.028 * np.cos(2 * angle) - 0.024 * np.sin(angle)
    outline = [(r * np.cos(a) * 0.98, 0.22 + 1.28 * r * np.sin(a)) for r, a in zip(radius, angle, strict=True)]
    shape = Shape()
    shape.add(prism(outline, 0.08), main, "body", turn_deg=(0, 0, 90))
    shape.add(cylinder(0.045, 0.003), BLACK, "body", (0.041, 0, 0.27), (0, 90, 0))
    shape.add(cuboid((0.03, 0.052, 0.36)), paint("brown"), "neck", (0.03, 0, 0.55))
    shape.add(cuboid((0.026, 0.075, 0.12)), BLACK, "neck", (0.03, 0, 0.78))
    shape.add(cuboid((0.012, 0.11, 0.022)), paint("brown"), at=(0.044, 0, 0.14))
    for y in (-0.015, -0.005, 0.005, 0.015):
        shape.add(tube([[0.05, y, 0.14], [0.049, y, 0.76]], 0.0012, 4), METAL, "strings")
    for side in (-1, 1):
        for z in (0.75, 0.78, 0.81):
            shape.add(ellipsoid((0.008, 0.015, 0.008), 8), METAL, at=(0.03, side * 0.046, z))
        leg = [[0.0, side * 0.10, 0.05], [-0.16, side * 0.13, 0.004]]
        shape.add(tube(leg, 0.009, 8), BLACK, "stand")
        shape.add(tube([[0.06, side * 0.09, 0.035], [-0.06, side * 0.1, 0.035]], 0.01, 8), BLACK, "stand")
    return shape


def trophy(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(cuboid((0.10, 0.10, 0.05)), BLACK, "base", (0, 0, 0.025))
    shape.add(cuboid((0.004, 0.06, 0.02)), main, "base", (0.051, 0, 0.025))
    cup = [
        (0, 0.05),
        (0.04, 0.05),
        (0.012, 0.075),
        (0.012, 0.11),
        (0.05, 0.14),
        (0.075, 0.2),
        (0.08, 0.26),
        (0.072, 0.26),
        (0.06, 0.19),
        (0, 0.15),
    ]
    shape.add(lathe(cup), main)
    for side in (-1, 1):
        hoop = arc(0.045, -80, 95) @ np.array([[0, side, 0], [1, 0, 0], [0, 0, 1.0]])
        shape.add(tube(hoop, 0.009), main, "handle", (0, side * 0.068, 0.205))
    return shape


def dice(main: Material, rng: np.random.Generator) -> Shape:
    shape, dots = Shape(), WHITE if sum(main.rgb) < 2.2 else BLACK
    shape.add(pillow((0.12, 0.12, 0.12), 14), main, at=(0, 0, 0.06))
    for face, spots in (
        ((1, 0), [(-1, -1), (1, 1), (-1, 1), (1, -1), (0, 0)]),
        ((0, 1), [(-1, -1), (0, 0), (1, 1)]),
        ((0, -1), [(-1, 1), (1, -1)]),
    ):
        for u, v in spots:
            at = (0.0585 * face[0] - 0.03 * u * face[1], 0.0585 * face[1] + 0.03 * u * face[0], 0.06 + 0.03 * v)
            flat = (0.003, 0.013, 0.013) if face[0] else (0.013, 0.003, 0.013)
            shape.add(ellipsoid(flat, 12), dots, "dots", at)
    for u, v in ((-1, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (1, 1)):
        shape.add(ellipsoid((0.013, 0.013, 0.003), 12), dots, "dots", (0.03 * u, 0.03 * v, 0.1185))
    return shape


KINDS = (
    Kind(
        "bear",
        bear,
        ("brown", "white", "pink", "blue", "yellow", "grey", "red", "purple", "black"),
        ("table", "shelf", "floor", "soft"),
        ("teddy bear", "teddy"),
        "cloth",
    ),
    Kind(
        "rabbit",
        rabbit,
        ("white", "grey", "brown", "pink", "blue", "yellow", "purple"),
        ("table", "shelf", "soft"),
        ("toy rabbit", "bunny"),
        "cloth",
    ),
    Kind(
        "duck",
        duck,
        ("yellow", "pink", "blue", "white", "red", "green", "purple"),
        synonyms=("rubber duck", "toy duck"),
        turned_deg=60,
    ),
    Kind(
        "elephant",
        elephant,
        ("grey", "pink", "blue", "purple", "green", "wooden", "yellow"),
        synonyms=("toy elephant",),
        turned_deg=60,
    ),
    Kind("car", car, ANY, ("table", "shelf", "floor"), ("toy car",), turned_deg=80),
    Kind(
        "train",
        train,
        ("red", "green", "blue", "black", "yellow", "purple", "wooden"),
        ("table", "shelf", "floor"),
        ("toy train", "locomotive"),
        turned_deg=80,
    ),
    Kind(
        "boat",
        boat,
        ("red", "green", "blue", "yellow", "orange", "white", "wooden", "purple"),
        synonyms=("sailboat", "toy boat"),
        turned_deg=110,
    ),
    Kind("rocket", rocket, PAINTED, synonyms=("toy rocket",), turned_deg=180),
    Kind("robot", robot, (*PAINTED, "metal"), synonyms=("toy robot",)),
    Kind("ball", ball, PAINTED, ("table", "shelf", "floor"), turned_deg=180),
    Kind("house", house, (*PAINTED, "wooden"), ("table", "shelf", "floor"), ("toy house", "dollhouse")),
    Kind("drum", drum, PAINTED, ("table", "floor"), turned_deg=180),
    Kind("guitar", guitar, ("wooden", "red", "black", "blue", "white", "yellow", "orange", "brown"), ("floor",)),
    Kind("trophy", trophy, ("yellow", "metal", "red", "blue"), synonyms=("trophy cup",)),
    Kind("dice", dice, PAINTED, synonyms=("die",), turned_deg=60),
)
