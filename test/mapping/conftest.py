"""A scene with a closed form: the inside of a 4 x 3 x 4 m box with smooth colours, seen by a small camera."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame

HALF = np.array([2.0, 1.5, 2.0])
CAMERA = Camera(fx=40.0, fy=40.0, cx=31.5, cy=23.5, width=64, height=48)
TINY = MapperConfig().override(
    {
        "scene.center": [0.0, 0.0, 0.0],
        "scene.radius": 3.5,
        "scene.far": 6.0,
        "keyframe.capacity": 16,
        "radiance.grid.levels": 5,
        "radiance.grid.log2_table": 13,
        "radiance.grid.max_resolution": 96,
        "radiance.hidden": 16,
        "language.coarse_grid.levels": 3,
        "language.coarse_grid.features": 2,
        "language.coarse_grid.log2_table": 12,
        "language.coarse_grid.max_resolution": 32,
        "language.fine_grid.levels": 2,
        "language.fine_grid.features": 2,
        "language.fine_grid.log2_table": 12,
        "language.fine_grid.min_resolution": 32,
        "language.fine_grid.max_resolution": 64,
        "language.hidden": 32,
        "language.layers": 2,
        "language.samples": 4,
        "sampling.rays": 384,
        "sampling.samples": 10,
        "sampling.proposal": "grid",
        "sampling.proposal_resolution": 48,
        "sampling.proposal_bins": 48,
        "sampling.render_samples": 20,
        "pyramid.fractions": [0.25, 0.5],
        "surface.spacing": 0.08,
        "close_up.seconds": 0.0,  # no test depends on time
        "refinement.enabled": False,  # nor on a thread
    }
)


def pose(yaw, x=0.0, z=0.0):
    """Camera at (x, 0, z), optical axes, turned about its y axis (down) by yaw."""
    T = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    T[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    T[:3, 3] = [x, 0.0, z]
    return T


def colour(x):
    """(..., 3) colours of points of the walls."""
    return 0.5 + 0.4 * np.sin(np.stack([2.0 * x[..., 0], 2.5 * x[..., 1] + 1, 2.0 * x[..., 2] + x[..., 1]], axis=-1))


def view(T, camera=CAMERA):
    """Exact colours (H, W, 3), depth_z (H, W) and points (H, W, 3) of a view from inside the box."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    directions = rays @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        depth_z = ((np.sign(directions) * HALF - T[:3, 3]) / directions).min(axis=-1)
    x = T[:3, 3] + depth_z[..., None] * directions
    return colour(x), depth_z, x


def frame(T, depth=True, stamp_ns=0):
    rgb, depth_z, _ = view(T)
    return Frame(stamp_ns, (255 * rgb).round().astype(np.uint8), depth_z if depth else None, CAMERA, T)


def walk(count, depth=True):
    """Frames on a small circle, all looking outwards."""
    yaws = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [frame(pose(yaw, 0.4 * np.sin(yaw), 0.4 * np.cos(yaw)), depth, i) for i, yaw in enumerate(yaws)]


def write_halves(mapper, embeds):
    """Fills the pyramid of every keyframe with one of two embeddings (2, D), by the side of the box at each crop's
    centre: the first at x < 0."""
    store, layout = mapper.store, mapper.layout
    for slot in range(len(store)):
        x = view(store.host_poses[slot])[2]
        for index, level in enumerate(layout.levels):
            uv = layout.centres(index).round().long()
            right = x[uv[:, 1].clamp(0, 47), uv[:, 0].clamp(0, 63), 0] > 0
            store.write_embeds(slot, 1, level.offset, embeds[torch.from_numpy(right).long()])
            store.finish_level(slot, 1, index)


class ColourEncoder:
    """Embeds a crop as its mean colour and notes what it was given."""

    name, embed_dim, image_size = "colours", 3, 8

    def __init__(self):
        self.batches = []

    def encode_images(self, crops):
        self.batches.append(len(crops))
        return normalize(crops.mean(dim=(2, 3)), dim=1)


@pytest.fixture(scope="session")
def box():
    """The scene and a configuration that learns it in seconds."""
    return SimpleNamespace(
        camera=CAMERA,
        half=HALF,
        config=TINY,
        pose=pose,
        colour=colour,
        view=view,
        frame=frame,
        walk=walk,
        write_halves=write_halves,
        ColourEncoder=ColourEncoder,
    )
