"""Things from the living room and the wardrobe."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.kind import PAINTED, Kind
from lerf_ros.world.materials import Material, contrast, paint
from lerf_ros.world.shapes import Shape, arc, cuboid, cylinder, ellipsoid, lathe, pillow, prism, tube

BLACK, WHITE, GREY, METAL, WOODEN = (paint(c) for c in ("black", "white", "grey", "metal", "wooden"))
SCREEN = Material((0.10, 0.16, 0.30), "screen", (0.75, 0.85, 0.95), 0.03, 0.6)


def book(main: Material, rng: np.random.Generator) -> Shape:
    w, h, t = 0.16 * rng.uniform(0.9, 1.1), 0.23 * rng.uniform(0.9, 1.1), 0.05
    ink = contrast(main)
    shape = Shape()
    for x in (-t / 2 + 0.003, t / 2 - 0.003):
        shape.add(cuboid((0.006, w, h)), main, "cover", (x, 0, h / 2))
    shape.add(cuboid((t, 0.006, h)), main, "cover", (0, -w / 2 + 0.003, h / 2))
    shape.add(
        cuboid((t - 0.012, w - 0.012, h - 0.012)),
        Material((0.95, 0.92, 0.83), "stripes", (0.7, 0.66, 0.58), 0.004),
        "pages",
        (0, -0.002, h / 2),
    )
    shape.add(cuboid((0.002, w * 0.7, h * 0.10)), ink, "title", (t / 2 + 0.001, 0, h * 0.74))
    shape.add(cuboid((0.002, w * 0.45, h * 0.04)), ink, "title", (t / 2 + 0.001, 0, h * 0.62))
    shape.add(cuboid((0.002, w * 0.45, h * 0.25)), ink, "title", (t / 2 + 0.001, 0, h * 0.3))
    if rng.random() < 0.5:  # lying, its cover up
        turned = Shape()
        for piece in shape.pieces:
            turned.add((piece.vertices, piece.faces), piece.material, piece.part, turn_deg=(0, -90, 0))
        return turned
    return shape.add(cuboid((0.05, 0.02, 0.06)), METAL, at=(-t / 2 - 0.02, 0, 0.03))


def books(main: Material, rng: np.random.Generator) -> Shape:
    shape, z = Shape(), 0.0
    for i in range(4):
        w, h, t = rng.uniform(0.14, 0.18), rng.uniform(0.2, 0.25), rng.uniform(0.025, 0.045)
        tone = Material(
            tuple(np.clip(np.array(main.rgb) * (0.75 + 0.16 * ((i * 2) % 4)), 0, 1)),
            main.pattern,
            main.accent,
            main.period,
        )
        turn = (0, 0, rng.uniform(-12, 12))
        for dz in (0.003, t - 0.003):
            shape.add(cuboid((w, h, 0.006)), tone, "cover", (0, 0, z + dz), turn)
        shape.add(
            cuboid((w - 0.014, h - 0.014, t - 0.006)), Material((0.95, 0.92, 0.83)), "pages", (0, 0, z + t / 2), turn
        )
        angle = np.radians(turn[2])
        shape.add(cuboid((0.005, h, t)), tone, "cover", (w / 2 * np.cos(angle), w / 2 * np.sin(angle), z + t / 2), turn)
        z += t
    return shape


def box(main: Material, rng: np.random.Generator) -> Shape:
    w, d, h = rng.uniform(0.16, 0.26), rng.uniform(0.16, 0.24), rng.uniform(0.12, 0.2)
    ribbon = paint("red") if main.rgb[0] < 0.5 or min(main.rgb) > 0.4 else WHITE
    shape = Shape()
    shape.add(cuboid((d, w, h * 0.8)), main, at=(0, 0, h * 0.4))
    shape.add(cuboid((d * 1.05, w * 1.05, h * 0.22)), main, "lid", (0, 0, h * 0.89))
    shape.add(cuboid((d * 1.06, 0.03, h * 0.225)), ribbon, "ribbon", (0, 0, h * 0.89))
    shape.add(cuboid((d * 1.01, 0.03, h * 0.8)), ribbon, "ribbon", (0, 0, h * 0.4))
    shape.add(cuboid((0.03, w * 1.06, h * 0.225)), ribbon, "ribbon", (0, 0, h * 0.89))
    for side in (-1, 1):
        shape.add(tube(arc(0.028, 0, 360, 14), 0.008, 6), ribbon, "ribbon", (0, side * 0.03, h + 0.022), (0, 0, 90))
    return shape


def crate(main: Material, rng: np.random.Generator) -> Shape:
    d, w, h = 0.26, 0.34, 0.22
    shape = Shape()
    shape.add(cuboid((d, w, 0.02)), main, at=(0, 0, 0.01))
    for i in range(3):
        z = 0.04 + i * 0.075
        for side in (-1, 1):
            shape.add(cuboid((0.016, w, 0.06)), main, at=(side * d / 2, 0, z))
            shape.add(cuboid((d, 0.016, 0.06)), main, at=(0, side * w / 2, z))
    for x in (-1, 1):
        for y in (-1, 1):
            shape.add(cuboid((0.03, 0.03, h)), main, at=(x * (d / 2 - 0.022), y * (w / 2 - 0.022), h / 2))
    return shape


def plant(main: Material, rng: np.random.Generator) -> Shape:
    pot = paint(str(rng.choice(["brown", "white", "orange", "grey", "blue"])), rng)
    shape = Shape()
    shape.add(
        lathe([(0, 0), (0.06, 0), (0.085, 0.13), (0.092, 0.13), (0.092, 0.15), (0.078, 0.15), (0.07, 0.12), (0, 0.12)]),
        pot,
        "pot",
    )
    shape.add(cylinder(0.075, 0.003), paint("brown"), "pot", (0, 0, 0.125))
    for i in range(15):
        a, tilt = i * 2.4, np.radians(12 + 62 * (i / 14))
        reach = rng.uniform(0.16, 0.24)
        path = np.array(
            [
                [
                    s * reach * np.sin(tilt) * np.cos(a),
                    s * reach * np.sin(tilt) * np.sin(a),
                    0.125 + reach * (s * np.cos(tilt) + 0.25 * s - 0.3 * s**2),
                ]
                for s in (0, 0.3, 0.6, 0.85, 1.0)
            ]
        )
        shape.add(tube(path, np.array([0.006, 0.016, 0.024, 0.016, 0.002]), 6), main, "leaves")
    return shape


def cactus(main: Material, rng: np.random.Generator) -> Shape:
    pot = paint(str(rng.choice(["brown", "white", "orange", "red", "blue"])), rng)
    shape = Shape()
    shape.add(lathe([(0, 0), (0.052, 0), (0.07, 0.09), (0.06, 0.09), (0.055, 0.075), (0, 0.075)]), pot, "pot")
    shape.add(
        tube(
            [[0, 0, 0.07], [0, 0, 0.15], [0, 0, 0.24], [0, 0, 0.275], [0, 0, 0.29]],
            np.array([0.034, 0.038, 0.038, 0.028, 0.006]),
        ),
        main,
    )
    for side, z in ((-1, 0.13), (1, 0.17)):
        arm = [
            [0, side * 0.02, z],
            [0, side * 0.065, z + 0.005],
            [0, side * 0.085, z + 0.03],
            [0, side * 0.085, z + 0.075],
            [0, side * 0.085, z + 0.09],
        ]
        shape.add(tube(arm, np.array([0.02, 0.022, 0.022, 0.02, 0.006])), main, "arms")
    for _ in range(60):
        a, z = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.26)
        shape.add(
            cuboid((0.008, 0.003, 0.003)),
            WHITE,
            at=(0.039 * np.cos(a), 0.039 * np.sin(a), z),
            turn_deg=(0, 0, np.degrees(a)),
        )
    return shape.add(ellipsoid((0.02, 0.02, 0.014), 10), paint("pink"), "flower", (0, 0, 0.292))


def shoe(main: Material, rng: np.random.Generator) -> Shape:
    sole = [(0.145 * np.cos(a), 0.05 * np.sin(a) * (1 + 0.12 * np.cos(a))) for a in np.linspace(0, 2 * np.pi, 30)[:-1]]
    shape = Shape()
    shape.add(prism(sole, 0.026), contrast(main), "sole", (0, 0, 0.013), (-90, 0, 0))
    shape.add(ellipsoid((0.085, 0.047, 0.045)), main, at=(0.052, 0, 0.04))
    shape.add(ellipsoid((0.075, 0.045, 0.062)), main, at=(-0.062, 0, 0.052))
    shape.add(lathe([(0.046, 0), (0.040, 0.075), (0.033, 0.078), (0.032, 0.04), (0, 0.04)]), main, at=(-0.078, 0, 0.06))
    shape.add(ellipsoid((0.062, 0.03, 0.028), 16), main, at=(0.0, 0, 0.085), turn_deg=(0, 28, 0))
    for i in range(4):
        x = -0.022 + i * 0.022
        shape.add(
            tube(
                [[x, -0.028, 0.105 - i * 0.0125], [x + 0.004, 0, 0.12 - i * 0.0125], [x, 0.028, 0.105 - i * 0.0125]],
                0.0045,
                6,
            ),
            contrast(main),
            "laces",
        )
    return shape


def hat(main: Material, rng: np.random.Generator) -> Shape:
    brim = lathe([(0, 0.012), (0.10, 0.010), (0.165, 0.0), (0.175, 0.012), (0.16, 0.016), (0.105, 0.018)], 36)
    crown = lathe([(0.1, 0.012), (0.097, 0.07), (0.088, 0.115), (0.06, 0.132), (0, 0.118)], 32)
    shape = Shape()
    shape.add(brim, main, "brim")
    shape.add(crown, main)
    return shape.add(lathe([(0.098, 0.016), (0.104, 0.02), (0.103, 0.046), (0.097, 0.05)], 32), contrast(main), "band")


def backpack(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(pillow((0.17, 0.3, 0.42), 4.5), main, at=(0, 0, 0.21))
    shape.add(pillow((0.09, 0.22, 0.2), 5), main, "pocket", (0.085, 0, 0.13))
    shape.add(cuboid((0.006, 0.17, 0.008)), METAL, "zip", (0.126, 0, 0.18))
    shape.add(tube(arc(0.14, 10, 170, 14, 1.1), 0.005, 6), METAL, "zip", (0.055, 0, 0.24), (0, 12, 90))
    shape.add(tube(arc(0.04, 0, 180, 8), 0.009, 8), BLACK, "handle", (-0.03, 0, 0.405), (0, 0, 90))
    shape.add(cuboid((0.012, 0.022, 0.06)), contrast(main), at=(0.13, 0, 0.15))
    for side in (-1, 1):
        strap = np.array(
            [
                [-0.06, side * 0.09, 0.37],
                [-0.125, side * 0.10, 0.30],
                [-0.125, side * 0.11, 0.16],
                [-0.06, side * 0.12, 0.05],
            ]
        )
        shape.add(tube(strap, 0.017, 8), BLACK, "straps")
        shape.add(pillow((0.1, 0.05, 0.16), 4), main, "pocket", (0, side * 0.155, 0.12))
    return shape


def suitcase(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(pillow((0.2, 0.36, 0.46), 14), main, at=(0, 0, 0.27))
    for y in (-0.12, -0.06, 0, 0.06, 0.12):
        shape.add(cuboid((0.208, 0.014, 0.40)), main, at=(0, y, 0.27))
    for side in (-1, 1):
        shape.add(tube([[-0.06, side * 0.09, 0.48], [-0.06, side * 0.09, 0.66]], 0.008, 8), METAL, "handle")
        for x in (-0.07, 0.07):
            shape.add(cylinder(0.026, 0.024), BLACK, "wheels", (x, side * 0.14 - 0.012, 0.026), (-90, 0, 0))
    return shape.add(tube([[-0.06, -0.1, 0.66], [-0.06, 0.1, 0.66]], 0.014, 8), BLACK, "handle")


def cushion(main: Material, rng: np.random.Generator) -> Shape:
    size = rng.uniform(0.36, 0.44)
    u = np.linspace(-1, 1, 15)
    x, y = (a.ravel() for a in np.meshgrid(u, u, indexing="ij"))
    thick = 0.075 * ((1 - x**4) * (1 - y**4)) ** 0.5 + 0.004
    pinch = 1 - 0.10 * (1 - np.abs(x * y)) * np.maximum(np.abs(x), np.abs(y)) ** 4
    sheet = np.stack([thick, x * pinch * size / 2, y * pinch * size / 2], 1)
    i, j = (a.ravel() for a in np.meshgrid(np.arange(14), np.arange(14), indexing="ij"))
    a = i * 15 + j
    faces = np.concatenate([np.stack([a, a + 15, a + 16], 1), np.stack([a, a + 16, a + 1], 1)])
    shape = Shape()
    for side in (1, -1):
        shape.add((sheet * [side, 1, 1], faces[:, ::side]), main, at=(0, 0, size / 2), turn_deg=(0, -18, 0))
    return shape


def umbrella(main: Material, rng: np.random.Generator) -> Shape:
    shape, ribs, r, h = Shape(), 8, 0.30, 0.62
    angle = np.arange(ribs) * 2 * np.pi / ribs
    levels = [(0.02, h), (0.4, h - 0.03), (0.75, h - 0.095), (1.0, h - 0.17)]
    rings = [np.stack([r * s * np.cos(angle), r * s * np.sin(angle), np.full(ribs, z)], 1) for s, z in levels]
    other = Material(tuple(np.clip(np.array(main.rgb) * 0.78, 0, 1)), main.pattern)
    for k in range(ribs):
        m = (k + 1) % ribs
        strip = np.concatenate([[ring[k], ring[m]] for ring in rings])
        faces = np.array(
            [[2 * i, 2 * i + 2, 2 * i + 3] for i in range(3)] + [[2 * i, 2 * i + 3, 2 * i + 1] for i in range(3)]
        )
        shape.add((strip, faces), main if k % 2 else other, "canopy")
    shape.add(tube([[0, 0, 0.09], [0, 0, h + 0.05]], 0.008, 8), METAL)
    shape.add(tube(arc(0.045, 180, 360, 10), 0.014, 8), WOODEN, "handle", (0.045, 0, 0.09))
    return shape.add(cylinder(0.085, 0.05), BLACK, "stand", (0.02, 0, 0))


def bin_(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.14, 0.33 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(lathe([(0, 0), (r * 0.78, 0), (r, h), (r * 0.95, h), (r * 0.74, 0.012), (0, 0.012)], 32), main)
    shape.add(lathe([(r * 0.98, h * 0.94), (r * 1.06, h * 0.96), (r * 1.06, h), (r * 0.95, h)], 32), main, "rim")
    for k in range(5):
        a = k * 2.4
        crumpled = Material((0.93, 0.93, 0.9), "cloth")
        shape.add(
            ellipsoid((0.055, 0.05, 0.045), 7),
            crumpled,
            "paper",
            (0.055 * np.cos(a), 0.055 * np.sin(a), h * 0.86),
            (k * 40, k * 70, 0),
        )
    return shape


def bucket(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.13, 0.22 * rng.uniform(0.9, 1.1)
    shape = Shape()
    shape.add(lathe([(0, 0), (r * 0.72, 0), (r, h), (r * 0.96, h), (r * 0.68, 0.01), (0, 0.01)], 32), main)
    shape.add(cylinder(r * 0.9, 0.002), paint("blue"), "water", (0, 0, h * 0.8))
    shape.add(tube(arc(r * 1.02, 0, 180, 18, 1.15), 0.006, 8), METAL, "handle", (0, 0, h * 0.93), (0, 0, 90))
    return shape.add(
        tube([[-0.045, 0, 0], [0.045, 0, 0]], 0.014, 8),
        WHITE if sum(main.rgb) < 2.2 else BLACK,
        "handle",
        (0, 0, h * 0.93 + r * 1.17),
        (0, 0, 90),
    )


KINDS = (
    Kind("book", book, PAINTED),
    Kind("books", books, PAINTED, synonyms=("stack of books", "pile of books")),
    Kind("box", box, (*PAINTED, "wooden"), ("table", "shelf", "floor"), ("gift box", "gift")),
    Kind("crate", crate, ("wooden", "red", "blue", "green", "black", "white"), ("floor",)),
    Kind(
        "plant",
        plant,
        ("green",),
        ("table", "shelf", "floor"),
        ("potted plant", "houseplant"),
        "leaves",
        turned_deg=180,
    ),
    Kind("cactus", cactus, ("green",), synonyms=("potted cactus",)),
    Kind("shoe", shoe, PAINTED, ("floor", "shelf", "table"), ("sneaker",), "cloth", turned_deg=80),
    Kind("hat", hat, PAINTED, ("table", "soft"), pattern="cloth", turned_deg=180),
    Kind("backpack", backpack, PAINTED, ("floor", "soft"), ("rucksack", "bag"), "cloth"),
    Kind("suitcase", suitcase, PAINTED, ("floor",), ("luggage",), turned_deg=50),
    Kind("cushion", cushion, PAINTED, ("soft",), ("pillow",), "cloth", turned_deg=15),
    Kind("umbrella", umbrella, PAINTED, ("floor",), (), "cloth"),
    Kind("bin", bin_, (*PAINTED, "metal"), ("floor",), ("trash can", "waste bin"), turned_deg=180),
    Kind("bucket", bucket, (*PAINTED, "metal"), ("floor",), ("pail",), turned_deg=60),
)
