"""Lenses that bend straight lines, and their pictures as a pinhole sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.camera import Camera

_PERSPECTIVE_COUNTS = (0, 4, 5, 8, 12, 14)  # coefficients that OpenCV's perspective model can have
_FISHEYE_COUNTS = (0, 4)
_OUTLINE_POINTS = 65  # per edge of a picture
_ITERATIONS = 20
_RESIDUAL_PX = 0.01
_MAX_ANGLE = np.radians(60.0)  # off the axis of a fisheye: a pinhole's pixels grow without bound towards 90 degrees


@dataclass(frozen=True)
class Lens:
    """A camera with distortion, in OpenCV's models.

    Attributes:
        camera: intrinsics and size of the distorted pictures.
        distortion: coefficients in OpenCV's order; none: no distortion. Perspective: k1 k2 p1 p2, then, as far as the
            model goes, k3 (plumb bob), k4 k5 k6 (rational), s1 s2 s3 s4 (thin prism), tilts. Fisheye (Kannala and
            Brandt 2006, ROS's "equidistant"): k1 k2 k3 k4.
        fisheye: which of the two; a fisheye bends straight lines also without coefficients.

    Raises:
        ValueError: a number of coefficients that the model cannot have, or one that is not finite.
    """

    camera: Camera
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        counts = _FISHEYE_COUNTS if self.fisheye else _PERSPECTIVE_COUNTS
        if len(self.distortion) not in counts:
            raise ValueError(f"{len(self.distortion)} distortion coefficients; this model has {counts}")
        if not np.isfinite(self.distortion).all():
            raise ValueError(f"distortion coefficients must be finite, got {self.distortion}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of its pictures."""
        return self.camera.width, self.camera.height

    @property
    def distorted(self) -> bool:
        """Whether its pictures are not those of a pinhole."""
        return self.fisheye or any(self.distortion)

    def pinhole(self) -> Camera:
        """The pinhole camera of the straightened pictures, of the same size: the largest upright rectangle that the
        lens sees whole, of a fisheye no more than 60 degrees off its axis. No pixel of it lies outside the picture.

        Raises:
            ValueError: the coefficients fold the picture, so that they cannot be those of a lens.
        """
        if not self.distorted:
            return self.camera
        width, height = self.size
        x, y = self._ideal_outline()
        left, right, top, bottom = x[0].max(), x[1].min(), y[2].max(), y[3].min()
        if not (right > left and bottom > top):
            raise ValueError("the distortion coefficients fold the picture: calibrate again")
        fx, fy = (width - 1) / float(right - left), (height - 1) / float(bottom - top)
        return Camera(fx, fy, -fx * float(left), -fy * float(top), width, height)

    def _ideal_outline(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x and y, both (4, n), at depth 1 of points on the left, right, upper and lower edge of a picture."""
        along, across = np.linspace(0.0, 1.0, _OUTLINE_POINTS), np.ones(_OUTLINE_POINTS)
        u = np.stack([0 * across, across, along, along]) * (self.camera.width - 1)
        v = np.stack([along, along, 0 * across, across]) * (self.camera.height - 1)
        x, y = (u - self.camera.cx) / self.camera.fx, (v - self.camera.cy) / self.camera.fy
        return self._ideal_of_fisheye(x, y) if self.fisheye else self._ideal_of_perspective(x, y)

    def _ideal_of_fisheye(self, x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        angles = np.linspace(0.0, _MAX_ANGLE, 1000)
        powers = angles[:, None] ** np.array([3, 5, 7, 9])
        bent_angles = angles + powers @ np.array(self.distortion or (0.0,) * 4)
        bent = np.hypot(x, y)
        if not (np.diff(bent_angles[bent_angles <= bent.max()]) > 0).all():
            raise ValueError("the distortion coefficients fold the picture: calibrate again")
        stretch = np.tan(np.interp(bent, bent_angles, angles)) / np.maximum(bent, 1e-9)
        return x * stretch, y * stretch

    def _ideal_of_perspective(
        self, x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The ideal point is where bending it gives the point in the picture: Newton's method."""
        bent = np.stack([x, y], axis=-1).reshape(-1, 2)
        ideal, nothing, distortion = np.insert(bent, 2, 1.0, axis=1), np.zeros(3), np.array(self.distortion)
        for _ in range(_ITERATIONS):
            projected, jacobian = cv2.projectPoints(ideal, nothing, nothing, np.eye(3), distortion)
            error = bent - projected[:, 0]
            by_position = jacobian.reshape(len(ideal), 2, -1)[:, :, 3:5]  # moving the point is moving the world
            if not (np.isfinite(error).all() and (np.linalg.det(by_position) > 0).all()):
                raise ValueError("the distortion coefficients fold the picture: calibrate again")
            ideal[:, :2] += np.linalg.solve(by_position, error[..., None])[..., 0]
        if np.abs(error).max() * max(self.camera.fx, self.camera.fy) > _RESIDUAL_PX:
            raise ValueError("the distortion coefficients fold the picture: calibrate again")
        return ideal[:, 0].reshape(x.shape), ideal[:, 1].reshape(x.shape)


class Rectification:
    """Pictures of a lens as the pinhole `camera` sees them. Its tables are made once, at construction.

    Raises:
        ValueError: as `Lens.pinhole`.
    """

    def __init__(self, lens: Lens) -> None:
        self.lens = lens
        self.camera = lens.pinhole()
        self._colour_tables: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._depth_tables: tuple[NDArray[Any], NDArray[Any]] | None = None
        self._depth_size = lens.size
        if lens.distorted:
            self._bent = self._bent_pixels()
            self._colour_tables = cv2.convertMaps(*self._bent, cv2.CV_16SC2)

    def colour(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W, 3) of the lens -> (H, W, 3) of the camera, bilinear."""
        if self._colour_tables is None:
            return image
        return cv2.remap(image, *self._colour_tables, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def depth(self, depth_z: NDArray[Any]) -> NDArray[Any]:
        """(h, w) of the lens, NaN where not measured, in any resolution -> (H, W) of the camera. Takes the nearest
        pixel: it never mixes two surfaces. Removing distortion moves pixels, their depth_z stays."""
        height, width = depth_z.shape
        if not self.lens.distorted:
            if (width, height) == self.lens.size:
                return depth_z
            return cv2.resize(depth_z, self.lens.size, interpolation=cv2.INTER_NEAREST_EXACT)
        if self._depth_tables is None or self._depth_size != (width, height):
            u, v = self._bent
            scale_u, scale_v = width / self.lens.size[0], height / self.lens.size[1]
            nearest = (u + 0.5) * scale_u - 0.5, (v + 0.5) * scale_v - 0.5
            self._depth_tables = cv2.convertMaps(*nearest, cv2.CV_16SC2, nninterpolation=True)
            self._depth_size = width, height
        nan = float("nan")
        return cv2.remap(
            depth_z, *self._depth_tables, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=nan
        )

    def _bent_pixels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """u and v, both (H, W): where the lens draws what the camera sees in each pixel."""
        tables = cv2.fisheye.initUndistortRectifyMap if self.lens.fisheye else cv2.initUndistortRectifyMap
        K, new_K = self.lens.camera.matrix().numpy(), self.camera.matrix().numpy()
        distortion = np.array(self.lens.distortion or (0.0,) * 4)
        u, v = tables(K, distortion, np.eye(3), new_K, self.lens.size, cv2.CV_32FC1)
        return u, v
