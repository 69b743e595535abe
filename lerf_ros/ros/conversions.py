"""ROS messages <-> arrays, poses and cameras. Nothing else in the package reads or fills a sensor message."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.lens import Lens
from lerf_ros.geometry.poses import Pose, pose_from_quaternion, quaternion_from_pose, to_optical
from lerf_ros.ros.encodings import (
    SATURATED_MM,
    ConversionError,
    metres_from_compressed,
    metres_from_raw,
    rgb_from_compressed,
    rgb_from_raw,
)

_PERSPECTIVE_MODELS, _FISHEYE_MODELS = ("plumb_bob", "rational_polynomial"), ("equidistant",)


def stamp_to_ns(stamp: Time) -> int:
    """Time message -> integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header(stamp_ns: int, frame_id: str) -> Header:
    """Header with a stamp in integer nanoseconds."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=str(frame_id))


def rgb_from_image(message: Image | CompressedImage) -> NDArray[np.uint8]:
    """Colour image -> (H, W, 3) uint8 RGB.

    Raises:
        ConversionError: see `encodings.rgb_from_raw` and `rgb_from_compressed`.
    """
    if isinstance(message, CompressedImage):
        return rgb_from_compressed(message.data, message.format)
    return rgb_from_raw(message)


def metres_from_depth(message: Image | CompressedImage) -> NDArray[np.float32]:
    """Depth image -> (H, W) float32 metres along the optical axis, NaN where nothing was measured.

    Raises:
        ConversionError: see `encodings.metres_from_raw` and `metres_from_compressed`.
    """
    if isinstance(message, CompressedImage):
        return metres_from_compressed(message.data, message.format)
    return metres_from_raw(message)


def lens_from_info(message: CameraInfo, rectified: bool = False) -> Lens:
    """CameraInfo -> the lens of the image that it comes with.

    CameraInfo describes the raw image by K and D and the rectified one by P, and does not say which of the two it
    accompanies. All are those of the full sensor: a region of interest moves the principal point, binning by n puts n
    pixels into one, whose centre is the middle of theirs: ``cx' = (cx - x_offset + 0.5) / n - 0.5``.

    Args:
        rectified: the image has been through rectification (image_proc): use P. Otherwise use K and D.

    Raises:
        ConversionError: uncalibrated (zero focal length), empty, or an unknown distortion model.
    """
    fx, cx, fy, cy = (message.p[i] for i in (0, 2, 5, 6)) if rectified else (message.k[i] for i in (0, 2, 4, 5))
    if not (fx > 0 and fy > 0):
        raise ConversionError(
            f"the camera is uncalibrated (CameraInfo.{'p' if rectified else 'k'} has fx = {fx}, fy = {fy}): "
            "calibrate it (camera_calibration) or let the driver publish its factory calibration"
        )
    roi, binning_x, binning_y = message.roi, max(1, int(message.binning_x)), max(1, int(message.binning_y))
    columns = (int(roi.width) or int(message.width)) // binning_x
    rows = (int(roi.height) or int(message.height)) // binning_y
    distortion, fisheye = ((), False) if rectified else _distortion(message)
    try:
        full = Camera(float(fx), float(fy), float(cx), float(cy), int(message.width), int(message.height))
        window = full.cropped(int(roi.x_offset), int(roi.y_offset), columns * binning_x, rows * binning_y)
        return Lens(window.resized(columns, rows), distortion, fisheye)
    except ValueError as error:
        raise ConversionError(f"CameraInfo: {error}") from error


def _distortion(message: CameraInfo) -> tuple[tuple[float, ...], bool]:
    """(coefficients in OpenCV's order, whether they are a fisheye's) of D."""
    model, coefficients = message.distortion_model, tuple(float(value) for value in message.d)
    if model in _FISHEYE_MODELS:
        return coefficients, True
    if not any(coefficients):
        return (), False
    if model not in _PERSPECTIVE_MODELS:
        known = ", ".join(_PERSPECTIVE_MODELS + _FISHEYE_MODELS)
        raise ConversionError(
            f"CameraInfo.distortion_model '{model}' is not supported, only {known}: "
            "rectify (image_proc), map the rectified image and set image.rectified: true"
        )
    return coefficients, False


def matrix_from_pose(message: PoseMessage) -> Pose:
    """Pose message -> (4, 4) float64.

    Raises:
        ConversionError: NaN or infinite, or the orientation is not a unit quaternion.
    """
    p, q = message.position, message.orientation
    try:
        return pose_from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
    except ValueError as error:
        raise ConversionError(str(error)) from error


@dataclass(frozen=True, eq=False)
class CameraMount:
    """How the camera sits on the frame that the pose moves.

    Attributes:
        axes: axes of the camera frame at the end of the chain, "optical" (x right, y down, z forward) or "body"
            (REP 103: x forward, y left, z up).
        T_child_camera: (4, 4) camera frame in the frame that the pose moves.

    Raises:
        ValueError: unknown axes or not a rigid transform.
    """

    axes: str = "optical"
    T_child_camera: Pose = field(default_factory=lambda: np.eye(4))

    def __post_init__(self) -> None:
        to_optical(self.T_child_camera, self.axes)

    @property
    def is_identity(self) -> bool:
        """Whether the pose is already that of the camera's frame."""
        return bool(np.allclose(self.T_child_camera, np.eye(4)))

    def T_world_camera(self, T_world_child: ArrayLike) -> Pose:
        """(4, 4) camera with optical axes in the world."""
        return to_optical(np.asarray(T_world_child, dtype=np.float64) @ self.T_child_camera, self.axes)


