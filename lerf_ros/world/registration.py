"""Recordings whose colour and depth came from two cameras: finding the colour camera, and registering depth to it.

7-Scenes is one: its poses and its camera matrix belong to the depth camera, while the colour camera of a Kinect sees a
wider view from 3 cm beside it. Taken as registered, its colours miss their surfaces by up to 30 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lerf_ros.geometry.camera import Camera

_STEP = 0.15  # m, a jump in depth that shows as an edge in the image
_NEAR_SIDE = 0.05  # m, the edge belongs to the surface in front
_CLEARLY_BETTER = 1.5  # how much better than "registered" an estimate must explain the edges
_ENOUGH_EDGES = 2000  # pixels
_FOCAL_RATIOS = np.arange(0.85, 1.151, 0.025)
_FIRST_STEPS = (10.0, 8.0, 8.0, 0.02, 0.02)  # px, px, px, m, m


@dataclass(frozen=True)
class Registration:
    """Attributes: colour, the colour camera; offset (3,) m, of the depth camera seen from it: ``x_colour = x_depth +
    offset`` (the axes of the two are parallel)."""

    colour: Camera
    offset: NDArray[np.float64]

    def register(self, depth_z: NDArray[np.float32], depth_camera: Camera) -> NDArray[np.float32]:
        """Depth (H, W) as the colour camera would have measured it; NaN where the depth camera saw nothing. Of several
        surfaces in one pixel the nearest is kept."""
        u, v, z = self._project(depth_z, np.isfinite(depth_z), depth_camera)
        column, row = np.round(u).astype(np.int64), np.round(v).astype(np.int64)
        inside = (column >= 0) & (column < self.colour.width) & (row >= 0) & (row < self.colour.height)
        registered = np.full((self.colour.height, self.colour.width), np.inf, np.float32)
        np.minimum.at(registered, (row[inside], column[inside]), z[inside].astype(np.float32))
        return np.where(np.isinf(registered), np.float32(np.nan), registered)

    def T_depth_colour(self) -> NDArray[np.float64]:
        """(4, 4) pose of the colour camera in the depth camera's axes."""
        T = np.eye(4)
        T[:3, 3] = -self.offset
        return T

    def _project(
        self, depth_z: NDArray[np.float32], which: NDArray[np.bool_], depth_camera: Camera
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        v, u = np.nonzero(which)
        z = depth_z[v, u].astype(np.float64)
        x = (u - depth_camera.cx) / depth_camera.fx * z + self.offset[0]
        y = (v - depth_camera.cy) / depth_camera.fy * z + self.offset[1]
        colour = self.colour
        return colour.fx * x / z + colour.cx, colour.fy * y / z + colour.cy, z


def estimate_registration(
    pairs: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]], camera: Camera
) -> Registration | None:
    """Finds the colour camera from the edges of a few dozen frames; None when depth is registered as it is.

    Jumps in depth are edges in the image. The colour camera (one focal length, principal point) and its offset in x
    and y are those that bring the jumps of all frames to the strongest image gradients.

    Args:
        pairs: image (H, W, 3) uint8 RGB and depth_z (H, W) m, NaN where not measured.
        camera: of the depth, and of the image as far as is known.
    """
    jumps = [_jumps(depth_z) for _, depth_z in pairs]
    if sum(int(jump.sum()) for jump in jumps) < _ENOUGH_EDGES:
        return None
    gradients = [_gradients(image) for image, _ in pairs]

    def registration(p: NDArray[np.float64]) -> Registration:
        f, cx, cy = abs(float(p[0])), float(p[1]), float(p[2])
        colour = Camera(f, f * camera.fy / camera.fx, cx, cy, camera.width, camera.height)
        return Registration(colour, np.array([p[3], p[4], 0.0]))

    def strength(p: NDArray[np.float64]) -> float:
        candidate, strengths = registration(p), []
        for (_, depth_z), jump, gradient in zip(pairs, jumps, gradients, strict=True):
            u, v, _ = candidate._project(depth_z, jump, camera)
            if len(u):
                at = cv2.remap(gradient, u.astype(np.float32)[:, None], v.astype(np.float32)[:, None], cv2.INTER_LINEAR)
                strengths.append(float(at.mean()))
        return float(np.mean(strengths))

    starts = [np.array([camera.fx * ratio, camera.cx, camera.cy, 0.0, 0.0]) for ratio in _FOCAL_RATIOS]
    start = max(starts, key=strength)
    simplex = np.stack([start, *(start + step * axis for step, axis in zip(_FIRST_STEPS, np.eye(5), strict=True))])
    options = {"initial_simplex": simplex, "xatol": 1e-3, "fatol": 1e-5, "maxiter": 600}
    found = minimize(lambda p: -strength(p), start, method="Nelder-Mead", options=options)
    as_it_is = strength(np.array([camera.fx, camera.cx, camera.cy, 0.0, 0.0]))
    return registration(found.x) if -found.fun > _CLEARLY_BETTER * max(as_it_is, 0.0) else None


def _jumps(depth_z: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels on the near side of a jump in depth, both sides of which are measured."""
    known = np.isfinite(depth_z)
    nearest = cv2.erode(np.where(known, depth_z, np.float32(1e3)), np.ones((3, 3)))
    farthest = cv2.dilate(np.where(known, depth_z, np.float32(0)), np.ones((3, 3)))
    return known & (farthest - nearest > _STEP) & (np.where(known, depth_z, 1e6) - nearest < _NEAR_SIDE)


def _gradients(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Gradient magnitude of the grey image, the strongest 5 % clipped, in standard deviations from its mean."""
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    grey = cv2.GaussianBlur(grey, (0, 0), 1.2).astype(np.float32)  # (0, 0): the size that suits sigma
    magnitude = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    magnitude = np.minimum(magnitude, np.percentile(magnitude, 95))
    return (magnitude - magnitude.mean()) / max(float(magnitude.std()), 1e-6)
