"""Devices and things from the desk."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.kind import PAINTED, Kind
from lerf_ros.world.materials import Material, contrast, paint
from lerf_ros.world.shapes import Shape, arc, cuboid, cylinder, ellipsoid, lathe, pillow, prism, tube

BLACK, WHITE, GREY, METAL, WOODEN = (paint(c) for c in ("black", "white", "grey", "metal", "wooden"))
SCREEN = Material((0.10, 0.16, 0.30), "screen", (0.75, 0.85, 0.95), 0.03, 0.6)


def laptop(main: Material, rng: np.random.Generator) -> Shape:
    w, d, open_deg = 0.34 * rng.uniform(0.9, 1.08), 0.23, rng.uniform(10, 25)
    keys = Material((0.16, 0.16, 0.17), "keys", (0.45, 0.45, 0.47), 0.022)
    shape = Shape()
    shape.add(cuboid((d, w, 0.018)), main, "base", (0, 0, 0.009))
    shape.add(cuboid((d * 0.5, w * 0.88, 0.002)), keys, "keyboard", (-0.03, 0, 0.019))
    shape.add(cuboid((d * 0.26, w * 0.3, 0.002)), paint("grey"), "base", (d * 0.33, 0, 0.019))
    lift, back = np.cos(np.radians(open_deg)), np.sin(np.radians(open_deg))
    panel = (-d / 2 - back * d / 2, 0, 0.014 + lift * d / 2)
    shape.add(cuboid((0.012, w, d)), main, "screen", panel, (0, -open_deg, 0))
    return shape.add(
        cuboid((0.002, w * 0.92, d * 0.86)),
        SCREEN,
        "screen",
        (panel[0] + 0.007 * lift, 0, panel[2] + 0.007 * back),
        (0, -open_deg, 0),
    )


def monitor(main: Material, rng: np.random.Generator) -> Shape:
    w, h = 0.5 * rng.uniform(0.85, 1.1), 0.3
    shape = Shape()
    shape.add(cuboid((0.17, 0.24, 0.014)), main, "stand", (0, 0, 0.007))
    shape.add(cuboid((0.03, 0.05, 0.16)), main, "stand", (-0.03, 0, 0.09))
    shape.add(cuboid((0.035, w, h)), main, "frame", (0, 0, 0.12 + h / 2))
    return shape.add(cuboid((0.004, w - 0.04, h - 0.04)), SCREEN, "screen", (0.018, 0, 0.12 + h / 2))


def keyboard(main: Material, rng: np.random.Generator) -> Shape:
    light = sum(main.rgb) > 1.2
    keys = Material(main.rgb, "keys", (0.15, 0.15, 0.17) if light else (0.62, 0.62, 0.64), 0.026)
    outline = [(-0.08, 0), (0.08, 0), (0.08, 0.018), (-0.08, 0.042)]
    shape = Shape()
    shape.add(prism(outline, 0.44), main)
    return shape.add(cuboid((0.14, 0.416, 0.006)), keys, "keys", (0, 0, 0.032), (0, 8.5, 0))


def phone(main: Material, rng: np.random.Generator) -> Shape:
    outline = [(-0.10, 0), (0.11, 0), (0.11, 0.03), (-0.02, 0.085), (-0.09, 0.085)]
    shape = Shape()
    shape.add(prism(outline, 0.19), main)
    shape.add(cylinder(0.062, 0.012), WHITE, "dial", (0.052, 0, 0.057), (0, 23, 0))
    shape.add(cylinder(0.024, 0.016), main, "dial", (0.053, 0, 0.06), (0, 23, 0))
    for a in np.radians(np.arange(10) * 33 + 20):
        at = np.array([0.046 * np.cos(a), 0.046 * np.sin(a), 0.0])
        shape.add(
            ellipsoid((0.009, 0.009, 0.005), 8), BLACK, "dial", (0.057 + at[0] * 0.92, at[1], 0.069 - at[0] * 0.39)
        )
    for side in (-1, 1):
        shape.add(cuboid((0.025, 0.02, 0.03)), main, at=(-0.055, side * 0.05, 0.095))
        shape.add(ellipsoid((0.034, 0.034, 0.028), 16), main, "receiver", (-0.05, side * 0.115, 0.112))
    return shape.add(
        tube([[-0.055, -0.12, 0.128], [-0.055, -0.06, 0.142], [-0.055, 0.06, 0.142], [-0.055, 0.12, 0.128]], 0.018),
        main,
        "receiver",
    )


def camera(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(pillow((0.07, 0.17, 0.11), 10), main, "body", (0, 0, 0.055))
    shape.add(cuboid((0.072, 0.172, 0.045)), BLACK, "body", (0, 0, 0.05))
    shape.add(cuboid((0.05, 0.06, 0.035), taper=0.7), main, at=(0, 0, 0.122))
    shape.add(cylinder(0.044, 0.05), BLACK, "lens", (0.03, 0, 0.055), (0, 90, 0))
    shape.add(cylinder(0.038, 0.035), METAL, "lens", (0.055, 0, 0.055), (0, 90, 0))
    shape.add(cylinder(0.03, 0.002), Material((0.05, 0.07, 0.22), gloss=1.0), "lens", (0.0905, 0, 0.055), (0, 90, 0))
    shape.add(cuboid((0.01, 0.035, 0.02)), WHITE, "flash", (0.025, 0, 0.126))
    return shape.add(cylinder(0.012, 0.012), METAL, at=(0, 0.06, 0.108))


def clock(main: Material, rng: np.random.Generator) -> Shape:
    r, z = 0.085 * rng.uniform(0.9, 1.1), 0.11
    shape = Shape()
    shape.add(cylinder(r, 0.06, sections=36), main, at=(-0.03, 0, z), turn_deg=(0, 90, 0))
    shape.add(cylinder(r * 0.88, 0.004, sections=36), WHITE, "face", (0.03, 0, z), (0, 90, 0))
    for a in np.arange(12) * np.pi / 6:
        size = (0.004, 0.012, 0.012) if a % (np.pi / 2) < 0.01 else (0.003, 0.007, 0.007)
        shape.add(cuboid(size), BLACK, "face", (0.035, 0.74 * r * np.sin(a), z + 0.74 * r * np.cos(a)))
    for turn, length, width in ((rng.uniform(0, 360), 0.45, 0.010), (rng.uniform(0, 360), 0.68, 0.007)):
        a = np.radians(turn)
        shape.add(
            cuboid((0.003, width, r * length)),
            BLACK,
            "hands",
            (0.037, -np.sin(a) * r * length / 2, z + np.cos(a) * r * length / 2),
            (turn, 0, 0),
        )
    for side in (-1, 1):
        shape.add(
            ellipsoid((0.03, 0.034, 0.026), 16), METAL, "bells", (0, side * 0.052, z + r * 0.97), (-side * 32, 0, 0)
        )
        shape.add(tube([[0, side * 0.045, z - r * 0.8], [0, side * 0.07, 0.0]], 0.009, 8), METAL, "feet")
    return shape.add(tube(arc(0.022, 0, 180, 8), 0.005, 6), METAL, at=(0, 0, z + r * 1.12), turn_deg=(0, 0, 90))


def fan(main: Material, rng: np.random.Generator) -> Shape:
    z, r = 0.29, 0.125
    shape = Shape()
    shape.add(lathe([(0, 0), (0.085, 0), (0.08, 0.02), (0.016, 0.035), (0, 0.035)]), main, "base")
    shape.add(cylinder(0.013, z - 0.03), main, "base", (-0.03, 0, 0.02))
    shape.add(cylinder(0.04, 0.09), main, at=(-0.09, 0, z), turn_deg=(0, 90, 0))
    shape.add(cylinder(0.026, 0.05), METAL, at=(0.0, 0, z), turn_deg=(0, 90, 0))
    for a in range(0, 360, 90):
        shape.add(
            ellipsoid((0.005, 0.034, 0.05), 12),
            main,
            "blades",
            (0.03, 0.06 * np.sin(np.radians(a)), z + 0.06 * np.cos(np.radians(a))),
            (-a, 20, 0),
        )
    hoop = np.concatenate([arc(r, 0, 350, 30), arc(r, 350, 360, 2)[1:]])
    for x, s in ((0.0, 1.0), (0.055, 1.0), (0.065, 0.55)):
        shape.add(tube(hoop * s, 0.0045, 6), METAL, "cage", (x, 0, z), (0, 0, 90))
    for a in np.arange(12) * np.pi / 6:
        edge = [0.055, r * np.sin(a), z + r * np.cos(a)]
        shape.add(tube([edge, [0.07, 0, z]], 0.0018, 4), METAL, "cage")
    return shape


def speaker(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(cuboid((0.15, 0.16, 0.28)), main, at=(0, 0, 0.14))
    for z, r in ((0.095, 0.06), (0.22, 0.034)):
        shape.add(
            lathe([(r, 0), (r, 0.006), (r * 0.86, 0.009), (r * 0.8, 0.004), (0, 0.002)], 30),
            contrast(main),
            "cone",
            (0.075, 0, z),
            (0, 90, 0),
        )
        shape.add(ellipsoid((0.012, r * 0.34, r * 0.34), 14), GREY, "cone", (0.08, 0, z))
    return shape


def radio(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape()
    shape.add(pillow((0.10, 0.28, 0.16), 12), main, at=(0, 0, 0.08))
    shape.add(cylinder(0.055, 0.006), BLACK, "cone", (0.047, 0.065, 0.08), (0, 90, 0))
    shape.add(cylinder(0.02, 0.009), GREY, "cone", (0.047, 0.065, 0.08), (0, 90, 0))
    shape.add(
        cuboid((0.006, 0.11, 0.035)),
        Material((0.95, 0.9, 0.7), "stripes", (0.2, 0.1, 0.1), 0.012),
        "dial",
        (0.05, -0.065, 0.11),
    )
    for y in (-0.1, -0.065, -0.03):
        shape.add(cylinder(0.013, 0.018), METAL, "knobs", (0.045, y, 0.055), (0, 90, 0))
    shape.add(tube([[-0.03, -0.1, 0.15], [-0.03, -0.13, 0.33]], 0.004, 6), METAL, "antenna")
    return shape.add(
        tube([[0, -0.09, 0.15], [0, -0.085, 0.195], [0, 0.085, 0.195], [0, 0.09, 0.15]], 0.009, 8),
        contrast(main),
        "handle",
    )


def lamp(main: Material, rng: np.random.Generator) -> Shape:
    foot = METAL if rng.random() < 0.5 else WOODEN
    shape = Shape()
    shape.add(lathe([(0, 0), (0.075, 0), (0.07, 0.018), (0.015, 0.03), (0, 0.03)]), foot, "base")
    shape.add(cylinder(0.011, 0.25), foot, "base", (0, 0, 0.025))
    w = rng.uniform(0.9, 1.15)
    shade = lathe([(0.13 * w, 0.24), (0.07 * w, 0.42), (0.066 * w, 0.42), (0.126 * w, 0.24)], 32)
    shape.add(shade, main, "shade")
    return shape.add(ellipsoid((0.028, 0.028, 0.035), 14), Material((1.0, 0.93, 0.7), gloss=1.0), "bulb", (0, 0, 0.29))


def globe(main: Material, rng: np.random.Generator) -> Shape:
    r, z = 0.105, 0.19
    stand = WOODEN if rng.random() < 0.5 else METAL
    sea = Material(main.rgb, "globe", (0.28, 0.55, 0.2) if main.rgb[1] < 0.7 else (0.6, 0.45, 0.25), gloss=0.3)
    shape = Shape()
    shape.add(ellipsoid((r, r, r), 36), sea, "ball", (0, 0, z), (23, 0, 0))
    shape.add(lathe([(0, 0), (0.085, 0), (0.07, 0.02), (0.014, 0.035), (0.012, 0.09), (0, 0.09)]), stand, "stand")
    return shape.add(tube(arc(r * 1.1, -112, 68, 18), 0.008, 8), stand, "stand", (0, 0, z), (0, 0, 90))


KINDS = (
    Kind("lamp", lamp, PAINTED, synonyms=("table lamp", "desk lamp"), turned_deg=180),
    Kind(
        "laptop",
        laptop,
        ("grey", "black", "white", "metal", "red", "blue", "pink"),
        ("table",),
        ("computer",),
        turned_deg=30,
    ),
    Kind(
        "monitor",
        monitor,
        ("black", "white", "grey", "metal", "red"),
        ("table",),
        ("computer screen", "computer monitor"),
        turned_deg=20,
    ),
    Kind(
        "keyboard",
        keyboard,
        ("black", "white", "grey", "pink", "blue"),
        ("table",),
        ("computer keyboard",),
        turned_deg=20,
    ),
    Kind("phone", phone, PAINTED, synonyms=("telephone",)),
    Kind(
        "camera",
        camera,
        ("black", "brown", "metal", "red", "white", "blue", "yellow", "pink"),
        synonyms=("photo camera",),
    ),
    Kind("clock", clock, PAINTED, synonyms=("alarm clock",)),
    Kind("fan", fan, ("white", "black", "blue", "red", "green", "pink", "metal"), ("table",), ("desk fan",)),
    Kind("speaker", speaker, ("black", "white", "wooden", "red", "grey", "blue"), synonyms=("loudspeaker",)),
    Kind("radio", radio, ("red", "brown", "wooden", "black", "blue", "white", "yellow", "green", "pink", "grey")),
    Kind("globe", globe, ("blue", "white", "yellow", "brown"), turned_deg=180),
)
