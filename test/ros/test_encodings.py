"""Every encoding against pictures that OpenCV and NumPy build."""

from __future__ import annotations

import struct
import sys

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.encodings import COLOUR_ENCODINGS  # noqa: E402

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 48, 64
PATTERNS = {"rggb": ("rg", "gb"), "bggr": ("bg", "gr"), "gbrg": ("gb", "rg"), "grbg": ("gr", "bg")}


def smooth(dtype: type = np.uint8) -> np.ndarray:
    """A colour picture without fine detail, which mosaics and chroma at half resolution keep."""
    v, u = np.mgrid[:HEIGHT, :WIDTH]
    picture = np.stack([40 + 2.5 * u, 60 + 3.0 * v, 200 - 1.5 * u - v], axis=-1)
    return picture.astype(np.uint8).astype(dtype) * dtype(257 if dtype is np.uint16 else 1)


def message(rows: np.ndarray, encoding: str, height: int = HEIGHT, padding: int = 0, swap: bool = False) -> Image:
    """Image of rows of pixels; `swap`: in the other byte order than this machine's."""
    rows = rows.byteswap() if swap else rows
    data = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), -1)
    data = np.pad(data, ((0, 0), (0, padding)), constant_values=123)
    big = (sys.byteorder == "big") != swap
    image = Image(height=height, width=WIDTH, encoding=encoding, step=data.shape[1], is_bigendian=int(big))
    image.data.frombytes(data.tobytes())
    return image


