"""One posed camera image, the only thing that enters the map."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose, check_pose


@dataclass(frozen=True, eq=False)
class Frame:
    """A posed colour image with optional registered depth, validated on construction.

    Attributes:
        stamp_ns: time of exposure in nanoseconds.
        image: (H, W, 3) uint8, RGB.
        depth_z: (H, W) float32, metres along the optical axis, NaN where not measured; or None. Values that cannot
            be a distance (zero, negative, infinite) are stored as NaN.
        camera: pinhole model of this very image size.
        T_world_camera: (4, 4) float64, optical camera axes in the map frame.
        stream: name of the camera, where several feed one map; sharpness is compared within a stream.

    Raises:
        ValueError: with a reason that a robot user can act on.
    """

    stamp_ns: int
    image: np.ndarray
    depth_z: np.ndarray | None
    camera: Camera
    T_world_camera: Pose
    stream: str = ""

    def __post_init__(self) -> None:
        image = np.asarray(self.image)
        if image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"the image must have shape (height, width, 3), RGB; it has {image.shape}")
        if image.shape[0] == 0 or image.shape[1] == 0:
            raise ValueError(f"the image is empty ({image.shape[1]}x{image.shape[0]} pixels): check the camera driver")
        if image.dtype != np.uint8:
            raise ValueError(f"the image must be uint8 RGB, not {image.dtype}")
        height, width = image.shape[:2]
        if (self.camera.width, self.camera.height) != (width, height):
            raise ValueError(
                f"the image is {width}x{height} but the camera model is for {self.camera.width}x{self.camera.height}: "
                "CameraInfo must belong to this very image stream"
            )
        object.__setattr__(self, "image", image)
        if self.depth_z is not None:
            object.__setattr__(self, "depth_z", _checked_depth(self.depth_z, height, width))
        object.__setattr__(self, "T_world_camera", check_pose(self.T_world_camera))

    def fitted(self, width: int, height: int) -> Frame:
        """The same view as an image of width x height pixels: cropped to that aspect around the middle, then resized.
        The intrinsics follow; depth takes the nearest pixel."""
        camera = self.camera
        if (camera.width, camera.height) == (width, height):
            return self
        crop_width = min(camera.width, max(1, round(camera.height * width / height)))
        crop_height = min(camera.height, max(1, round(camera.width * height / width)))
        left, top = (camera.width - crop_width) // 2, (camera.height - crop_height) // 2
        window = slice(top, top + crop_height), slice(left, left + crop_width)
        smoothly = cv2.INTER_AREA if crop_width > width else cv2.INTER_LINEAR
        image = cv2.resize(np.ascontiguousarray(self.image[window]), (width, height), interpolation=smoothly)
        depth_z = self.depth_z
        if depth_z is not None:
            cut = np.ascontiguousarray(depth_z[window])
            depth_z = cv2.resize(cut, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        fitted = camera.cropped(left, top, crop_width, crop_height).resized(width, height)
        return Frame(self.stamp_ns, image, depth_z, fitted, self.T_world_camera, self.stream)


def _checked_depth(depth_z: np.ndarray, height: int, width: int) -> np.ndarray:
    depth_z = np.asarray(depth_z)
    if depth_z.shape != (height, width):
        shown = "x".join(str(n) for n in depth_z.shape[::-1])
        raise ValueError(
            f"the depth image is {shown} but the colour image is {width}x{height}: depth must be registered to the "
            "colour camera (on most drivers: switch on depth registration / align_depth)"
        )
    if not np.issubdtype(depth_z.dtype, np.floating):
        raise ValueError(f"depth_z must be floating-point metres, not {depth_z.dtype} (divide millimetres by 1000)")
    measured = np.isfinite(depth_z) & (depth_z > 0)
    return np.where(measured, depth_z, np.nan).astype(np.float32)
