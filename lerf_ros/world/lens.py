"""Lenses as COLMAP and nerfstudio name them."""

from __future__ import annotations

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.lens import Lens

_PERSPECTIVE = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "RADIAL", "SIMPLE_RADIAL")
_FISHEYE = ("OPENCV_FISHEYE",)


def colmap_lens(
    model: str, camera: Camera, *, k1: float, k2: float, k3: float, k4: float, p1: float, p2: float
) -> Lens:
    """The lens of COLMAP's `model`: perspective models have OpenCV's k1, k2, k3, p1, p2; OPENCV_FISHEYE has OpenCV's
    fisheye k1 to k4.

    Raises:
        ValueError: another model, or coefficients that the model does not have.
    """
    if model not in (*_PERSPECTIVE, *_FISHEYE):
        raise ValueError(
            f"camera_model {model} is not supported, only {', '.join((*_PERSPECTIVE, *_FISHEYE))}: "
            "undistort the pictures first"
        )
    if model in _FISHEYE:
        if (p1, p2) != (0.0, 0.0):
            raise ValueError(f"camera_model {model} has no p1 and p2")
        return Lens(camera, (k1, k2, k3, k4), fisheye=True)
    if k4 != 0.0:
        raise ValueError(f"camera_model {model} with k4 is not supported: undistort the pictures first")
    return Lens(camera, (k1, k2, p1, p2, k3))
