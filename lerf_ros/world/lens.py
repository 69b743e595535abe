"""Lenses as COLMAP and nerfstudio describe them, and pictures without their distortion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.camera import Camera

_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL")
_FISHEYE = ("OPENCV_FISHEYE",)
_OUTLINE_POINTS = 65  # per edge of a picture
_ITERATIONS = 50
_MAX_ANGLE = np.radians(60.0)  # off the axis of a fisheye: a pinhole's pixels grow without bound towards 90 degrees


@dataclass(frozen=True)
class Lens:
    """A camera with distortion.

    Attributes:
        model: COLMAP's name. Perspective models have OpenCV's k1, k2, k3, p1, p2; OPENCV_FISHEYE has OpenCV's fisheye
            k1 to k4.
        camera: its intrinsics, centre of the top-left pixel (0, 0).

    Raises:
        ValueError: another model, or coefficients that the model does not have.
    """

    model: str
    camera: Camera
    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    def __post_init__(self) -> None:
        if self.model not in (*_PERSPECTIVE, *_FISHEYE):
            raise ValueError(
                f"camera_model {self.model} is not supported, only {', '.join((*_PERSPECTIVE, *_FISHEYE))}: "
                "undistort the pictures first"
            )
        if self.model in _PERSPECTIVE and self.k4 != 0.0:
            raise ValueError(f"camera_model {self.model} with k4 is not supported: undistort the pictures first")
        if self.model in _FISHEYE and (self.p1, self.p2) != (0.0, 0.0):
            raise ValueError(f"camera_model {self.model} has no p1 and p2")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its pictures."""
        return self.camera.width, self.camera.height

    @property
    def fisheye(self) -> bool:
        """Whether even a lens without coefficients bends straight lines."""
        return self.model in _FISHEYE

    @property
    def distorted(self) -> bool:
        """Whether its pictures are not those of a pinhole."""
        return self.fisheye or any((self.k1, self.k2, self.k3, self.p1, self.p2))

    def coefficients(self) -> NDArray[np.float64]:
        """In OpenCV's order: k1 k2 p1 p2 k3, or k1 k2 k3 k4 of `cv2.fisheye`."""
        if self.fisheye:
            return np.array([self.k1, self.k2, self.k3, self.k4])
        return np.array([self.k1, self.k2, self.p1, self.p2, self.k3])

    def pinhole(self, max_px: int) -> Camera:
        """The pinhole camera of the undistorted pictures: the largest rectangle that the lens sees whole (of a fisheye
        no more than 60 degrees off its axis), the longer side at most `max_px`."""
        camera = self.camera
        if self.distorted:
            x, y = self._ideal_outline()
            left, right, top, bottom = x[0].max(), x[1].min(), y[2].max(), y[3].min()
            fx, fy = (camera.width - 1) / float(right - left), (camera.height - 1) / float(bottom - top)
            camera = Camera(fx, fy, -fx * float(left), -fy * float(top), camera.width, camera.height)
        longest = max(self.size)
        return camera if longest <= max_px else camera.scaled(max_px / longest)

    def _ideal_outline(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x and y, both (4, n), at depth 1 of points on the left, right, upper and lower edge of a picture."""
        along, across = np.linspace(0.0, 1.0, _OUTLINE_POINTS), np.ones(_OUTLINE_POINTS)
        u = np.stack([0 * across, across, along, along]) * (self.camera.width - 1)
        v = np.stack([along, along, 0 * across, across]) * (self.camera.height - 1)
        x, y = (u - self.camera.cx) / self.camera.fx, (v - self.camera.cy) / self.camera.fy
        if self.fisheye:
            angles = np.linspace(0.0, _MAX_ANGLE, 1000)
            powers = angles[:, None] ** np.array([3, 5, 7, 9])
            bent = np.hypot(x, y)
            stretch = np.tan(np.interp(bent, angles + powers @ self.coefficients(), angles)) / np.maximum(bent, 1e-9)
            return x * stretch, y * stretch
        bent = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)
        ideal, nothing = bent.copy(), np.zeros(3)
        for _ in range(_ITERATIONS):  # the ideal point is where bending it gives the point in the picture
            ideal[:, :2] += (
                bent[:, :2] - cv2.projectPoints(ideal, nothing, nothing, np.eye(3), self.coefficients())[0][:, 0]
            )
        return ideal[:, 0].reshape(x.shape), ideal[:, 1].reshape(x.shape)


def undistorted(picture: NDArray[Any], lens: Lens, camera: Camera, interpolation: int) -> NDArray[Any]:
    """What the pinhole `camera` sees of a picture (H, W, ..) of the lens. INTER_NEAREST suits depth: it never mixes
    two surfaces."""
    if lens.distorted:
        full = lens.pinhole(max(lens.size))
        rectify = cv2.fisheye.initUndistortRectifyMap if lens.fisheye else cv2.initUndistortRectifyMap
        maps = rectify(
            lens.camera.matrix().numpy(), lens.coefficients(), np.eye(3), full.matrix().numpy(), lens.size, cv2.CV_32FC1
        )
        picture = cv2.remap(picture, *maps, interpolation, borderMode=cv2.BORDER_REPLICATE)
    if (camera.width, camera.height) != lens.size:
        smaller = cv2.INTER_NEAREST if interpolation == cv2.INTER_NEAREST else cv2.INTER_AREA
        picture = cv2.resize(picture, (camera.width, camera.height), interpolation=smaller)
    return picture
