import cv2
import numpy as np
import pytest

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame

CAMERA = Camera(fx=8.0, fy=8.0, cx=3.5, cy=2.5, width=8, height=6)


def make_frame(**changes):
    arguments = {
        "stamp_ns": 7,
        "image": np.zeros((6, 8, 3), np.uint8),
        "depth_z": np.ones((6, 8), np.float32),
        "camera": CAMERA,
        "T_world_camera": np.eye(4),
    }
    return Frame(**(arguments | changes))


def test_a_good_frame_keeps_its_values():
    frame = make_frame(depth_z=np.full((6, 8), 1.5))
    assert frame.depth_z.dtype == np.float32 and (frame.depth_z == 1.5).all()
    assert frame.T_world_camera.dtype == np.float64
    assert make_frame(depth_z=None).depth_z is None


def test_depth_that_is_no_distance_becomes_nan():
    depth_z = np.ones((6, 8), np.float32)
    depth_z[0, :4] = [0.0, -1.0, np.inf, np.nan]
    np.testing.assert_array_equal(np.isnan(make_frame(depth_z=depth_z).depth_z[0, :5]), [1, 1, 1, 1, 0])


NAN_POSE = np.eye(4)
NAN_POSE[0, 3] = np.nan


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": np.zeros((0, 8, 3), np.uint8)}, "empty"),
        ({"image": np.zeros((6, 8), np.uint8)}, "shape"),
        ({"image": np.zeros((6, 8, 3), np.float32)}, "uint8"),
        ({"image": np.zeros((12, 16, 3), np.uint8)}, "CameraInfo"),
        ({"depth_z": np.ones((3, 4), np.float32)}, "registered"),
        ({"depth_z": np.ones((6, 8), np.uint16)}, "millimetres"),
        ({"T_world_camera": NAN_POSE}, "NaN"),
        ({"T_world_camera": np.diag([2.0, 2.0, 2.0, 1.0])}, "rigid"),
    ],
)
def test_bad_frames_are_refused_with_a_reason(changes, reason):
    with pytest.raises(ValueError, match=reason):
        make_frame(**changes)


@pytest.mark.parametrize("size", [(160, 120), (320, 240), (200, 120), (120, 160), (97, 53), (400, 300)])
def test_a_fitted_frame_shows_known_points_where_its_camera_says(size):
    """Dots at points on a slanted plane, drawn by OpenCV's projection."""
    camera = Camera(fx=260.0, fy=255.0, cx=157.0, cy=121.5, width=320, height=240)
    plane = np.array([0.1, 0.2, 1.0]) / 3.0  # n . x = 1
    v, u = np.mgrid[70:180:25, 90:240:30]
    rays = np.stack([(u.ravel() - 157.0) / 260.0, (v.ravel() - 121.5) / 255.0, np.ones(u.size)], axis=-1)
    points = rays / (rays @ plane)[:, None]
    pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), camera.matrix().numpy(), None)[0][:, 0]
    rows, columns = np.mgrid[:240, :320]
    squared = ((columns[..., None] - pixels[:, 0]) ** 2 + (rows[..., None] - pixels[:, 1]) ** 2).min(axis=-1)
    image = np.repeat((255 * np.exp(-squared / 18.0))[..., None], 3, axis=-1).astype(np.uint8)
    depth_z = 1.0 / (plane[0] * (columns - 157.0) / 260.0 + plane[1] * (rows - 121.5) / 255.0 + plane[2])
    frame = Frame(7, image, depth_z, camera, np.eye(4)).fitted(*size)
    width, height = size
    assert frame.image.shape == (height, width, 3) and frame.depth_z.shape == (height, width)
    K = frame.camera.matrix().numpy()
    expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)[0][:, 0]
    reach = max(1, round(7 * width / 320))
    seen = 0
    for (u, v), z in zip(expected, points[:, 2], strict=True):
        column, row = round(u), round(v)
        if not (reach <= column < width - reach and reach <= row < height - reach):
            continue
        seen += 1
        window = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
        weights = frame.image[..., 0][window].astype(float)
        around_v, around_u = np.mgrid[window]
        found = np.array([(weights * around_u).sum(), (weights * around_v).sum()]) / weights.sum()
        assert np.abs(found - (u, v)).max() < 0.2
        assert abs(frame.depth_z[row, column] - z) < 0.03  # m; the plane rises 0.02 m in a pixel of the smallest
    assert seen >= 15
    assert frame.stamp_ns == 7 and frame.fitted(*size) is frame


def test_fitting_crops_around_the_middle_and_keeps_missing_depth_missing():
    image = np.zeros((6, 8, 3), np.uint8)
    image[:, 1:7] = 200
    depth_z = np.full((6, 8), 2.0)
    depth_z[:, 1:4] = np.nan
    square = make_frame(image=image, depth_z=depth_z).fitted(6, 6)
    assert (square.image == 200).all() and square.camera == Camera(8.0, 8.0, 2.5, 2.5, 6, 6)
    assert np.isnan(square.depth_z[:, :3]).all() and (square.depth_z[:, 3:] == 2.0).all()
    assert make_frame(depth_z=None).fitted(4, 3).depth_z is None
