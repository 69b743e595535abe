"""Primitive meshes and the shapes built from them.

A mesh is (vertices (V, 3), faces (F, 3)), counter-clockwise seen from outside. Vertices are shared where the surface is
smooth and doubled along creases, so that area-weighted vertex normals shade both as they should.
Shapes stand on z = 0, z up, and look along +x; metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from lerf_ros.world.materials import Material
from lerf_ros.world.parts import PARTS

Mesh = tuple[np.ndarray, np.ndarray]


def cuboid(size: tuple[float, float, float], taper: float = 1.0) -> Mesh:
    """A box centred on the origin; the top face is `taper` times the bottom one."""
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners[corners[:, 2] > 0, :2] *= taper
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    vertices = (corners * size)[quads].reshape(-1, 3)
    start = np.arange(6)[:, None] * 4
    return vertices, np.concatenate([start + [0, 1, 2], start + [0, 2, 3]])


def _grid_faces(rows: int, columns: int, closed: bool) -> np.ndarray:
    """Triangles between `rows` rings of `columns` vertices."""
    i = np.arange(rows - 1)[:, None] * columns
    j = np.arange(columns if closed else columns - 1)[None, :]
    a, b = i + j, i + (j + 1) % columns
    return np.concatenate([np.stack([a, b, b + columns], -1), np.stack([a, b + columns, a + columns], -1)]).reshape(
        -1, 3
    )


def _without_slivers(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    a, b, c = vertices[faces].transpose(1, 0, 2)
    return vertices, faces[np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-12]


def lathe(profile: list[tuple[float, float]], sections: int = 28, crease_deg: float = 35.0) -> Mesh:
    """A surface of revolution about z through (radius, z) points, listed from bottom to top along the outside."""
    points = np.asarray(profile, dtype=np.float64)
    steps = np.diff(points, axis=0)
    steps /= np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-12)
    sharp = (steps[1:] * steps[:-1]).sum(axis=1) < np.cos(np.radians(crease_deg))
    angle = np.arange(sections) * 2 * np.pi / sections
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    vertices, faces, start = [], [], 0
    cuts = [0, *(np.flatnonzero(sharp) + 1), len(points) - 1]
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        radius, z = points[low : high + 1].T
        ring = np.concatenate(
            [radius[:, None, None] * circle, np.broadcast_to(z[:, None, None], (len(z), sections, 1))], -1
        )
        vertices.append(ring.reshape(-1, 3))
        faces.append(_grid_faces(len(z), sections, closed=True) + start)
        start += ring.shape[0] * sections
    return _without_slivers(np.concatenate(vertices), np.concatenate(faces))


def cylinder(radius: float, height: float, top: float | None = None, sections: int = 28) -> Mesh:
    """A closed cylinder standing on z = 0; `top` is its upper radius (a cone when 0)."""
    upper = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (upper, height), (0, height)], sections)


def ellipsoid(radii: tuple[float, float, float], sections: int = 24) -> Mesh:
    """An ellipsoid centred on the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, sections // 2 + 1)
    vertices, faces = lathe(list(zip(np.cos(angle), np.sin(angle), strict=True)), sections)
    return vertices * radii, faces


def pillow(size: tuple[float, float, float], exponent: float = 4.0, sections: int = 28) -> Mesh:
    """A superellipsoid centred on the origin: from an ellipsoid (2) to a box with soft edges (large exponents)."""
    vertices, faces = ellipsoid((1, 1, 1), sections)
    vertices = vertices / (np.abs(vertices) ** exponent).sum(axis=1, keepdims=True) ** (1 / exponent)
    return vertices * np.asarray(size) / 2, faces


