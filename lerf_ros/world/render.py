"""Ray casting of a scene: colour, depth and masks of any camera pose (embree finds the hits, numpy shades them)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.materials import Material, pattern_mix
from lerf_ros.world.parts import PARTS
from lerf_ros.world.shapes import Shape

NOTHING = -1  # instance of a pixel whose ray leaves the room


@dataclass(frozen=True, eq=False)
class View:
    """What a perfect camera sees.

    image (H, W, 3) uint8 RGB; depth_z (H, W) float32 m, NaN where nothing is hit; instance (H, W) int32, `NOTHING` or
    an instance id; part (H, W) int32, see `parts.PARTS`; incidence (H, W) float32, the
    cosine between ray and surface normal.
    """

    image: np.ndarray
    depth_z: np.ndarray
    instance: np.ndarray
    part: np.ndarray
    incidence: np.ndarray
    camera: Camera
    T_world_camera: np.ndarray


@lru_cache(maxsize=8)
def _rays(camera: Camera) -> np.ndarray:
    """Rays (H W, 3) of all pixel centres in the camera frame, z = 1: embree's distance along them is depth_z."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], axis=-1)
    return rays.reshape(-1, 3).astype(np.float32)


class Scene:
    """Placed shapes as one mesh with per-face instance, part and material, and the lights that shine on it."""

    def __init__(self, placed: list[tuple[int, Shape, np.ndarray]], lights: np.ndarray) -> None:
        """`placed`: (instance_id, shape, T_world_shape (4, 4)) of everything; `lights` (L, 3) in the world."""
        pieces = [(instance, piece, pose) for instance, shape, pose in placed for piece in shape.pieces]
        counts = [len(piece.vertices) for _, piece, _ in pieces]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        sizes = [len(piece.faces) for _, piece, _ in pieces]
        self.vertices = np.concatenate([p.vertices @ T[:3, :3].T + T[:3, 3] for _, p, T in pieces]).astype(np.float32)
        self.faces = np.concatenate([p.faces + s for (_, p, _), s in zip(pieces, starts, strict=True)]).astype(np.int32)
        normals = np.concatenate([p.normals @ T[:3, :3].T for _, p, T in pieces])
        texture = np.concatenate([p.texture for _, p, _ in pieces])
        # Normal and texture point of the three corners of every face (F, 3, 6): one gather per hit.
        self._corners = np.concatenate([normals, texture], axis=1).astype(np.float32)[self.faces]
        part_index = {name: i for i, name in enumerate(("", *PARTS))}
        self.instance = np.repeat(np.array([i for i, _, _ in pieces], dtype=np.int32), sizes)
        self.part = np.repeat(np.array([part_index[p.part] for _, p, _ in pieces], dtype=np.int32), sizes)
        materials = list(dict.fromkeys(p.material for _, p, _ in pieces))
        material_index = {material: i for i, material in enumerate(materials)}
        self._material = np.repeat(np.array([material_index[p.material] for _, p, _ in pieces]), sizes)
        self._table = _MaterialTable(materials)
        self._lights = np.asarray(lights, dtype=np.float32)
        self._embree = EmbreeScene()
        TriangleMesh(self._embree, self.vertices[self.faces])

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> dict[str, np.ndarray]:
        """First hits of rays (N, 3): embree's tables `primID` (-1: none), `tfar` (in |direction|), `u`, `v`, `Ng`."""
        origins = np.ascontiguousarray(np.broadcast_to(origins, directions.shape), dtype=np.float32)
        return self._embree.run(
            origins, np.ascontiguousarray(directions, dtype=np.float32), query="INTERSECT", output=True
        )

    def masks(self, camera: Camera, T_world_camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Only depth_z (H, W) and the instance mask (H, W): several times faster than `view`."""
        hits = self._pixel_hits(camera, T_world_camera)
        shape, hit = (camera.height, camera.width), hits["primID"] >= 0
        instance = np.where(hit, self.instance[hits["primID"]], NOTHING).astype(np.int32)
        return np.where(hit, hits["tfar"], np.nan).astype(np.float32).reshape(shape), instance.reshape(shape)

    def faces_seen(self, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
        """Index of the face that each pixel shows (H, W), -1: none; `instance` and `part` say whose it is."""
        return self._pixel_hits(camera, T_world_camera)["primID"].reshape(camera.height, camera.width)

    def _pixel_hits(self, camera: Camera, T_world_camera: np.ndarray) -> dict[str, np.ndarray]:
        return self.cast(T_world_camera[:3, 3], _rays(camera) @ T_world_camera[:3, :3].T.astype(np.float32))

    def view(self, camera: Camera, T_world_camera: np.ndarray) -> View:
        """Renders one camera pose (4, 4)."""
        T_world_camera = np.asarray(T_world_camera, dtype=np.float64)
        directions = _rays(camera) @ T_world_camera[:3, :3].T.astype(np.float32)
        hits = self.cast(T_world_camera[:3, 3], directions)
        rays = np.flatnonzero(hits["primID"] >= 0)
        face, depth = hits["primID"][rays], hits["tfar"][rays]
        u, v = hits["u"][rays], hits["v"][rays]
        weights = np.stack([1 - u - v, u, v], axis=1)
        surface = np.einsum("nk,nkc->nc", weights, self._corners[face])
        normals, texture = _unit(surface[:, :3]), surface[:, 3:]
        directions = directions[rays]
        x_world = T_world_camera[:3, 3].astype(np.float32) + depth[:, None] * directions
        towards = -_unit(directions)
        facing = _dot(normals, towards)
        normals *= np.where(facing < 0, -1, 1)[:, None].astype(np.float32)
        incidence = np.abs(facing)

        size = camera.height * camera.width
        image = np.zeros((size, 3), dtype=np.uint8)
        image[rays] = self._shade(self._material[face], x_world, texture, normals, towards)
        planes = {}
        for name, values, empty in (
            ("depth_z", depth, np.nan),
            ("instance", self.instance[face], NOTHING),
            ("part", self.part[face], 0),
            ("incidence", incidence, 0),
        ):
            plane = np.full(size, empty, dtype=np.float32 if values.dtype.kind == "f" else np.int32)
            plane[rays] = values
            planes[name] = plane.reshape(camera.height, camera.width)
        return View(
            image.reshape(camera.height, camera.width, 3), camera=camera, T_world_camera=T_world_camera, **planes
        )

    def _shade(self, material, x_world, texture, normals, towards) -> np.ndarray:
        """Lambert from every light, ambient from above and below, Blinn highlights by gloss -> (N, 3) uint8."""
        table = self._table
        mix, brightness = np.zeros(len(material), np.float32), np.ones(len(material), np.float32)
        kinds = table.pattern[material]
        for index in np.unique(kinds):
            here = np.flatnonzero(kinds == index)
            mix[here], brightness[here] = pattern_mix(
                table.names[index], texture[here], normals[here], table.period[material[here]]
            )
        rgb = table.rgb[material]
        albedo = (rgb + mix[:, None] * (table.accent[material] - rgb)) * brightness[:, None]
        diffuse = 0.46 + 0.15 * normals[:, 2]
        highlight = np.zeros(len(material), np.float32)
        for light in self._lights:
            to_light = light - x_world
            fall = np.float32(0.62 / len(self._lights)) * 5.0 / (3.0 + 0.45 * _dot(to_light, to_light))
            to_light = _unit(to_light)
            diffuse += fall * np.maximum(_dot(normals, to_light), 0)
            highlight += np.maximum(_dot(normals, _unit(to_light + towards)), 0) ** 32
        colour = albedo * diffuse[:, None] + (0.45 * table.gloss[material] * highlight)[:, None]
        return (np.clip(colour, 0, 1) * 255).astype(np.uint8)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nc,nc->n", a, b)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.maximum(_dot(x, x), np.float32(1e-18)))[:, None]


class _MaterialTable:
    """Materials as arrays, indexed by material number."""

    def __init__(self, materials: list[Material]) -> None:
        self.names = sorted({m.pattern for m in materials})
        self.pattern = np.array([self.names.index(m.pattern) for m in materials])
        self.rgb = np.array([m.rgb for m in materials], dtype=np.float32)
        self.accent = np.array([m.accent for m in materials], dtype=np.float32)
        self.period = np.array([m.period for m in materials], dtype=np.float32)
        self.gloss = np.array([m.gloss for m in materials], dtype=np.float32)
