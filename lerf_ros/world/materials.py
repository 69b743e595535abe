"""Colours and surface patterns. A pattern is a function of the point on the surface (m), so it needs no images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (196, 32, 34),
    "green": (44, 146, 62),
    "blue": (34, 78, 196),
    "yellow": (236, 204, 38),
    "orange": (240, 126, 22),
    "purple": (122, 50, 164),
    "pink": (242, 142, 184),
    "brown": (104, 66, 40),
    "black": (32, 32, 35),
    "white": (236, 235, 230),
    "grey": (126, 127, 130),
    "wooden": (190, 140, 86),
    "metal": (168, 172, 178),
}
MATERIALS = ("wooden", "metal")  # named like colours ("a wooden chair"), drawn as grain and as brushed steel
PATTERNS = (
    "plain",
    "wood",
    "metal",
    "cloth",
    "stripes",
    "checks",
    "keys",
    "screen",
    "leaves",
    "globe",
    "books",
    "boards",
)


@dataclass(frozen=True)
class Material:
    """Base colour [0, 1], a second one for patterns that need it, the pattern's period (m), gloss [0, 1]."""

    rgb: tuple[float, float, float]
    pattern: str = "plain"
    accent: tuple[float, float, float] = (0.1, 0.1, 0.1)
    period: float = 0.05
    gloss: float = 0.15


def paint(colour: str, rng: np.random.Generator | None = None, pattern: str = "plain", **options) -> Material:
    """The material for a colour word, slightly varied by a generator; wood and metal keep their own patterns."""
    rgb = np.array(COLOURS[colour]) / 255.0
    if rng is not None:
        rgb = np.clip(rgb * rng.uniform(0.86, 1.08) + rng.uniform(-0.01, 0.01, 3), 0.02, 0.97)
    if colour == "wooden":
        options = {"period": 0.035, "gloss": 0.05, **options}
        return Material(tuple(rgb), "wood", tuple(rgb * [0.62, 0.55, 0.48]), options["period"], options["gloss"])
    if colour == "metal":
        return Material(tuple(rgb), "metal", gloss=0.8)
    return Material(tuple(rgb), pattern, **options)


def contrast(main: Material) -> Material:
    """White on dark colours, black on light ones."""
    return paint("white" if sum(main.rgb) < 1.9 else "black")


def _noise_volume(size: int = 64) -> np.ndarray:
    """Smooth periodic noise (size^3,) in [-1, 1], the same in every process."""
    rng = np.random.default_rng(20261122)
    frequency = np.fft.fftfreq(size)[:, None, None] ** 2 + np.fft.fftfreq(size)[None, :, None] ** 2
    frequency = frequency + np.fft.rfftfreq(size)[None, None, :] ** 2
    spectrum = np.fft.rfftn(rng.standard_normal((size, size, size))) * np.exp(-frequency * 120)
    volume = np.fft.irfftn(spectrum, s=(size, size, size), axes=(0, 1, 2))
    return np.clip(volume / (2.2 * volume.std()), -1, 1).astype(np.float32)


_NOISE = _noise_volume()


def noise(x: np.ndarray, cell: float) -> np.ndarray:
    """Smooth noise of points (N, 3) whose bumps are about 8 `cell` metres wide -> (N,) in [-1, 1]."""
    i = np.floor(x * np.float32(1 / cell)).astype(np.int32) & 63
    return _NOISE[i[:, 0], i[:, 1], i[:, 2]]


def _wave(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * x)


def _steps(x: np.ndarray, salt: int) -> np.ndarray:
    """One random number in [0, 1) for each integer of x."""
    i = np.floor(x).astype(np.int64) + salt
    return (((i * 2654435761) >> 7) & 1023) / np.float32(1024)


def pattern_mix(pattern: str, x: np.ndarray, normals: np.ndarray, period: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of the accent (N,) in [0, 1] and which brightness (N,) a pattern has at texture points x (N, 3)."""
    one = np.ones(len(x), dtype=np.float32)
    speckle = 1 + 0.05 * noise(x, 0.0012) + 0.04 * noise(x, 0.006)
    if pattern == "wood":
        rings = (
            x[:, 1] + 0.6 * x[:, 2] + 0.012 * noise(x * np.array([0.4, 1, 1], np.float32), 0.008)
        )  # the grain runs along x
        return 0.75 * _wave(rings / period) ** 2, speckle
    if pattern == "metal":
        return 0 * one, speckle * (0.72 + 0.5 * _wave(normals[:, 2] * 0.9 + 0.15) ** 2)
    if pattern == "cloth":
        weave = _wave((x[:, 0] + x[:, 1]) / 0.012) * _wave((x[:, 2] + x[:, 1] - x[:, 0]) / 0.012)
        return 0 * one, 1 + 0.10 * (weave - 0.25) + 0.08 * noise(x, 0.004)
    if pattern == "stripes":
        return (_wave(x[:, 1] / period) > 0.7).astype(np.float32), speckle
    if pattern == "checks":
        cells = np.floor(x[:, 0] / period) + np.floor(x[:, 1] / period) + np.floor(x[:, 2] / period + 0.25)
        return (cells % 2).astype(np.float32), speckle
    if pattern == "keys":
        inside = (np.abs(x[:, 0] / period % 1 - 0.5) < 0.38) & (np.abs(x[:, 1] / period % 1 - 0.5) < 0.38)
        return inside.astype(np.float32), one
    if pattern == "screen":
        rows = _steps(x[:, 2] / period, 7)
        line = (np.abs(x[:, 2] / period % 1 - 0.5) < 0.28) & (np.abs(x[:, 1]) < 0.05 + 0.12 * rows)
        return line.astype(np.float32), one
    if pattern == "leaves":
        return 0.5 + 0.5 * noise(x, 0.003), speckle
    if pattern == "globe":
        return (noise(x + 0.31, 0.0075) > 0.02).astype(np.float32), one
    if pattern == "books":
        return _steps(x[:, 1] / period, 3), one
    if pattern == "boards":
        row = np.floor(x[:, 1] / period)
        joint = (np.abs(x[:, 1] / period % 1 - 0.5) > 0.48) | (
            np.abs((x[:, 0] / (8 * period) + 0.37 * row) % 1 - 0.5) > 0.495
        )
        tone = 0.86 + 0.2 * _steps(row * 31 + np.floor(x[:, 0] / (8 * period) + 0.37 * row), 5)
        grain = 1 + 0.05 * noise(x * np.array([0.2, 1, 1], np.float32), 0.002)
        return 0.7 * joint.astype(np.float32), tone * grain
    if pattern == "plain":
        return 0 * one, speckle
    raise ValueError(f"unknown pattern {pattern!r}; choose one of {', '.join(PATTERNS)}")