def tube(path: np.ndarray | list, radius: float | np.ndarray, sections: int = 10) -> Mesh:
    """A capped tube along `path` (N, 3) with one radius or one per point."""
    points = np.asarray(path, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(points))
    tangents = np.gradient(points, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    helper = np.eye(3)[np.argmin(np.abs(tangents[0]))]
    angle = np.arange(sections) * 2 * np.pi / sections
    rings = []
    for point, tangent, r in zip(points, tangents, radii, strict=True):
        side = np.cross(tangent, helper)
        side /= np.linalg.norm(side)
        helper = np.cross(side, tangent)  # carried along the path, so that the tube does not twist
        rings.append(point + r * (np.cos(angle)[:, None] * helper + np.sin(angle)[:, None] * side))
    body = np.concatenate(rings)
    n = len(body)
    vertices = np.concatenate([body, rings[0], points[:1], rings[-1], points[-1:]])
    j, k = np.arange(sections), (np.arange(sections) + 1) % sections
    first, last = n, n + sections + 1
    caps = [np.stack([np.full(sections, first + sections), first + k, first + j], 1)]
    caps.append(np.stack([np.full(sections, last + sections), last + j, last + k], 1))
    return _without_slivers(vertices, np.concatenate([_grid_faces(len(points), sections, closed=True), *caps]))


def arc(radius: float, start_deg: float, end_deg: float, points: int = 12, stretch: float = 1.0) -> np.ndarray:
    """Points of an arc about the origin in the x-z plane, 0 degrees along +x, z stretched (points, 3)."""
    angle = np.radians(np.linspace(start_deg, end_deg, points))
    return np.stack([radius * np.cos(angle), np.zeros(points), stretch * radius * np.sin(angle)], axis=1)


def prism(outline: list[tuple[float, float]], thickness: float) -> Mesh:
    """An outline in the x-z plane, counter-clockwise seen from -y and star-shaped about its mean, extruded along y."""
    polygon = np.asarray(outline, dtype=np.float64)
    n, half = len(polygon), thickness / 2
    ring = np.stack([polygon[:, 0], np.zeros(n), polygon[:, 1]], axis=1)
    front, back = ring - [0, half, 0], ring + [0, half, 0]
    j, k = np.arange(n), (np.arange(n) + 1) % n
    sides = np.stack([front[j], front[k], back[k], back[j]], axis=1).reshape(-1, 3)
    start = j[:, None] * 4
    caps = np.concatenate([front, front.mean(0, keepdims=True), back, back.mean(0, keepdims=True)])
    base = 4 * n
    faces = [start + [0, 2, 1], start + [0, 3, 2]]
    faces += [np.stack([np.full(n, base + n), base + j, base + k], 1)]
    faces += [np.stack([np.full(n, base + 2 * n + 1), base + n + 1 + k, base + n + 1 + j], 1)]
    vertices = np.concatenate([sides, caps])
    return vertices, _facing_out(vertices, np.concatenate(faces))


def _facing_out(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Flips the triangles of a star-shaped mesh that face its centre."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    inward = (np.cross(b - a, c - a) * ((a + b + c) / 3 - vertices.mean(axis=0))).sum(axis=1) < 0
    return np.where(inward[:, None], faces[:, ::-1], faces)


@dataclass(frozen=True)
class Piece:
    vertices: np.ndarray  # (V, 3) in the shape's frame
    faces: np.ndarray  # (F, 3)
    normals: np.ndarray  # (V, 3) unit
    texture: np.ndarray  # (V, 3) metres, the primitive's own frame: where its pattern is evaluated
    material: Material
    part: str


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted mean of the normals of the faces at each vertex (V, 3), unit length."""
    a, b, c = vertices[faces].transpose(1, 0, 2)
    face_normals = np.cross(b - a, c - a)
    normals = np.stack(
        [np.bincount(faces.ravel(), np.repeat(face_normals[:, i], 3), len(vertices)) for i in range(3)], 1
    )
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


@dataclass
class Shape:
    """Pieces of one object, in its own frame."""

    pieces: list[Piece] = field(default_factory=list)

    def add(
        self, mesh: Mesh, material: Material, part: str = "", at=(0.0, 0.0, 0.0), turn_deg=(0.0, 0.0, 0.0), scale=1.0
    ):
        """Adds a primitive: scaled, turned about x, then y, then z (fixed axes), moved to `at`. Returns the shape."""
        if part and part not in PARTS:
            raise ValueError(f"{part!r} is not in PARTS: add it there, so that part masks mean the same in every room")
        vertices, faces = mesh
        rotation = Rotation.from_euler("xyz", turn_deg, degrees=True).as_matrix()
        placed = (vertices * scale) @ rotation.T + np.asarray(at, dtype=np.float64)
        texture = vertices * scale
        if material.pattern == "wood":  # the grain runs along the longest side
            texture = np.roll(texture, -int(np.argmax(np.ptp(texture, axis=0))), axis=1)
        self.pieces.append(Piece(placed, faces, vertex_normals(placed, faces), texture, material, part))
        return self

    def scaled(self, factor: float) -> Shape:
        """The same shape at another size, patterns included, its lowest point on z = 0 and its middle on the z axis."""
        vertices = self.vertices()
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        offset = np.array([*(low + high)[:2] / 2, low[2]])
        moved = [
            Piece((p.vertices - offset) * factor, p.faces, p.normals, p.texture * factor, p.material, p.part)
            for p in self.pieces
        ]
        return Shape(moved)

    def vertices(self, part: str | None = None) -> np.ndarray:
        """All vertices, or those of one part (V, 3)."""
        return np.concatenate([p.vertices for p in self.pieces if part is None or p.part == part])

    def parts(self) -> list[str]:
        return sorted({p.part for p in self.pieces} - {""})
