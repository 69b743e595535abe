"""The mapped volume, found from what the keyframes see when it is not given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.config import SceneConfig
from lerf_ros.mapping.frame import Frame

STRIDE = 16  # every n-th pixel, from half of it, is enough to see which volume a view covers


def measured_points(frame: Frame) -> NDArray[np.float64]:
    """World points (N, 3) of a coarse grid of the frame's measured pixels, metres; none without depth."""
    if frame.depth_z is None:
        return np.empty((0, 3))
    depth_z = frame.depth_z[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]
    v, u = np.nonzero(np.isfinite(depth_z))
    z = depth_z[v, u].astype(np.float64)
    camera = frame.camera
    x = (u * STRIDE + STRIDE // 2 - camera.cx) / camera.fx * z
    y = (v * STRIDE + STRIDE // 2 - camera.cy) / camera.fy * z
    return np.stack([x, y, z], axis=-1) @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]


def first_bounds(config: SceneConfig, frame: Frame) -> SceneBounds:
    """The volume around the first keyframe and what it sees. Without depth, `scene.far` stands in for its distance."""
    points = measured_points(frame)
    if len(points) == 0:
        points = (frame.T_world_camera[:3, 3] + config.far * frame.T_world_camera[:3, 2])[None]
    return enclosing(config, np.concatenate([points, frame.T_world_camera[None, :3, 3]]))


def enclosing(config: SceneConfig, points: NDArray[np.float64]) -> SceneBounds:
    """The ball around nearly all (98 % of) points (N, 3) with the margin `scene.margin`; `scene.center` and
    `scene.radius` win where they are set."""
    low, high = np.percentile(points, [1, 99], axis=0)
    center = config.center if config.center is not None else tuple((low + high) / 2)
    radius = config.radius
    if radius is None:
        radius = config.margin * float(np.percentile(np.linalg.norm(points - np.asarray(center), axis=1), 98))
    return SceneBounds(center, radius)