def image_message(image: NDArray[np.uint8], stamped: Header) -> Image:
    """(H, W, 3) uint8 RGB -> Image, rgb8."""
    return _image_message(np.ascontiguousarray(image, dtype=np.uint8), "rgb8", stamped)


def depth_message(depth_z: NDArray[np.float32], stamped: Header, encoding: str = "32FC1") -> Image:
    """(H, W) metres with NaN for invalid -> depth Image; 32FC1 (m) or 16UC1 (mm, rounded; out of range becomes 0)."""
    if encoding == "32FC1":
        return _image_message(np.ascontiguousarray(depth_z, dtype=np.float32), encoding, stamped)
    if encoding == "16UC1":
        millimetres = np.rint(np.nan_to_num(depth_z, nan=0.0, posinf=0.0, neginf=0.0) * 1e3)
        valid = (millimetres > 0) & (millimetres < SATURATED_MM)
        return _image_message(np.where(valid, millimetres, 0).astype(np.uint16), encoding, stamped)
    raise ConversionError(f"depth encoding '{encoding}' is not supported; supported: 32FC1, 16UC1")


def camera_info_message(camera: Camera, stamped: Header) -> CameraInfo:
    """Pinhole camera -> CameraInfo without distortion, whose rectified image is the image itself."""
    fx, fy, cx, cy = (float(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    return CameraInfo(
        header=stamped,
        width=int(camera.width),
        height=int(camera.height),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def pose_message(position: ArrayLike, quaternion_xyzw: ArrayLike) -> PoseMessage:
    """Position (3,) m and unit quaternion (4,) -> Pose."""
    message = PoseMessage()
    message.position.x, message.position.y, message.position.z = (float(value) for value in np.asarray(position))
    q = message.orientation
    q.x, q.y, q.z, q.w = (float(value) for value in np.asarray(quaternion_xyzw))
    return message


def pose_stamped_message(T_world_child: ArrayLike, stamped: Header) -> PoseStamped:
    """(4, 4) -> PoseStamped."""
    return PoseStamped(header=stamped, pose=pose_message(*quaternion_from_pose(T_world_child)))


def _image_message(pixels: NDArray, encoding: str, stamped: Header) -> Image:
    message = Image(
        header=stamped,
        height=int(pixels.shape[0]),
        width=int(pixels.shape[1]),
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=int(pixels.strides[0]),
    )
    # `message.data = pixels` copies element by element, 3,000 times slower.
    message.data.frombytes(memoryview(pixels.data).cast("B"))
    return message
