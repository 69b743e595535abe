"""Pinhole camera: pixels <-> rays, z-depth <-> distance along the ray."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Undistorted pinhole camera.

    Axes are optical (x right, y down, z forward). The *centre* of the top-left pixel is ``uv = (0, 0)``, as in OpenCV
    and ``sensor_msgs/CameraInfo``, so the image covers ``[-0.5, width - 0.5] x [-0.5, height - 0.5]``.

    Attributes:
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels.
        width, height: image size, pixels.

    Raises:
        ValueError: a value is not finite, a focal length is not positive, or the image is empty.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) for value in (self.fx, self.fy, self.cx, self.cy)):
            raise ValueError(
                f"camera intrinsics must be finite, got fx={self.fx} fy={self.fy} cx={self.cx} cy={self.cy}"
            )
        if self.fx <= 0.0 or self.fy <= 0.0:
            raise ValueError(f"focal lengths must be positive, got fx={self.fx} fy={self.fy} (uncalibrated camera?)")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"the image must have at least one pixel, got {self.width} x {self.height}")

    def scaled(self, factor: float) -> Camera:
        """The camera of the same view resized by ``factor``; the size is rounded to whole pixels."""
        if not factor > 0.0:
            raise ValueError(f"the scale factor must be positive, got {factor}")
        return self.resized(max(1, round(self.width * factor)), max(1, round(self.height * factor)))

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same view in an image of another size.

        Pixel *edges* scale, centres sit half a pixel inside them: ``cx' = (cx + 0.5) s - 0.5``.
        """
        sx, sy = width / self.width, height / self.height
        return Camera(
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of a window of the image, whose top-left pixel is (left, top)."""
        return replace(self, cx=self.cx - left, cy=self.cy - top, width=width, height=height)

    def matrix(self) -> Tensor:
        """Intrinsic matrix K, (3, 3) float64."""
        return torch.tensor([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def pixel_grid(self, device: torch.device | str = "cpu") -> Tensor:
        """Centres of all pixels, row by row: uv (height * width, 2) float32."""
        rows = torch.arange(self.height, dtype=torch.float32, device=device)
        columns = torch.arange(self.width, dtype=torch.float32, device=device)
        v, u = torch.meshgrid(rows, columns, indexing="ij")
        return torch.stack([u, v], dim=-1).reshape(-1, 2)


def directions_from_uv(
    uv: Tensor, fx: float | Tensor, fy: float | Tensor, cx: float | Tensor, cy: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Viewing rays of pixels.

    ``d = normalise([(u - cx) / fx, (v - cy) / fy, 1])``

    Args:
        uv: pixels, (R, 2).
        fx, fy, cx, cy: intrinsics, pixels; numbers, or tensors that broadcast with (R,) when rays come from several
            cameras.

    Returns:
        directions (R, 3) of unit length in the camera frame, and z_per_t (R,): ``depth_z = t * z_per_t``.
    """
    x = (uv[:, 0] - cx) / fx
    y = (uv[:, 1] - cy) / fy
    z_per_t = torch.rsqrt(x * x + y * y + 1.0)
    return torch.stack([x * z_per_t, y * z_per_t, z_per_t], dim=-1), z_per_t


def project(x_camera: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """Pinhole projection ``u = fx x / z + cx``, ``v = fy y / z + cy``.

    Args:
        x_camera: points in the camera frame, metres, (N, 3).

    Returns:
        uv (N, 2) pixels and depth_z (N,) metres. Points with ``depth_z <= 0`` are behind the camera and have NaN uv.
    """
    depth_z = x_camera[:, 2]
    z = torch.where(depth_z > 0, depth_z, torch.nan)
    return torch.stack(
        [camera.fx * x_camera[:, 0] / z + camera.cx, camera.fy * x_camera[:, 1] / z + camera.cy], dim=-1
    ), depth_z
