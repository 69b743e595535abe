"""ROS messages <-> arrays, poses and cameras. Nothing else in the package reads or fills a sensor message."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Pose as PoseMessage
from geometry_msgs.msg import PoseStamped
from numpy.typing import ArrayLike, NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose, pose_from_quaternion, quaternion_from_pose, to_optical

# encoding: (dtype, channels, OpenCV's conversion to RGB). OpenCV names a Bayer pattern by its second row.
_COLOUR_ENCODINGS: dict[str, tuple[type, int, int | None]] = {
    "rgb8": (np.uint8, 3, None),
    "bgr8": (np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": (np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": (np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": (np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": (np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": (np.uint16, 3, None),
    "bgr16": (np.uint16, 3, cv2.COLOR_BGR2RGB),
    "bayer_rggb8": (np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
}
_DEPTH_ENCODINGS: dict[str, type] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
_SATURATED_MM = 65535  # a full 16-bit counter is no measurement
_DISTORTION_TOLERANCE = 1e-9


class ConversionError(ValueError):
    """A message cannot be used; the text says why and what to do."""


def stamp_to_ns(stamp: Time) -> int:
    """Time message -> integer nanoseconds."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def header(stamp_ns: int, frame_id: str) -> Header:
    """Header with a stamp in integer nanoseconds."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    return Header(stamp=Time(sec=seconds, nanosec=nanoseconds), frame_id=str(frame_id))


def rgb_from_image(message: Image) -> NDArray[np.uint8]:
    """Colour image -> (H, W, 3) uint8 RGB; without a copy where the encoding is rgb8 and rows are not padded.

    Raises:
        ConversionError: unknown encoding, empty image, or fewer bytes than the size needs.
    """
    if message.encoding not in _COLOUR_ENCODINGS:
        raise ConversionError(
            f"image encoding '{message.encoding}' is not supported; supported: {', '.join(_COLOUR_ENCODINGS)}"
        )
    dtype, channels, conversion = _COLOUR_ENCODINGS[message.encoding]
    pixels = _pixels(message, dtype, channels, "image")
    if dtype is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.ascontiguousarray(pixels if conversion is None else cv2.cvtColor(pixels, conversion))


def metres_from_depth(message: Image) -> NDArray[np.float32]:
    """Depth image -> (H, W) float32 metres along the optical axis, NaN where nothing was measured.

    REP 118: 32FC1 holds metres, where NaN, +inf (nothing in range) and -inf (too close) are no measurements; 16UC1
    holds millimetres, where 0 is none.

    Raises:
        ConversionError: unknown encoding, empty image, or fewer bytes than the size needs.
    """
    if message.encoding not in _DEPTH_ENCODINGS:
        raise ConversionError(
            f"depth encoding '{message.encoding}' is not supported; supported: {', '.join(_DEPTH_ENCODINGS)} "
            "(16 bit: millimetres, 32 bit: metres; REP 118)"
        )
    raw = _pixels(message, _DEPTH_ENCODINGS[message.encoding], 1, "depth image")
    if raw.dtype == np.uint16:
        return np.where((raw > 0) & (raw < _SATURATED_MM), raw * np.float32(1e-3), np.float32(np.nan))
    return np.where(np.isfinite(raw) & (raw > 0), raw, np.float32(np.nan))


def camera_from_info(message: CameraInfo, rectified: bool = False) -> Camera:
    """CameraInfo -> pinhole camera.

    CameraInfo describes the raw image by K and D and the rectified one by P, and does not say which of the two it
    accompanies.

    Args:
        rectified: the image has been through rectification (image_proc): use P. Otherwise use K, and D must be zero.

    Raises:
        ConversionError: uncalibrated (zero focal length), distorted, empty, or binned or cropped by the driver.
    """
    if message.binning_x > 1 or message.binning_y > 1 or message.roi.width not in (0, message.width):
        raise ConversionError(
            "CameraInfo with binning or a region of interest is not supported: publish the full image"
        )
    if not rectified and np.abs(np.asarray(message.d, dtype=np.float64)).max(initial=0.0) > _DISTORTION_TOLERANCE:
        raise ConversionError(
            f"the image is distorted (CameraInfo.d = {[round(float(d), 6) for d in message.d]}): "
            "rectify first (image_proc), map the rectified image and set image.rectified: true"
        )
    fx, cx, fy, cy = (message.p[i] for i in (0, 2, 5, 6)) if rectified else (message.k[i] for i in (0, 2, 4, 5))
    if not (fx > 0 and fy > 0):
        raise ConversionError(
            f"the camera is uncalibrated (CameraInfo.{'p' if rectified else 'k'} has fx = {fx}, fy = {fy}): "
            "calibrate it (camera_calibration) or let the driver publish its factory calibration"
        )
    try:
        return Camera(float(fx), float(fy), float(cx), float(cy), int(message.width), int(message.height))
    except ValueError as error:
        raise ConversionError(f"CameraInfo: {error}") from error


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
        valid = (millimetres > 0) & (millimetres < _SATURATED_MM)
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


def _pixels(message: Image, dtype: type, channels: int, what: str) -> NDArray:
    """View of a message's pixels, (H, W) or (H, W, channels), with padded rows cut and bytes in native order."""
    height, width = int(message.height), int(message.width)
    if height == 0 or width == 0:
        raise ConversionError(f"the {what} is empty ({width}x{height} pixels): check the camera driver")
    row = width * channels * np.dtype(dtype).itemsize
    step = int(message.step) or row
    data = np.frombuffer(message.data, dtype=np.uint8)
    if step < row or data.size < step * (height - 1) + row:
        raise ConversionError(
            f"the {what} is truncated: {width}x{height} {message.encoding} needs rows of {row} bytes, "
            f"the message has step {message.step} and {data.size} bytes"
        )
    rows = np.lib.stride_tricks.as_strided(data, shape=(height, row), strides=(step, 1))
    pixels: NDArray = (rows if step == row else np.ascontiguousarray(rows)).view(dtype)
    if pixels.dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        pixels = pixels.byteswap()
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels))


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
