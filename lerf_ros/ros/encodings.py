"""Pixels as sensor_msgs encodes them -> RGB and metres."""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.ros.rvl import decode_rvl


class ConversionError(ValueError):
    """A message cannot be used; the text says why and what to do."""


class RawImage(Protocol):
    """The fields of sensor_msgs/Image that hold pixels."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


@dataclass(frozen=True)
class _Format:
    """Layout of pixels: `to_rgb` is OpenCV's conversion (None: they are RGB), `rows` counts rows of bytes per two rows
    of pixels (planar formats put the colour below the brightness)."""

    dtype: type
    channels: int
    to_rgb: int | None
    rows: int = 2


# OpenCV names a Bayer pattern by its second row. A matrix without a meaning (8UC3) is taken as OpenCV's order, BGR.
_COLOUR: dict[str, _Format] = {
    "rgb8": _Format(np.uint8, 3, None),
    "bgr8": _Format(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": _Format(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Format(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "mono8": _Format(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Format(np.uint16, 3, None),
    "bgr16": _Format(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": _Format(np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": _Format(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "mono16": _Format(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Format(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "8UC3": _Format(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "8UC4": _Format(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "16UC1": _Format(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "16UC3": _Format(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "16UC4": _Format(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "bayer_rggb8": _Format(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": _Format(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": _Format(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": _Format(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": _Format(np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": _Format(np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": _Format(np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": _Format(np.uint16, 1, cv2.COLOR_BayerGB2RGB),
    "yuv422": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Format(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "nv12": _Format(np.uint8, 1, cv2.COLOR_YUV2RGB_NV12, rows=3),
    "nv21": _Format(np.uint8, 1, cv2.COLOR_YUV2RGB_NV21, rows=3),
}
COLOUR_ENCODINGS = tuple(_COLOUR)
_DEPTH: dict[str, type] = {"16UC1": np.uint16, "mono16": np.uint16, "32FC1": np.float32}
SATURATED_MM = 65535  # a full 16-bit counter is no measurement
_DECODED = {1: "mono", 3: "bgr", 4: "bgra"}  # what cv2.imdecode returns, by channels
_DEPTH_HEADER = struct.Struct("<iff")  # compressed_depth_image_transport: format, and two numbers for inverse depth


def rgb_from_raw(message: RawImage) -> NDArray[np.uint8]:
    """Colour image -> (H, W, 3) uint8 RGB; without a copy where the encoding is rgb8 and rows are not padded. Of 16
    bits the upper 8 are kept.

    Raises:
        ConversionError: unknown encoding, empty image, or fewer bytes than the size needs.
    """
    if message.encoding not in _COLOUR:
        raise ConversionError(
            f"image encoding '{message.encoding}' is not supported; supported: {', '.join(COLOUR_ENCODINGS)}"
        )
    layout = _COLOUR[message.encoding]
    return _rgb(_pixels(message, layout.dtype, layout.channels, "image", layout.rows), message.encoding)


def metres_from_raw(message: RawImage) -> NDArray[np.float32]:
    """Depth image -> (H, W) float32 metres along the optical axis, NaN where nothing was measured.

    REP 118: 32FC1 holds metres, where NaN, +inf (nothing in range) and -inf (too close) are no measurements; 16UC1
    holds millimetres, where 0 is none.

    Raises:
        ConversionError: unknown encoding, empty image, or fewer bytes than the size needs.
    """
    if message.encoding not in _DEPTH:
        raise ConversionError(
            f"depth encoding '{message.encoding}' is not supported; supported: {', '.join(_DEPTH)} "
            "(16 bit: millimetres, 32 bit: metres; REP 118)"
        )
    return _metres(_pixels(message, _DEPTH[message.encoding], 1, "depth image"))


def rgb_from_compressed(data: Any, described: str) -> NDArray[np.uint8]:
    """Data of a colour CompressedImage (JPEG, PNG, what else OpenCV reads) -> (H, W, 3) uint8 RGB.

    Args:
        described: its `format`, "jpeg" or, by compressed_image_transport, "ENCODING; jpeg compressed ORDER".

    Raises:
        ConversionError: damaged, or a kind of picture that OpenCV does not read.
    """
    picture = _decoded(data, described, "image")
    channels, depth = (1 if picture.ndim == 2 else picture.shape[2]), 8 * picture.dtype.itemsize
    original = described.partition(";")[0].strip()
    if channels == 1 and original.startswith("bayer_") and original in _COLOUR:
        encoding = original  # a mosaic that was compressed as it is
    elif "compressed rgb" in described:
        encoding = {3: "rgb", 4: "rgba"}.get(channels, "mono") + str(depth)
    else:
        encoding = f"{_DECODED.get(channels, channels)}{depth}"
    if encoding not in _COLOUR or picture.dtype != _COLOUR[encoding].dtype:
        raise ConversionError(f"a compressed image of {channels} channels of {picture.dtype} is not supported")
    return _rgb(picture, encoding)


def metres_from_compressed(data: Any, described: str) -> NDArray[np.float32]:
    """Data of a depth CompressedImage -> (H, W) float32 metres as `metres_from_raw`.

    Args:
        described: its `format`. "16UC1; compressedDepth png" (or "rvl", or 32FC1 quantised by inverse depth) has a
            header of 12 bytes; "16UC1; png compressed" is a plain PNG.

    Raises:
        ConversionError: damaged, or not a picture of 16 bits and one channel.
    """
    if "compressedDepth" not in described:
        return _metres(_sixteen_bits(_decoded(data, described, "depth image"), described))
    raw = bytes(data)
    if len(raw) <= _DEPTH_HEADER.size:
        raise ConversionError(f"the compressed depth image is truncated: {len(raw)} bytes")
    _, quantum_a, quantum_b = _DEPTH_HEADER.unpack_from(raw)
    body = raw[_DEPTH_HEADER.size :]
    if re.search(r"\brvl\b", described):
        try:
            counts = decode_rvl(body)
        except ValueError as error:
            raise ConversionError(f"the compressed depth image ('{described}') is damaged: {error}") from error
    else:
        counts = _sixteen_bits(_decoded(body, described, "depth image"), described)
    if not described.startswith("32FC1"):
        return _metres(counts)
    # counts = a / depth + b, rounded; 0: not measured
    with np.errstate(divide="ignore", invalid="ignore"):
        return _metres(np.float32(quantum_a) / (counts - np.float32(quantum_b)) * (counts > 0))


def _rgb(pixels: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    conversion = _COLOUR[encoding].to_rgb
    try:
        rgb: NDArray[Any] = pixels if conversion is None else cv2.cvtColor(pixels, conversion)
    except cv2.error as error:
        shown = "x".join(map(str, pixels.shape[1::-1]))
        raise ConversionError(f"an image of {shown} pixels cannot be '{encoding}': {error.err}") from error
    return np.ascontiguousarray((rgb >> 8).astype(np.uint8) if rgb.dtype == np.uint16 else rgb)


def _metres(measured: NDArray[Any]) -> NDArray[np.float32]:
    """Millimetres as uint16, or metres -> metres, NaN for all that is no distance."""
    if measured.dtype == np.uint16:
        depth_z = measured * np.float32(1e-3)
        depth_z[(measured == 0) | (measured == SATURATED_MM)] = np.nan
        return depth_z
    return np.where(np.isfinite(measured) & (measured > 0), measured, np.float32(np.nan))


def _decoded(data: Any, described: str, what: str) -> NDArray[Any]:
    """What OpenCV makes of a compressed picture, in the picture's own depth, channels and turn."""
    raw = np.frombuffer(data, dtype=np.uint8)
    picture = cv2.imdecode(raw, cv2.IMREAD_UNCHANGED) if raw.size else None
    if picture is None:
        raise ConversionError(
            f"the compressed {what} ('{described}', {raw.size} bytes) is damaged or of a kind that OpenCV does not read"
        )
    return picture


