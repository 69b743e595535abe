"""Views of textured surfaces in closed form."""

import numpy as np
from scipy.spatial.transform import Rotation

from lerf_ros.geometry.camera import Camera

CAMERA = Camera(fx=80.0, fy=80.0, cx=47.5, cy=35.5, width=96, height=72)
SHORTEST_WAVE, LONGEST_WAVE = 0.12, 0.5  # m: 5 px and 20 px at 2 m


class Texture:
    """A band-limited random grey value in (0, 1) at each point of space: a sum of plane waves."""

    def __init__(self, seed=0, waves=40):
        rng = np.random.default_rng(seed)
        directions = rng.normal(size=(waves, 3))
        lengths = rng.uniform(SHORTEST_WAVE, LONGEST_WAVE, waves)
        self._k = 2 * np.pi * directions / np.linalg.norm(directions, axis=1, keepdims=True) / lengths[:, None]
        self._phases = rng.uniform(0, 2 * np.pi, waves)

    def __call__(self, x_world):
        waves = np.sin(np.nan_to_num(x_world) @ self._k.T + self._phases).mean(axis=-1)
        return 0.5 + 0.5 * np.tanh(5 * waves)


def plane(normal, distance):
    """(origin (3,), directions (.., 3)) -> t (..,) with which rays reach the plane normal . x = distance."""

    def hit(origin, directions):
        return (distance - origin @ np.asarray(normal)) / (directions @ np.asarray(normal))

    return hit


def sphere(centre, radius):
    """As `plane`; NaN beside the sphere."""

    def hit(origin, directions):
        to_centre = origin - np.asarray(centre)
        a, b = (directions**2).sum(axis=-1), directions @ to_centre
        with np.errstate(invalid="ignore"):
            return (-b - np.sqrt(b**2 - a * (to_centre @ to_centre - radius**2))) / a

    return hit


def view(surfaces, texture, T_world_camera, camera=CAMERA):
    """Grey values (H, W) in [0, 1] and depth_z (H, W) m of the nearest of some surfaces."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    directions, origin = rays @ T_world_camera[:3, :3].T, T_world_camera[:3, 3]
    hits = np.stack([surface(origin, directions) for surface in surfaces])  # t is depth_z: rays have z = 1
    depth_z = np.nanmin(np.where(hits > 0, hits, np.nan), axis=0)
    return texture(origin + depth_z[..., None] * directions), depth_z


def pose(translation=(0.0, 0.0, 0.0), rotation_vector=(0.0, 0.0, 0.0)):
    """T_world_camera (4, 4)."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotation_vector).as_matrix(), translation
    return T
