"""Each message conversion against OpenCV, SciPy or rosbags, and round trips."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from builtin_interfaces.msg import Time  # noqa: E402
from rosbags.image import message_to_cvimage  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest  # noqa: E402

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.geometry.lens import Lens  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402

pytestmark = pytest.mark.ros
STAMPED = c.header(1_234_567_890_123_456_789, "camera")


def random_pixels(channels: int, dtype: type = np.uint8, height: int = 6, width: int = 8) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)


def image(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    message.data.frombytes(rows.tobytes())
    return message


COLOUR = [
    ("rgb8", 3, np.uint8),
    ("bgr8", 3, np.uint8),
    ("rgba8", 4, np.uint8),
    ("bgra8", 4, np.uint8),
    ("mono8", 1, np.uint8),
    ("mono16", 1, np.uint16),
    ("rgb16", 3, np.uint16),
    ("bgr16", 3, np.uint16),
    ("bayer_rggb8", 1, np.uint8),
    ("bayer_bggr8", 1, np.uint8),
    ("bayer_gbrg8", 1, np.uint8),
    ("bayer_grbg8", 1, np.uint8),
    ("yuv422", 2, np.uint8),
    ("uyvy", 2, np.uint8),
    ("yuv422_yuy2", 2, np.uint8),
    ("yuyv", 2, np.uint8),
]


@pytest.mark.parametrize(("encoding", "channels", "dtype"), COLOUR)
def test_colour_image_is_what_rosbags_makes_of_it(encoding, channels, dtype):
    message = image(random_pixels(channels, dtype), encoding)
    rgb = c.rgb_from_image(message)
    assert rgb.shape == (6, 8, 3) and rgb.dtype == np.uint8
    # 16 bit: rosbags scales by 255/65535, we keep the upper byte; they differ by rounding.
    expected = message_to_cvimage(message, "rgb8")
    assert np.abs(rgb.astype(int) - expected).max() <= (1 if dtype is np.uint16 else 0)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "mono8"])
def test_padded_rows_are_cut(encoding):
    pixels = random_pixels(1 if encoding == "mono8" else 3)
    padded = c.rgb_from_image(image(pixels, encoding, padding=5))
    np.testing.assert_array_equal(padded, c.rgb_from_image(image(pixels, encoding)))


def test_padded_depth_and_foreign_byte_order():
    millimetres = np.array([[1000, 0], [2500, 65535]], np.uint16)
    message = image(millimetres.byteswap(), "16UC1", padding=4)
    message.is_bigendian = int(sys.byteorder == "little")
    np.testing.assert_allclose(c.metres_from_depth(message), [[1.0, np.nan], [2.5, np.nan]])


def test_image_round_trip():
    pixels = random_pixels(3)
    message = c.image_message(pixels, STAMPED)
    assert (message.encoding, message.step, message.header.frame_id) == ("rgb8", 24, "camera")
    np.testing.assert_array_equal(message_to_cvimage(message), pixels)
    np.testing.assert_array_equal(c.rgb_from_image(message), pixels)


def test_image_message_takes_a_view_that_is_not_contiguous():
    flipped = random_pixels(3)[::-1, ::-1]
    np.testing.assert_array_equal(c.rgb_from_image(c.image_message(flipped, STAMPED)), flipped)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "jpeg2000"}, "'jpeg2000' is not supported; supported: rgb8, bgr8"),
        ({"height": 0}, r"empty \(8x0"),
        ({"width": 0}, r"empty \(0x6"),
        ({"step": 7}, "truncated"),
        ({"height": 7}, "truncated"),
    ],
)
def test_unusable_images_are_refused_with_a_reason(change, words):
    message = image(random_pixels(3), "rgb8")
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(c.ConversionError, match=words):
        c.rgb_from_image(message)


def test_depth_follows_rep_118():
    metres = np.array([[1.5, np.nan, np.inf], [-np.inf, 0.0, -1.0]], np.float32)
    expected = np.full((2, 3), np.nan)
    expected[0, 0] = 1.5
    depth = c.metres_from_depth(image(metres, "32FC1"))
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, expected)
    millimetres = np.array([[1500, 0, 65535]], np.uint16)
    np.testing.assert_allclose(c.metres_from_depth(image(millimetres, "16UC1")), [[1.5, np.nan, np.nan]])


@pytest.mark.parametrize(("encoding", "tolerance"), [("32FC1", 0.0), ("16UC1", 0.0005001)])
def test_depth_round_trip(encoding, tolerance):
    depth = np.random.default_rng(1).uniform(0.3, 9.0, (5, 7)).astype(np.float32)
    depth[2, 3] = np.nan
    message = c.depth_message(depth, STAMPED, encoding)
    assert message.encoding == encoding
    np.testing.assert_allclose(c.metres_from_depth(message), depth, rtol=0, atol=tolerance)


def test_depth_that_does_not_fit_16_bits_is_no_measurement():
    message = c.depth_message(np.array([[70.0, -1.0, np.inf, 1.0]], np.float32), STAMPED, "16UC1")
    np.testing.assert_allclose(c.metres_from_depth(message), [[np.nan, np.nan, np.nan, 1.0]])


@pytest.mark.parametrize("encoding", ["rgb8", "64FC1", ""])
def test_unknown_depth_encoding(encoding):
    with pytest.raises(c.ConversionError, match="supported: 16UC1"):
        c.metres_from_depth(image(random_pixels(3), encoding))


def camera_info(**fields) -> CameraInfo:
    message = c.camera_info_message(Camera(500.0, 510.0, 320.5, 241.0, 640, 480), STAMPED)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_camera_info_round_trip_and_opencv():
    message = camera_info()
    lens = c.lens_from_info(message)
    assert lens == Lens(Camera(500.0, 510.0, 320.5, 241.0, 640, 480))
    assert c.lens_from_info(message, rectified=True) == lens
    point = np.array([[0.3, -0.2, 2.0]])
    uv, _ = cv2.projectPoints(point, np.zeros(3), np.zeros(3), message.k.reshape(3, 3), np.array(message.d))
    np.testing.assert_allclose(uv.ravel(), lens.camera.matrix().numpy()[:2] @ point[0] / point[0, 2])


@pytest.mark.parametrize(
    ("model", "count", "fisheye"),
    [
        ("plumb_bob", 4, False),
        ("plumb_bob", 5, False),
        ("rational_polynomial", 8, False),
        ("rational_polynomial", 12, False),  # with OpenCV's thin prism
        ("rational_polynomial", 14, False),
        ("equidistant", 4, True),
    ],
)
def test_distortion_models(model, count, fisheye):
    d = [0.01 * (i + 1) for i in range(count)]
    assert c.lens_from_info(camera_info(distortion_model=model, d=d)) == Lens(
        Camera(500.0, 510.0, 320.5, 241.0, 640, 480), tuple(d), fisheye
    )


def test_an_unnamed_model_without_coefficients_is_a_pinhole():
    assert not c.lens_from_info(camera_info(distortion_model="", d=[])).distorted
    assert not c.lens_from_info(camera_info(distortion_model="none", d=[0.0] * 3)).distorted
    assert c.lens_from_info(camera_info(distortion_model="equidistant", d=[0.0] * 4)).distorted


def test_rectified_images_use_the_projection_matrix():
    message = camera_info(d=[0.1, 0.0, 0.0, 0.0, 0.0])
    message.p[0], message.p[2] = 480.0, 330.0
    lens = c.lens_from_info(message, rectified=True)
    assert (lens.camera.fx, lens.camera.cx, lens.distorted) == (480.0, 330.0, False)


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("binning", [(1, 1), (0, 0), (2, 2), (4, 2)])
@pytest.mark.parametrize("window", [None, (100, 60, 320, 240)])
def test_region_of_interest_and_binning(rectified, binning, window):
    """A sensor that measures where it is: each of its pixels holds its own column and row, and binning averages."""
    message = camera_info(binning_x=binning[0], binning_y=binning[1])
    left, top, width, height = window or (0, 0, 640, 480)
    if window:
        message.roi = RegionOfInterest(x_offset=left, y_offset=top, width=width, height=height)
    sensor = np.stack(np.meshgrid(np.arange(640.0), np.arange(480.0)), axis=-1)[top : top + height, left : left + width]
    bin_x, bin_y = (max(1, n) for n in binning)
    read = sensor.reshape(height // bin_y, bin_y, width // bin_x, bin_x, 2).mean(axis=(1, 3))
    camera = c.lens_from_info(message, rectified).camera
    assert (camera.height, camera.width) == read.shape[:2]
    v, u = np.mgrid[: camera.height, : camera.width]
    np.testing.assert_allclose((u - camera.cx) / camera.fx, (read[..., 0] - 320.5) / 500.0, atol=1e-12)
    np.testing.assert_allclose((v - camera.cy) / camera.fy, (read[..., 1] - 241.0) / 510.0, atol=1e-12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": [0.0] * 9}, "uncalibrated"),
        ({"d": [0.1, 0.2]}, "2 distortion coefficients"),
        ({"distortion_model": "equidistant", "d": [0.1] * 5}, "5 distortion coefficients"),
        ({"distortion_model": "magic", "d": [0.1] * 5}, "'magic' is not supported, only plumb_bob, rational"),
        ({"d": [float("nan")] * 5}, "finite"),
        ({"width": 0}, "at least one pixel"),
        ({"width": 1, "binning_x": 2}, "at least one pixel"),
        ({"k": [float("nan"), 0.0, 1.0, 0.0, 5.0, 1.0, 0.0, 0.0, 1.0]}, "uncalibrated"),
    ],
)
def test_unusable_camera_info_is_refused_with_a_reason(fields, words):
    with pytest.raises(c.ConversionError, match=words):
        c.lens_from_info(camera_info(**fields))


def random_pose(seed: int) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed).as_matrix()
    pose[:3, 3] = np.random.default_rng(seed).normal(size=3)
    return pose


@pytest.mark.parametrize("seed", range(5))
def test_pose_round_trip_and_scipy(seed):
    pose = random_pose(seed)
    message = c.pose_stamped_message(pose, STAMPED).pose
    q = message.orientation
    np.testing.assert_allclose(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), pose[:3, :3], atol=1e-12)
    np.testing.assert_allclose(c.matrix_from_pose(message), pose, atol=1e-12)


@pytest.mark.parametrize(
    ("quaternion", "words"),
    [((0.0, 0.0, 0.0, 0.0), "unit quaternion"), ((0.0, 0.0, 0.0, 2.0), "unit"), ((0.0, 0.0, float("nan"), 1.0), "NaN")],
)
def test_unusable_poses_are_refused_with_a_reason(quaternion, words):
    with pytest.raises(c.ConversionError, match=words):
        c.matrix_from_pose(c.pose_message((0.0, 0.0, 0.0), quaternion))


def test_mount_chains_extrinsic_and_axes():
    """A camera 1 m in front of the base, looking along the base's y: its optical z axis is the base's y axis."""
    quarter_turn = np.eye(4)
    quarter_turn[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    quarter_turn[:3, 3] = (1.0, 0.0, 0.0)
    T_world_base = random_pose(3)
    T_world_camera = c.CameraMount("body", quarter_turn).T_world_camera(T_world_base)
    np.testing.assert_allclose(T_world_camera[:3, 3], T_world_base[:3, 3] + T_world_base[:3, 0])
    np.testing.assert_allclose(T_world_camera[:3, 2], T_world_base[:3, 1], atol=1e-12)  # forward
    np.testing.assert_allclose(T_world_camera[:3, 1], -T_world_base[:3, 2], atol=1e-12)  # down
    np.testing.assert_allclose(c.CameraMount().T_world_camera(T_world_base), T_world_base)
    with pytest.raises(ValueError, match="axes"):
        c.CameraMount("sideways")


def test_stamps_keep_every_nanosecond():
    assert c.stamp_to_ns(Time(sec=1_234_567_890, nanosec=123_456_789)) == 1_234_567_890_123_456_789
    assert c.stamp_to_ns(STAMPED.stamp) == 1_234_567_890_123_456_789
