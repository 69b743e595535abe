"""Things from the kitchen and the table."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.kind import ANY, PAINTED, Kind
from lerf_ros.world.materials import Material, paint
from lerf_ros.world.shapes import Shape, arc, cuboid, cylinder, ellipsoid, lathe, tube


def mug(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.047 * rng.uniform(0.9, 1.1), 0.115 * rng.uniform(0.9, 1.1)
    flare = rng.uniform(0.92, 1.12)
    shape = Shape()
    shape.add(lathe([(0, 0), (r * 0.94, 0), (r * flare, h), (r * flare - 0.006, h), (r * 0.85, 0.01), (0, 0.01)]), main)
    shape.add(cylinder(r * 0.88, 0.001), paint("brown"), at=(0, 0, h * 0.72))
    return shape.add(
        tube(arc(h * 0.33, -95, 95, stretch=1.05), 0.0085), main, "handle", (0, r * 0.97, h * 0.52), (0, 0, 90)
    )


def bottle(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.042 * rng.uniform(0.9, 1.1), 0.29 * rng.uniform(0.88, 1.1)
    body = [
        (0, 0),
        (r, 0.002),
        (r, h * 0.58),
        (r * 0.9, h * 0.66),
        (r * 0.42, h * 0.78),
        (r * 0.38, h * 0.92),
        (0, h * 0.92),
    ]
    shape = Shape()
    shape.add(lathe(body), main)
    shape.add(cylinder(r * 1.015, h * 0.22), paint("white"), at=(0, 0, h * 0.25))
    shape.add(cylinder(r * 1.02, h * 0.05), paint("black"), at=(0, 0, h * 0.33))
    return shape.add(
        cylinder(r * 0.46, h * 0.09), paint("white" if min(main.rgb) < 0.7 else "black"), "cap", (0, 0, h * 0.91)
    )


def bowl(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.105 * rng.uniform(0.85, 1.15), 0.085 * rng.uniform(0.9, 1.2)
    angle = np.radians(np.linspace(-78, -4, 8))
    outside = [(r * np.cos(a), h * 1.12 + h * np.sin(a)) for a in angle]
    inside = [(x * 0.92, z + 0.007) for x, z in outside[::-1]]
    foot = [(0, 0), (r * 0.5, 0), (r * 0.45, h * 0.16)]
    shape = Shape()
    return shape.add(lathe([*foot, *outside, (inside[0][0], outside[-1][1]), *inside, (0, inside[-1][1])], 36), main)


def plate(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.14 * rng.uniform(0.9, 1.1)
    profile = [(0, 0), (r * 0.55, 0), (r * 0.66, 0.012), (r, 0.036), (r * 0.985, 0.042), (r * 0.64, 0.02), (0, 0.016)]
    rim = paint("white" if sum(main.rgb) < 2.2 else "blue")
    ring = lathe([(r * 0.80, 0.030), (r * 0.9, 0.0365), (r * 0.9, 0.038), (r * 0.80, 0.0315)], 40)
    shape = Shape()
    shape.add(lathe(profile, 40), main)
    return shape.add(ring, rim)


def teapot(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.085 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(ellipsoid((r, r, r * 0.82)), main, at=(0, 0, r * 0.84))
    shape.add(cylinder(r * 0.55, r * 0.2), main)
    shape.add(ellipsoid((r * 0.52, r * 0.52, r * 0.24)), main, "lid", (0, 0, r * 1.56))
    shape.add(ellipsoid((r * 0.16, r * 0.16, r * 0.16)), main, "lid", (0, 0, r * 1.88))
    spout = r * np.array([[0, -0.75, 0.6], [0, -1.15, 0.75], [0, -1.35, 1.1], [0, -1.62, 1.45]])
    shape.add(tube(spout, r * np.array([0.26, 0.2, 0.14, 0.12])), main, "spout")
    return shape.add(tube(arc(r * 0.52, -100, 100), r * 0.1), main, "handle", (0, r * 0.88, r * 0.92), (0, 0, 90))


def kettle(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.1 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(lathe([(0, 0), (r, 0), (r * 1.02, r * 0.25), (r * 0.62, r * 1.35), (0, r * 1.42)]), main)
    shape.add(cylinder(r * 1.04, r * 0.12), paint("metal"))
    shape.add(ellipsoid((r * 0.14, r * 0.14, r * 0.14)), paint("black"), "lid", (0, 0, r * 1.52))
    shape.add(
        tube(r * np.array([[0, -0.7, 0.75], [0, -1.05, 1.05], [0, -1.28, 1.3]]), r * np.array([0.2, 0.13, 0.09])),
        main,
        "spout",
    )
    hoop = arc(r * 0.72, -8, 188, 14, stretch=1.15) @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    return shape.add(tube(hoop, r * 0.085), paint("black"), "handle", (0, 0, r * 1.3))


def pan(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.12 * rng.uniform(0.9, 1.1)
    profile = [(0, 0), (r * 0.86, 0), (r, 0.055), (r * 0.97, 0.055), (r * 0.82, 0.008), (0, 0.008)]
    shape = Shape()
    shape.add(lathe(profile, 36), main)
    shape.add(cylinder(r * 0.8, 0.002), paint("black"), at=(0, 0, 0.0085))
    grip = paint("black") if sum(main.rgb) > 0.6 else paint("wooden")
    path = np.array([[0, r * 0.95, 0.045], [0, r * 1.3, 0.062], [0, r * 2.35, 0.075]])
    return shape.add(tube(path, np.array([0.010, 0.012, 0.014])), grip, "handle")


def pot(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.11 * rng.uniform(0.9, 1.1), 0.12 * rng.uniform(0.9, 1.15)
    shape = Shape()
    shape.add(cylinder(r, h), main)
    shape.add(cylinder(r * 1.04, h * 0.08), paint("metal"), at=(0, 0, h * 0.96))
    shape.add(lathe([(0, 0), (r * 1.02, 0), (r * 0.9, h * 0.1), (0, h * 0.22)]), main, "lid", (0, 0, h * 1.03))
    shape.add(cylinder(r * 0.16, h * 0.16), paint("black"), "lid", (0, 0, h * 1.22))
    for side in (-1, 1):
        loop = arc(r * 0.32, -90, 90) @ np.array([[0, side, 0], [0, 0, 1], [1.0, 0, 0]])
        shape.add(tube(loop, 0.009), paint("black"), "handle", (0, side * r, h * 0.75))
    return shape


def banana(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    path = arc(0.13, 200, 340, 14) @ np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    radius = 0.024 * np.array([0.3, 0.45, 0.75, 0.92, 1, 1.03, 1.05, 1.05, 1.03, 1, 0.92, 0.75, 0.45, 0.28])
    for i, lean in enumerate((-26, 0, 26)):
        at = (0.034 * (i - 1), 0, 0.155)
        shape.add(tube(path, radius, 8), main, at=at, turn_deg=(0, -lean * 0.4, 0))
        for end in (0, -1):
            shape.add(ellipsoid((0.009, 0.009, 0.009), 8), paint("brown"), at=np.add(at, path[end]))
    return shape


def apple(main: Material, rng: np.random.Generator) -> Shape:
    angle = np.radians(np.linspace(-90, 90, 19))
    dent = 1 - 0.22 * np.abs(np.sin(angle)) ** 10
    r = 0.055 * rng.uniform(0.92, 1.1)
    profile = [
        (r * np.cos(a) * (1 + 0.1 * np.sin(a)), r * (0.8 + 0.92 * np.sin(a) * d))
        for a, d in zip(angle, dent, strict=True)
    ]
    shape = Shape()
    shape.add(lathe(profile), main)
    shape.add(tube([[0, 0, r * 1.45], [0.003, 0, r * 1.75], [0.012, 0, r * 1.98]], 0.0045, 6), paint("brown"), "stem")
    return shape.add(ellipsoid((0.03, 0.016, 0.004), 12), paint("green"), "leaf", (0.008, 0.026, r * 1.86), (25, 0, 60))


def pumpkin(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.13 * rng.uniform(0.85, 1.1)
    shape = Shape()
    for i in range(9):
        a = i * 2 * np.pi / 9
        shape.add(
            ellipsoid((r * 0.52, r * 0.36, r * 0.74), 16),
            main,
            at=(r * 0.5 * np.cos(a), r * 0.5 * np.sin(a), r * 0.74),
            turn_deg=(0, 0, np.degrees(a)),
        )
    stem = r * np.array([[0, 0, 1.2], [0, 0.05, 1.55], [0, 0.2, 1.75]])
    return shape.add(tube(stem, r * np.array([0.16, 0.1, 0.1]), 7), paint("green"), "stem")


def cake(main: Material, rng: np.random.Generator) -> Shape:
    r = 0.12 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(cylinder(r * 1.25, 0.012, sections=36), paint("metal"))
    shape.add(cylinder(r, 0.085, sections=36), main, at=(0, 0, 0.012))
    shape.add(cylinder(r * 0.62, 0.07), main, at=(0, 0, 0.097))
    icing = paint("white") if sum(main.rgb) < 2.4 else paint("pink")
    for radius, top, drops in ((r, 0.097, 14), (r * 0.62, 0.167, 10)):
        shape.add(cylinder(radius * 1.02, 0.016, sections=36), icing, at=(0, 0, top - 0.012))
        for a in np.arange(drops) * 2 * np.pi / drops:
            at = (radius * np.cos(a), radius * np.sin(a), top - 0.018)
            shape.add(ellipsoid((0.012, 0.012, rng.uniform(0.015, 0.03)), 8), icing, at=at)
    for a in np.arange(6) * np.pi / 3:
        shape.add(
            ellipsoid((0.014, 0.014, 0.014), 10),
            paint("red"),
            "cherry",
            (r * 0.46 * np.cos(a), r * 0.46 * np.sin(a), 0.181),
        )
    return shape


def candle(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.03 * rng.uniform(0.9, 1.2), 0.18 * rng.uniform(0.85, 1.25)
    holder = paint("metal")
    shape = Shape()
    shape.add(lathe([(0, 0), (0.07, 0), (0.078, 0.02), (0.07, 0.02), (0.06, 0.008), (0, 0.008)]), holder)
    shape.add(cylinder(r * 1.25, 0.035), holder, at=(0, 0, 0.005))
    shape.add(cylinder(r, h), main, at=(0, 0, 0.01))
    shape.add(cylinder(0.003, 0.02, sections=6), paint("black"), at=(0, 0, h + 0.008))
    flame = lathe([(0, 0), (0.012, 0.016), (0.010, 0.03), (0, 0.058)], 12)
    return shape.add(flame, Material((1.0, 0.72, 0.16), gloss=1.0), "flame", (0, 0, h + 0.018))


def vase(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.075 * rng.uniform(0.9, 1.1), 0.27 * rng.uniform(0.9, 1.15)
    z = np.linspace(0, 1, 16)
    radius = r * (
        0.55
        + 0.75 * np.sin(np.pi * np.minimum(z * 1.25, 1.0)) ** 1.2 * (z < 0.82)
        + 0.28 * np.clip(z - 0.82, 0, 1) / 0.18
    )
    profile = [
        (0, 0),
        *zip(radius, z * h, strict=True),
        (radius[-1] * 0.86, h),
        (radius[-1] * 0.6, h * 0.8),
        (0, h * 0.8),
    ]
    shape = Shape()
    shape.add(lathe(profile, crease_deg=50), main)
    stripe = paint("white") if sum(main.rgb) < 2.2 else paint("blue")
    return shape.add(
        lathe([(r * 1.285, h * 0.36), (r * 1.315, h * 0.4), (r * 1.30, h * 0.46), (r * 1.24, h * 0.46)]), stripe
    )


def basket(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.13 * rng.uniform(0.9, 1.1), 0.12
    shape = Shape()
    for i in range(6):
        z0, z1 = h * i / 6, h * (i + 1) / 6
        w = r * (0.78 + 0.22 * (i + 0.5) / 6)
        shape.add(lathe([(w * 0.9, z0), (w, z0 + 0.004), (w * 1.03, (z0 + z1) / 2), (w, z1), (w * 0.9, z1)], 30), main)
    shape.add(cylinder(r * 0.8, 0.01), main)
    shape.add(tube(arc(r * 0.98, 0, 180, 18, 1.35), 0.012), main, "handle", (0, 0, h * 0.95), (0, 0, 90))
    return shape


def toaster(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(cuboid((0.17, 0.27, 0.17), taper=0.94), main, at=(0, 0, 0.10))
    shape.add(cuboid((0.18, 0.28, 0.02)), paint("black"), at=(0, 0, 0.01))
    for x in (-0.035, 0.035):
        shape.add(cuboid((0.03, 0.2, 0.006)), paint("black"), at=(x, 0, 0.186))
        shape.add(cuboid((0.018, 0.15, 0.10)), Material((0.86, 0.62, 0.32), "cloth"), "toast", (x, 0, 0.19))
    shape.add(cuboid((0.03, 0.02, 0.02)), paint("black"), "lever", (0, 0.14, 0.13))
    return shape.add(cylinder(0.018, 0.012), paint("metal"), at=(0.082, 0.06, 0.06), turn_deg=(0, 90, 0))


KINDS = (
    Kind("mug", mug, ANY, synonyms=("cup", "coffee mug"), turned_deg=70),
    Kind("bottle", bottle, PAINTED),
    Kind("bowl", bowl, ANY),
    Kind("plate", plate, PAINTED, synonyms=("dish",), places=("table",)),
    Kind("teapot", teapot, ANY, turned_deg=40),
    Kind(
        "kettle", kettle, ("red", "green", "blue", "yellow", "orange", "pink", "white", "black", "metal"), turned_deg=40
    ),
    Kind(
        "pan",
        pan,
        ("red", "green", "blue", "orange", "black", "grey", "metal"),
        synonyms=("frying pan",),
        places=("table",),
        turned_deg=60,
    ),
    Kind(
        "pot",
        pot,
        ("red", "green", "blue", "yellow", "orange", "white", "black", "metal"),
        synonyms=("cooking pot", "saucepan"),
    ),
    Kind("banana", banana, ("yellow", "green"), synonyms=("bananas", "bunch of bananas")),
    Kind("apple", apple, ("red", "green", "yellow"), turned_deg=180),
    Kind("pumpkin", pumpkin, ("orange", "yellow", "white"), turned_deg=180),
    Kind(
        "cake",
        cake,
        ("pink", "white", "brown", "yellow", "purple"),
        synonyms=("birthday cake",),
        places=("table",),
        turned_deg=180,
    ),
    Kind("candle", candle, PAINTED, turned_deg=180),
    Kind("vase", vase, PAINTED, turned_deg=180),
    Kind(
        "basket",
        basket,
        ("wooden", "brown", "white", "black", "red", "blue"),
        synonyms=("wicker basket",),
        pattern="cloth",
    ),
    Kind("toaster", toaster, ("metal", "red", "black", "white", "blue", "pink", "green", "yellow")),
)