def _sixteen_bits(picture: NDArray[Any], described: str) -> NDArray[np.uint16]:
    if picture.ndim != 2 or picture.dtype != np.uint16:
        raise ConversionError(
            f"a compressed depth image must have one channel of 16 bits, this one ('{described}') has {picture.dtype} "
            f"{'x'.join(map(str, picture.shape))}: use the transport compressedDepth with png or rvl"
        )
    return picture


def _pixels(message: RawImage, dtype: type, channels: int, what: str, rows_per_two: int = 2) -> NDArray[Any]:
    """View of a message's pixels, (H, W) or (H, W, channels), with padded rows cut and bytes in native order."""
    height, width = int(message.height), int(message.width)
    if height == 0 or width == 0:
        raise ConversionError(f"the {what} is empty ({width}x{height} pixels): check the camera driver")
    height = height * rows_per_two // 2
    row = width * channels * np.dtype(dtype).itemsize
    step = int(message.step) or row
    data = np.frombuffer(message.data, dtype=np.uint8)
    if step < row or data.size < step * (height - 1) + row:
        raise ConversionError(
            f"the {what} is truncated: {width}x{message.height} {message.encoding} needs {height} rows of {row} bytes, "
            f"the message has step {message.step} and {data.size} bytes"
        )
    rows = np.lib.stride_tricks.as_strided(data, shape=(height, row), strides=(step, 1))
    pixels: NDArray[Any] = (rows if step == row else np.ascontiguousarray(rows)).view(dtype)
    if pixels.dtype.itemsize > 1 and bool(message.is_bigendian) != (sys.byteorder == "big"):
        pixels = pixels.byteswap()
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels))