def encoded(encoding: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows as a driver would send them, the RGB picture that they show, and how exactly they can."""
    dtype = np.uint16 if "16" in encoding else np.uint8
    rgb = smooth(dtype)
    seen = (rgb >> 8).astype(np.uint8) if dtype is np.uint16 else rgb
    grey = np.repeat(seen[..., :1], 3, axis=-1)
    alpha = np.full((HEIGHT, WIDTH, 1), 7, dtype)
    if encoding.startswith("bayer"):
        mosaic = np.empty((HEIGHT, WIDTH), dtype)
        for row, colours in enumerate(PATTERNS[encoding[6:10]]):
            for column, colour in enumerate(colours):
                mosaic[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
        return mosaic, seen, 4
    if encoding in ("mono8", "8UC1", "mono16", "16UC1"):
        return rgb[..., 0], grey, 0
    if encoding in ("rgb8", "rgb16"):
        return rgb, seen, 0
    if encoding in ("rgba8", "rgba16"):
        return np.concatenate([rgb, alpha], axis=-1), seen, 0
    if encoding in ("bgr8", "bgr16", "8UC3", "16UC3"):
        return rgb[..., ::-1], seen, 0
    if encoding in ("bgra8", "bgra16", "8UC4", "16UC4"):
        return np.concatenate([rgb[..., ::-1], alpha], axis=-1), seen, 0
    planes = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)  # BT.601: Y, then U and V at half the resolution
    y = planes[:HEIGHT]
    u, v = planes[HEIGHT:].reshape(2, HEIGHT // 2, WIDTH // 2)
    if encoding in ("nv12", "nv21"):
        pair = (u, v) if encoding == "nv12" else (v, u)
        return np.concatenate([y, np.stack(pair, axis=-1).reshape(HEIGHT // 2, WIDTH)]), seen, 8
    chroma = np.stack([u, v], axis=-1).repeat(2, axis=0).reshape(HEIGHT, WIDTH)
    pair = (chroma, y) if encoding in ("yuv422", "uyvy") else (y, chroma)
    return np.stack(pair, axis=-1), seen, 8


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("encoding", COLOUR_ENCODINGS)
def test_every_colour_encoding(encoding, padding):
    rows, expected, tolerance = encoded(encoding)
    rgb = c.rgb_from_image(message(rows, encoding, padding=padding))
    assert rgb.shape == (HEIGHT, WIDTH, 3) and rgb.dtype == np.uint8
    inside = slice(2, -2), slice(2, -2)  # a mosaic has no neighbours at its rim
    assert np.abs(rgb.astype(int) - expected)[inside].max() <= tolerance


@pytest.mark.parametrize("encoding", [name for name in COLOUR_ENCODINGS if "16" in name])
def test_foreign_byte_order(encoding):
    rows, _, _ = encoded(encoding)
    np.testing.assert_array_equal(
        c.rgb_from_image(message(rows, encoding, swap=True)), c.rgb_from_image(message(rows, encoding))
    )


def test_no_standard_encoding_of_pictures_is_forgotten():
    """sensor_msgs/image_encodings.hpp, without what is no picture of 8 or 16 bits (32FC1 ...) and without nv24."""
    named = {f"{order}{bits}" for order in ("rgb", "bgr", "rgba", "bgra", "mono") for bits in (8, 16)}
    named |= {f"bayer_{pattern}{bits}" for pattern in PATTERNS for bits in (8, 16)}
    named |= {"yuv422", "yuv422_yuy2", "uyvy", "yuyv", "nv12", "nv21"}
    assert named | {f"{bits}UC{channels}" for bits in (8, 16) for channels in (1, 3, 4)} == set(COLOUR_ENCODINGS)


def test_odd_sizes_that_an_encoding_cannot_have_are_refused():
    rows = np.zeros((HEIGHT, WIDTH - 1, 2), np.uint8)
    odd = message(rows, "yuyv")
    odd.width = WIDTH - 1
    with pytest.raises(c.ConversionError, match="63x48 pixels cannot be 'yuyv'"):
        c.rgb_from_image(odd)


def compressed(extension: str, picture: np.ndarray, described: str, header: bytes = b"") -> CompressedImage:
    done, data = cv2.imencode(extension, picture)
    assert done
    image = CompressedImage(format=described)
    image.data.frombytes(header + data.tobytes())
    return image


@pytest.mark.parametrize(
    ("extension", "described", "bgr", "tolerance"),
    [
        (".jpg", "jpeg", True, 8),
        (".jpg", "bgr8; jpeg compressed bgr8", True, 8),
        (".jpg", "rgb8; jpeg compressed bgr8", True, 8),
        (".jpg", "rgb8; jpeg compressed rgb8", False, 8),
        (".png", "png", True, 0),
        (".png", "rgb8; png compressed bgr8", True, 0),
        (".png", "bgr16; png compressed bgr16", True, 0),
        (".bmp", "bmp", True, 0),
    ],
)
def test_compressed_colours(extension, described, bgr, tolerance):
    rgb = smooth(np.uint16 if "16" in described else np.uint8)
    image = compressed(extension, rgb[..., ::-1] if bgr else rgb, described)  # OpenCV writes BGR
    assert np.abs(c.rgb_from_image(image).astype(int) - smooth()).max() <= tolerance


@pytest.mark.parametrize("described", ["mono8; jpeg compressed ", "jpeg"])
def test_compressed_grey(described):
    rgb = c.rgb_from_image(compressed(".jpg", smooth()[..., 0], described))
    assert (rgb[..., 0] == rgb[..., 2]).all()
    assert np.abs(rgb[..., 1].astype(int) - smooth()[..., 0]).max() <= 4


def test_compressed_transparency_and_16_bit_grey():
    transparent = np.concatenate([smooth()[..., ::-1], np.full((HEIGHT, WIDTH, 1), 3, np.uint8)], axis=-1)
    np.testing.assert_array_equal(c.rgb_from_image(compressed(".png", transparent, "png")), smooth())
    grey = c.rgb_from_image(compressed(".png", smooth(np.uint16)[..., 1], "mono16; png compressed "))
    np.testing.assert_array_equal(grey, np.repeat(smooth()[..., 1:2], 3, axis=-1))


def test_a_mosaic_that_was_compressed_as_it_is():
    mosaic, expected, tolerance = encoded("bayer_grbg8")
    rgb = c.rgb_from_image(compressed(".png", mosaic, "bayer_grbg8; png compressed "))
    assert np.abs(rgb.astype(int) - expected)[2:-2, 2:-2].max() <= tolerance


def damaged(described: str, data: bytes = b"\xff\xd8 no picture") -> CompressedImage:
    image = CompressedImage(format=described)
    image.data.frombytes(data)
    return image


@pytest.mark.parametrize("data", [b"", b"\xff\xd8 no picture"])
def test_damaged_compressed_images_are_refused(data):
    with pytest.raises(c.ConversionError, match=r"compressed image \('jpeg', \d+ bytes\) is damaged"):
        c.rgb_from_image(damaged("jpeg", data))


def test_compressed_images_of_floats_are_refused():
    floats = compressed(".tiff", smooth().astype(np.float32), "tiff")
    with pytest.raises(c.ConversionError, match="float32 is not supported"):
        c.rgb_from_image(floats)


# Depth, as compressed_depth_image_transport sends it

Z0, Z_MAX = 100.0, 10.0  # its defaults: how finely, how far


def metres() -> np.ndarray:
    depth_z = np.random.default_rng(3).uniform(0.4, 9.0, (HEIGHT, WIDTH)).astype(np.float32)
    depth_z[5:9, 3:40] = np.nan
    return depth_z


def rvl(counts: np.ndarray) -> bytes:
    """Wilson's RVL, the writing side."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            value, low = value >> 3, value & 7
            nibbles.append(low | (8 if value else 0))
            if not value:
                return

    values, previous, i = [int(count) for count in counts.ravel()], 0, 0
    while i < len(values):
        zeros = i
        while zeros < len(values) and values[zeros] == 0:
            zeros += 1
        others = zeros
        while others < len(values) and values[others] != 0:
            others += 1
        put(zeros - i)
        put(others - zeros)
        for value in values[zeros:others]:
            delta, previous = value - previous, value
            put(2 * delta if delta >= 0 else -2 * delta - 1)
        i = others
    nibbles += [0] * (-len(nibbles) % 8)
    words = np.array(nibbles, np.uint32).reshape(-1, 8) @ (1 << np.arange(28, -1, -4, dtype=np.uint32))
    return struct.pack("<II", counts.shape[1], counts.shape[0]) + words.astype("<u4").tobytes()


def packed(counts: np.ndarray, kind: str, header: bytes) -> bytes:
    return header + (rvl(counts) if kind == "rvl" else cv2.imencode(".png", counts)[1].tobytes())


@pytest.mark.parametrize(
    "described", ["16UC1; compressedDepth png", "16UC1; compressedDepth rvl", "16UC1; compressedDepth"]
)
def test_compressed_depth_in_millimetres(described):
    counts = np.rint(np.nan_to_num(metres()) * 1000).astype(np.uint16)
    counts[20, 20] = 65535
    expected = np.where((counts > 0) & (counts < 65535), counts / 1000, np.nan)
    kind = described.rpartition(" ")[2]
    depth_z = c.metres_from_depth(damaged(described, packed(counts, kind, struct.pack("<iff", 0, 0.0, 0.0))))
    assert depth_z.dtype == np.float32
    np.testing.assert_allclose(depth_z, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["png", "rvl"])
def test_compressed_depth_in_metres_is_quantised_by_its_inverse(kind):
    """counts = a / z + b with a = z0 (z0 + 1), b = 1 - a / z_max: a step of 1 is z^2 / a metres."""
    depth_z = metres()
    a = Z0 * (Z0 + 1)
    b = 1 - a / Z_MAX
    counts = np.where(np.isfinite(depth_z), a / np.nan_to_num(depth_z, nan=1.0) + b, 0).astype(np.uint16)
    message = damaged(f"32FC1; compressedDepth {kind}", packed(counts, kind, struct.pack("<iff", 0, a, b)))
    decoded = c.metres_from_depth(message)
    assert (np.isnan(decoded) == np.isnan(depth_z)).all()
    measured = np.isfinite(depth_z)
    assert (np.abs(decoded - depth_z)[measured] <= 1.01 * depth_z[measured] * decoded[measured] / a).all()


def test_depth_as_a_plain_png():
    counts = np.full((HEIGHT, WIDTH), 1234, np.uint16)
    np.testing.assert_allclose(
        c.metres_from_depth(compressed(".png", counts, "16UC1; png compressed ")), 1.234, rtol=1e-6
    )


HEADER = struct.pack("<iff", 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("described", "data", "words"),
    [
        ("16UC1; compressedDepth png", HEADER[:5], "truncated: 5 bytes"),
        ("16UC1; compressedDepth png", HEADER + b"no picture", "damaged"),
        ("16UC1; compressedDepth png", HEADER + cv2.imencode(".png", smooth())[1].tobytes(), "one channel of 16 bits"),
        ("16UC1; jpeg compressed ", cv2.imencode(".jpg", smooth())[1].tobytes(), "one channel of 16 bits"),
        ("16UC1; compressedDepth rvl", HEADER + b"abc", "hold no size"),
        ("16UC1; compressedDepth rvl", HEADER + struct.pack("<II", 0, 4), "0x4 pixels"),
        ("16UC1; compressedDepth rvl", HEADER + struct.pack("<II", 2**31, 2**31), "pixels"),
        ("16UC1; compressedDepth rvl", HEADER + rvl(np.full((8, 8), 900, np.uint16))[:-4], "end early or run over"),
        ("16UC1; compressedDepth rvl", HEADER + struct.pack("<III", 2, 2, 0x7F000000), "end early or run over"),
        (
            "16UC1; compressedDepth rvl",
            HEADER + struct.pack("<IIII", 2, 2, *2 * (0xFFFFFFFF,)),
            "end early or run over",
        ),
    ],
)
def test_damaged_compressed_depth_is_refused(described, data, words):
    with pytest.raises(c.ConversionError, match=words):
        c.metres_from_depth(damaged(described, data))
