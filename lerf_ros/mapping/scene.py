"""The mapped volume, found from the first keyframe when it is not given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.config import SceneConfig
from lerf_ros.mapping.frame import Frame

_STRIDE = 16
_MARGIN = 1.25  # what the first view does not show of a room, it mostly shows the distance of


def measured_points(frame: Frame) -> NDArray[np.float64]:
    """World points (N, 3) of a coarse grid of the frame's measured pixels, metres."""
    if frame.depth_z is None:
        return np.empty((0, 3))
    depth_z = frame.depth_z[_STRIDE // 2 :: _STRIDE, _STRIDE // 2 :: _STRIDE]
    v, u = np.nonzero(np.isfinite(depth_z))
    z = depth_z[v, u].astype(np.float64)
    camera = frame.camera
    x = (u * _STRIDE + _STRIDE // 2 - camera.cx) / camera.fx * z
    y = (v * _STRIDE + _STRIDE // 2 - camera.cy) / camera.fy * z
    return np.stack([x, y, z], axis=-1) @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]


def find_bounds(config: SceneConfig, frame: Frame) -> SceneBounds:
    """The volume around what the first keyframe sees; `scene.center` and `scene.radius` win where they are set.

    The center lies halfway between the camera and the middle of what it sees, and the radius takes in both with a
    margin: a room seen from its edge fits as well as one seen from its middle. Without depth, `scene.far` stands in
    for the distance of what is seen.
    """
    position, forward = frame.T_world_camera[:3, 3], frame.T_world_camera[:3, 2]
    points = measured_points(frame)
    if len(points) == 0:
        points = (position + config.far / 2 * forward)[None]
    center = config.center if config.center is not None else tuple((position + np.median(points, axis=0)) / 2)
    radius = config.radius
    if radius is None:
        radius = _MARGIN * float(np.percentile(np.linalg.norm(points - np.asarray(center), axis=1), 98))
    return SceneBounds(center, radius)
