"""Things from the living room, the desk and the wardrobe."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.kind import PAINTED, Kind
from lerf_ros.world.materials import Material, paint
from lerf_ros.world.shapes import Shape, arc, cuboid, cylinder, ellipsoid, lathe, pillow, prism, tube

BLACK, WHITE, GREY, METAL, WOODEN = (paint(c) for c in ("black", "white", "grey", "metal", "wooden"))
SCREEN = Material((0.10, 0.16, 0.30), "screen", (0.75, 0.85, 0.95), 0.03, 0.6)


def _contrast(main: Material) -> Material:
    return WHITE if sum(main.rgb) < 1.9 else BLACK


def lamp(main: Material, rng: np.random.Generator) -> Shape:
    foot = METAL if rng.random() < 0.5 else WOODEN
    shape = Shape().add(lathe([(0, 0), (0.075, 0), (0.07, 0.018), (0.015, 0.03), (0, 0.03)]), foot, "base")
    shape.add(cylinder(0.011, 0.25), foot, "base", (0, 0, 0.025))
    w = rng.uniform(0.9, 1.15)
    shade = lathe([(0.13 * w, 0.24), (0.07 * w, 0.42), (0.066 * w, 0.42), (0.126 * w, 0.24)], 32)
    return shape.add(shade, main, "shade").add(ellipsoid((0.028, 0.028, 0.035), 14), Material((1.0, 0.93, 0.7), gloss=1.0), "bulb", (0, 0, 0.29))


def book(main: Material, rng: np.random.Generator) -> Shape:
    w, h, t = 0.16 * rng.uniform(0.9, 1.1), 0.23 * rng.uniform(0.9, 1.1), 0.05
    ink = _contrast(main)
    shape = Shape()
    for x in (-t / 2 + 0.003, t / 2 - 0.003):
        shape.add(cuboid((0.006, w, h)), main, "cover", (x, 0, h / 2))
    shape.add(cuboid((t, 0.006, h)), main, "cover", (0, -w / 2 + 0.003, h / 2)).add(cuboid((t - 0.012, w - 0.012, h - 0.012)), Material((0.95, 0.92, 0.83), "stripes", (0.7, 0.66, 0.58), 0.004), "pages", (0, -0.002, h / 2))
    shape.add(cuboid((0.002, w * 0.7, h * 0.10)), ink, "title", (t / 2 + 0.001, 0, h * 0.74)).add(cuboid((0.002, w * 0.45, h * 0.04)), ink, "title", (t / 2 + 0.001, 0, h * 0.62))
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
        tone = Material(tuple(np.clip(np.array(main.rgb) * (0.75 + 0.16 * ((i * 2) % 4)), 0, 1)), main.pattern, main.accent, main.period)
        turn = (0, 0, rng.uniform(-12, 12))
        for dz in (0.003, t - 0.003):
            shape.add(cuboid((w, h, 0.006)), tone, "cover", (0, 0, z + dz), turn)
        shape.add(cuboid((w - 0.014, h - 0.014, t - 0.006)), Material((0.95, 0.92, 0.83)), "pages", (0, 0, z + t / 2), turn)
        angle = np.radians(turn[2])
        shape.add(cuboid((0.005, h, t)), tone, "cover", (w / 2 * np.cos(angle), w / 2 * np.sin(angle), z + t / 2), turn)
        z += t
    return shape


def laptop(main: Material, rng: np.random.Generator) -> Shape:
    w, d, open_deg = 0.34 * rng.uniform(0.9, 1.08), 0.23, rng.uniform(10, 25)
    keys = Material((0.16, 0.16, 0.17), "keys", (0.45, 0.45, 0.47), 0.022)
    shape = Shape().add(cuboid((d, w, 0.018)), main, "base", (0, 0, 0.009)).add(cuboid((d * 0.5, w * 0.88, 0.002)), keys, "keyboard", (-0.03, 0, 0.019))
    shape.add(cuboid((d * 0.26, w * 0.3, 0.002)), paint("grey"), "base", (d * 0.33, 0, 0.019))
    lift, back = np.cos(np.radians(open_deg)), np.sin(np.radians(open_deg))
    panel = (-d / 2 - back * d / 2, 0, 0.014 + lift * d / 2)
    shape.add(cuboid((0.012, w, d)), main, "screen", panel, (0, -open_deg, 0))
    return shape.add(cuboid((0.002, w * 0.92, d * 0.86)), SCREEN, "screen", (panel[0] + 0.007 * lift, 0, panel[2] + 0.007 * back), (0, -open_deg, 0))


def monitor(main: Material, rng: np.random.Generator) -> Shape:
    w, h = 0.5 * rng.uniform(0.85, 1.1), 0.3
    shape = Shape().add(cuboid((0.17, 0.24, 0.014)), main, "stand", (0, 0, 0.007)).add(cuboid((0.03, 0.05, 0.16)), main, "stand", (-0.03, 0, 0.09))
    shape.add(cuboid((0.035, w, h)), main, "frame", (0, 0, 0.12 + h / 2))
    return shape.add(cuboid((0.004, w - 0.04, h - 0.04)), SCREEN, "screen", (0.018, 0, 0.12 + h / 2))


def keyboard(main: Material, rng: np.random.Generator) -> Shape:
    light = sum(main.rgb) > 1.2
    keys = Material(main.rgb, "keys", (0.15, 0.15, 0.17) if light else (0.62, 0.62, 0.64), 0.026)
    outline = [(-0.08, 0), (0.08, 0), (0.08, 0.018), (-0.08, 0.042)]
    shape = Shape().add(prism(outline, 0.44), main)
    return shape.add(cuboid((0.14, 0.416, 0.006)), keys, "keys", (0, 0, 0.032), (0, 8.5, 0))


def phone(main: Material, rng: np.random.Generator) -> Shape:
    outline = [(-0.10, 0), (0.11, 0), (0.11, 0.03), (-0.02, 0.085), (-0.09, 0.085)]
    shape = Shape().add(prism(outline, 0.19), main).add(cylinder(0.062, 0.012), WHITE, "dial", (0.052, 0, 0.057), (0, 23, 0)).add(cylinder(0.024, 0.016), main, "dial", (0.053, 0, 0.06), (0, 23, 0))
    for a in np.radians(np.arange(10) * 33 + 20):
        at = np.array([0.046 * np.cos(a), 0.046 * np.sin(a), 0.0])
        shape.add(ellipsoid((0.009, 0.009, 0.005), 8), BLACK, "dial", (0.057 + at[0] * 0.92, at[1], 0.069 - at[0] * 0.39))
    for side in (-1, 1):
        shape.add(cuboid((0.025, 0.02, 0.03)), main, at=(-0.055, side * 0.05, 0.095)).add(ellipsoid((0.034, 0.034, 0.028), 16), main, "receiver", (-0.05, side * 0.115, 0.112))
    return shape.add(tube([[-0.055, -0.12, 0.128], [-0.055, -0.06, 0.142], [-0.055, 0.06, 0.142], [-0.055, 0.12, 0.128]], 0.018), main, "receiver")


def camera(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape().add(pillow((0.07, 0.17, 0.11), 10), main, "body", (0, 0, 0.055)).add(cuboid((0.072, 0.172, 0.045)), BLACK, "body", (0, 0, 0.05)).add(cuboid((0.05, 0.06, 0.035), taper=0.7), main, at=(0, 0, 0.122))
    shape.add(cylinder(0.044, 0.05), BLACK, "lens", (0.03, 0, 0.055), (0, 90, 0)).add(cylinder(0.038, 0.035), METAL, "lens", (0.055, 0, 0.055), (0, 90, 0))
    shape.add(cylinder(0.03, 0.002), Material((0.05, 0.07, 0.22), gloss=1.0), "lens", (0.0905, 0, 0.055), (0, 90, 0)).add(cuboid((0.01, 0.035, 0.02)), WHITE, "flash", (0.025, 0, 0.126))
    return shape.add(cylinder(0.012, 0.012), METAL, at=(0, 0.06, 0.108))


def clock(main: Material, rng: np.random.Generator) -> Shape:
    r, z = 0.085 * rng.uniform(0.9, 1.1), 0.11
    shape = Shape().add(cylinder(r, 0.06, sections=36), main, at=(-0.03, 0, z), turn_deg=(0, 90, 0)).add(cylinder(r * 0.88, 0.004, sections=36), WHITE, "face", (0.03, 0, z), (0, 90, 0))
    for a in np.arange(12) * np.pi / 6:
        size = (0.004, 0.012, 0.012) if a % (np.pi / 2) < 0.01 else (0.003, 0.007, 0.007)
        shape.add(cuboid(size), BLACK, "face", (0.035, 0.74 * r * np.sin(a), z + 0.74 * r * np.cos(a)))
    for turn, length, width in ((rng.uniform(0, 360), 0.45, 0.010), (rng.uniform(0, 360), 0.68, 0.007)):
        a = np.radians(turn)
        shape.add(cuboid((0.003, width, r * length)), BLACK, "hands", (0.037, -np.sin(a) * r * length / 2, z + np.cos(a) * r * length / 2), (turn, 0, 0))
    for side in (-1, 1):
        shape.add(ellipsoid((0.03, 0.034, 0.026), 16), METAL, "bells", (0, side * 0.052, z + r * 0.97), (-side * 32, 0, 0))
        shape.add(tube([[0, side * 0.045, z - r * 0.8], [0, side * 0.07, 0.0]], 0.009, 8), METAL, "feet")
    return shape.add(tube(arc(0.022, 0, 180, 8), 0.005, 6), METAL, at=(0, 0, z + r * 1.12), turn_deg=(0, 0, 90))


def fan(main: Material, rng: np.random.Generator) -> Shape:
    z, r = 0.29, 0.125
    shape = Shape().add(lathe([(0, 0), (0.085, 0), (0.08, 0.02), (0.016, 0.035), (0, 0.035)]), main, "base").add(cylinder(0.013, z - 0.03), main, "base", (-0.03, 0, 0.02))
    shape.add(cylinder(0.04, 0.09), main, at=(-0.09, 0, z), turn_deg=(0, 90, 0)).add(cylinder(0.026, 0.05), METAL, at=(0.0, 0, z), turn_deg=(0, 90, 0))
    for a in range(0, 360, 90):
        shape.add(ellipsoid((0.005, 0.034, 0.05), 12), main, "blades", (0.03, 0.06 * np.sin(np.radians(a)), z + 0.06 * np.cos(np.radians(a))), (-a, 20, 0))
    hoop = np.concatenate([arc(r, 0, 350, 30), arc(r, 350, 360, 2)[1:]])
    for x, s in ((0.0, 1.0), (0.055, 1.0), (0.065, 0.55)):
        shape.add(tube(hoop * s, 0.0045, 6), METAL, "cage", (x, 0, z), (0, 0, 90))
    for a in np.arange(12) * np.pi / 6:
        edge = [0.055, r * np.sin(a), z + r * np.cos(a)]
        shape.add(tube([edge, [0.07, 0, z]], 0.0018, 4), METAL, "cage")
    return shape


def speaker(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape().add(cuboid((0.15, 0.16, 0.28)), main, at=(0, 0, 0.14))
    for z, r in ((0.095, 0.06), (0.22, 0.034)):
        shape.add(lathe([(r, 0), (r, 0.006), (r * 0.86, 0.009), (r * 0.8, 0.004), (0, 0.002)], 30), _contrast(main), "cone", (0.075, 0, z), (0, 90, 0))
        shape.add(ellipsoid((0.012, r * 0.34, r * 0.34), 14), GREY, "cone", (0.08, 0, z))
    return shape


def radio(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape().add(pillow((0.10, 0.28, 0.16), 12), main, at=(0, 0, 0.08)).add(cylinder(0.055, 0.006), BLACK, "cone", (0.047, 0.065, 0.08), (0, 90, 0)).add(cylinder(0.02, 0.009), GREY, "cone", (0.047, 0.065, 0.08), (0, 90, 0))
    shape.add(cuboid((0.006, 0.11, 0.035)), Material((0.95, 0.9, 0.7), "stripes", (0.2, 0.1, 0.1), 0.012), "dial", (0.05, -0.065, 0.11))
    for y in (-0.1, -0.065, -0.03):
        shape.add(cylinder(0.013, 0.018), METAL, "knobs", (0.045, y, 0.055), (0, 90, 0))
    shape.add(tube([[-0.03, -0.1, 0.15], [-0.03, -0.13, 0.33]], 0.004, 6), METAL, "antenna")
    return shape.add(tube([[0, -0.09, 0.15], [0, -0.085, 0.195], [0, 0.085, 0.195], [0, 0.09, 0.15]], 0.009, 8), _contrast(main), "handle")


def globe(main: Material, rng: np.random.Generator) -> Shape:
    r, z = 0.105, 0.19
    stand = WOODEN if rng.random() < 0.5 else METAL
    sea = Material(main.rgb, "globe", (0.28, 0.55, 0.2) if main.rgb[1] < 0.7 else (0.6, 0.45, 0.25), gloss=0.3)
    shape = Shape().add(ellipsoid((r, r, r), 36), sea, "ball", (0, 0, z), (23, 0, 0)).add(lathe([(0, 0), (0.085, 0), (0.07, 0.02), (0.014, 0.035), (0.012, 0.09), (0, 0.09)]), stand, "stand")
    return shape.add(tube(arc(r * 1.1, -112, 68, 18), 0.008, 8), stand, "stand", (0, 0, z), (0, 0, 90))


def box(main: Material, rng: np.random.Generator) -> Shape:
    w, d, h = rng.uniform(0.16, 0.26), rng.uniform(0.16, 0.24), rng.uniform(0.12, 0.2)
    ribbon = paint("red") if main.rgb[0] < 0.5 or min(main.rgb) > 0.4 else WHITE
    shape = Shape().add(cuboid((d, w, h * 0.8)), main, at=(0, 0, h * 0.4)).add(cuboid((d * 1.05, w * 1.05, h * 0.22)), main, "lid", (0, 0, h * 0.89))
    shape.add(cuboid((d * 1.06, 0.03, h * 0.225)), ribbon, "ribbon", (0, 0, h * 0.89)).add(cuboid((d * 1.01, 0.03, h * 0.8)), ribbon, "ribbon", (0, 0, h * 0.4))
    shape.add(cuboid((0.03, w * 1.06, h * 0.225)), ribbon, "ribbon", (0, 0, h * 0.89))
    for side in (-1, 1):
        shape.add(tube(arc(0.028, 0, 360, 14), 0.008, 6), ribbon, "ribbon", (0, side * 0.03, h + 0.022), (0, 0, 90))
    return shape


def crate(main: Material, rng: np.random.Generator) -> Shape:
    d, w, h = 0.26, 0.34, 0.22
    shape = Shape().add(cuboid((d, w, 0.02)), main, at=(0, 0, 0.01))
    for i in range(3):
        z = 0.04 + i * 0.075
        for side in (-1, 1):
            shape.add(cuboid((0.016, w, 0.06)), main, at=(side * d / 2, 0, z)).add(cuboid((d, 0.016, 0.06)), main, at=(0, side * w / 2, z))
    for x in (-1, 1):
        for y in (-1, 1):
            shape.add(cuboid((0.03, 0.03, h)), main, at=(x * (d / 2 - 0.022), y * (w / 2 - 0.022), h / 2))
    return shape


def plant(main: Material, rng: np.random.Generator) -> Shape:
    pot = paint(str(rng.choice(["brown", "white", "orange", "grey", "blue"])), rng)
    shape = Shape().add(lathe([(0, 0), (0.06, 0), (0.085, 0.13), (0.092, 0.13), (0.092, 0.15), (0.078, 0.15), (0.07, 0.12), (0, 0.12)]), pot, "pot").add(cylinder(0.075, 0.003), paint("brown"), "pot", (0, 0, 0.125))
    for i in range(15):
        a, tilt = i * 2.4, np.radians(12 + 62 * (i / 14))
        reach = rng.uniform(0.16, 0.24)
        path = np.array([[s * reach * np.sin(tilt) * np.cos(a), s * reach * np.sin(tilt) * np.sin(a), 0.125 + reach * (s * np.cos(tilt) + 0.25 * s - 0.3 * s**2)] for s in (0, 0.3, 0.6, 0.85, 1.0)])
        shape.add(tube(path, np.array([0.006, 0.016, 0.024, 0.016, 0.002]), 6), main, "leaves")
    return shape


def cactus(main: Material, rng: np.random.Generator) -> Shape:
    pot = paint(str(rng.choice(["brown", "white", "orange", "red", "blue"])), rng)
    shape = Shape().add(lathe([(0, 0), (0.052, 0), (0.07, 0.09), (0.06, 0.09), (0.055, 0.075), (0, 0.075)]), pot, "pot").add(tube([[0, 0, 0.07], [0, 0, 0.15], [0, 0, 0.24], [0, 0, 0.275], [0, 0, 0.29]], np.array([0.034, 0.038, 0.038, 0.028, 0.006])), main)
    for side, z in ((-1, 0.13), (1, 0.17)):
        arm = [[0, side * 0.02, z], [0, side * 0.065, z + 0.005], [0, side * 0.085, z + 0.03], [0, side * 0.085, z + 0.075], [0, side * 0.085, z + 0.09]]
        shape.add(tube(arm, np.array([0.02, 0.022, 0.022, 0.02, 0.006])), main, "arms")
    for _ in range(60):
        a, z = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.26)
        shape.add(cuboid((0.008, 0.003, 0.003)), WHITE, at=(0.039 * np.cos(a), 0.039 * np.sin(a), z), turn_deg=(0, 0, np.degrees(a)))
    return shape.add(ellipsoid((0.02, 0.02, 0.014), 10), paint("pink"), "flower", (0, 0, 0.292))


def shoe(main: Material, rng: np.random.Generator) -> Shape:
    sole = [(0.145 * np.cos(a), 0.05 * np.sin(a) * (1 + 0.12 * np.cos(a))) for a in np.linspace(0, 2 * np.pi, 30)[:-1]]
    shape = Shape().add(prism(sole, 0.026), _contrast(main), "sole", (0, 0, 0.013), (-90, 0, 0)).add(ellipsoid((0.085, 0.047, 0.045)), main, at=(0.052, 0, 0.04)).add(ellipsoid((0.075, 0.045, 0.062)), main, at=(-0.062, 0, 0.052))
    shape.add(lathe([(0.046, 0), (0.040, 0.075), (0.033, 0.078), (0.032, 0.04), (0, 0.04)]), main, at=(-0.078, 0, 0.06)).add(ellipsoid((0.062, 0.03, 0.028), 16), main, at=(0.0, 0, 0.085), turn_deg=(0, 28, 0))
    for i in range(4):
        x = -0.022 + i * 0.022
        shape.add(tube([[x, -0.028, 0.105 - i * 0.0125], [x + 0.004, 0, 0.12 - i * 0.0125], [x, 0.028, 0.105 - i * 0.0125]], 0.0045, 6), _contrast(main), "laces")
    return shape


def hat(main: Material, rng: np.random.Generator) -> Shape:
    brim = lathe([(0, 0.012), (0.10, 0.010), (0.165, 0.0), (0.175, 0.012), (0.16, 0.016), (0.105, 0.018)], 36)
    crown = lathe([(0.1, 0.012), (0.097, 0.07), (0.088, 0.115), (0.06, 0.132), (0, 0.118)], 32)
    return Shape().add(brim, main, "brim").add(crown, main).add(lathe([(0.098, 0.016), (0.104, 0.02), (0.103, 0.046), (0.097, 0.05)], 32), _contrast(main), "band")


def backpack(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape().add(pillow((0.17, 0.3, 0.42), 4.5), main, at=(0, 0, 0.21)).add(pillow((0.09, 0.22, 0.2), 5), main, "pocket", (0.085, 0, 0.13))
    shape.add(cuboid((0.006, 0.17, 0.008)), METAL, "zip", (0.126, 0, 0.18)).add(tube(arc(0.14, 10, 170, 14, 1.1), 0.005, 6), METAL, "zip", (0.055, 0, 0.24), (0, 12, 90))
    shape.add(tube(arc(0.04, 0, 180, 8), 0.009, 8), BLACK, "handle", (-0.03, 0, 0.405), (0, 0, 90)).add(cuboid((0.012, 0.022, 0.06)), _contrast(main), at=(0.13, 0, 0.15))
    for side in (-1, 1):
        strap = np.array([[-0.06, side * 0.09, 0.37], [-0.125, side * 0.10, 0.30], [-0.125, side * 0.11, 0.16], [-0.06, side * 0.12, 0.05]])
        shape.add(tube(strap, 0.017, 8), BLACK, "straps").add(pillow((0.1, 0.05, 0.16), 4), main, "pocket", (0, side * 0.155, 0.12))
    return shape


def suitcase(main: Material, rng: np.random.Generator) -> Shape:
    shape = Shape().add(pillow((0.2, 0.36, 0.46), 14), main, at=(0, 0, 0.27))
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
        faces = np.array([[2 * i, 2 * i + 2, 2 * i + 3] for i in range(3)] + [[2 * i, 2 * i + 3, 2 * i + 1] for i in range(3)])
        shape.add((strip, faces), main if k % 2 else other, "canopy")
    shape.add(tube([[0, 0, 0.09], [0, 0, h + 0.05]], 0.008, 8), METAL).add(tube(arc(0.045, 180, 360, 10), 0.014, 8), WOODEN, "handle", (0.045, 0, 0.09))
    return shape.add(cylinder(0.085, 0.05), BLACK, "stand", (0.02, 0, 0))


def bin_(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.14, 0.33 * rng.uniform(0.9, 1.1)
    shape = Shape().add(lathe([(0, 0), (r * 0.78, 0), (r, h), (r * 0.95, h), (r * 0.74, 0.012), (0, 0.012)], 32), main).add(lathe([(r * 0.98, h * 0.94), (r * 1.06, h * 0.96), (r * 1.06, h), (r * 0.95, h)], 32), main, "rim")
    for k in range(5):
        a = k * 2.4
        crumpled = Material((0.93, 0.93, 0.9), "cloth")
        shape.add(ellipsoid((0.055, 0.05, 0.045), 7), crumpled, "paper", (0.055 * np.cos(a), 0.055 * np.sin(a), h * 0.86), (k * 40, k * 70, 0))
    return shape


def bucket(main: Material, rng: np.random.Generator) -> Shape:
    r, h = 0.13, 0.22 * rng.uniform(0.9, 1.1)
    shape = Shape().add(lathe([(0, 0), (r * 0.72, 0), (r, h), (r * 0.96, h), (r * 0.68, 0.01), (0, 0.01)], 32), main).add(cylinder(r * 0.9, 0.002), paint("blue"), "water", (0, 0, h * 0.8))
    return shape.add(tube(arc(r * 1.02, 0, 180, 18, 1.15), 0.006, 8), METAL, "handle", (0, 0, h * 0.93), (0, 0, 90)).add(tube([[-0.045, 0, 0], [0.045, 0, 0]], 0.014, 8), WHITE if sum(main.rgb) < 2.2 else BLACK, "handle", (0, 0, h * 0.93 + r * 1.17), (0, 0, 90))


KINDS = (
    Kind("lamp", lamp, PAINTED, synonyms=("table lamp", "desk lamp"), turned_deg=180),
    Kind("book", book, PAINTED),
    Kind("books", books, PAINTED, synonyms=("stack of books", "pile of books")),
    Kind("laptop", laptop, ("grey", "black", "white", "metal", "red", "blue", "pink"), ("table",), ("computer", "notebook"), turned_deg=30),
    Kind("monitor", monitor, ("black", "white", "grey", "metal", "red"), ("table",), ("computer screen", "computer monitor"), turned_deg=20),
    Kind("keyboard", keyboard, ("black", "white", "grey", "pink", "blue"), ("table",), ("computer keyboard",), turned_deg=20),
    Kind("phone", phone, PAINTED, synonyms=("telephone",)),
    Kind("camera", camera, ("black", "brown", "metal", "red", "white", "blue", "yellow", "pink"), synonyms=("photo camera",)),
    Kind("clock", clock, PAINTED, synonyms=("alarm clock",)),
    Kind("fan", fan, ("white", "black", "blue", "red", "green", "pink", "metal"), ("table",), ("desk fan",)),
    Kind("speaker", speaker, ("black", "white", "wooden", "red", "grey", "blue"), synonyms=("loudspeaker",)),
    Kind("radio", radio, ("red", "brown", "wooden", "black", "blue", "white", "yellow", "green", "pink", "grey")),
    Kind("globe", globe, ("blue", "white", "yellow", "brown"), turned_deg=180),
    Kind("box", box, (*PAINTED, "wooden"), ("table", "shelf", "floor"), ("gift box", "gift")),
    Kind("crate", crate, ("wooden", "red", "blue", "green", "black", "white"), ("floor",)),
    Kind("plant", plant, ("green",), ("table", "shelf", "floor"), ("potted plant", "houseplant"), "leaves", turned_deg=180),
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

