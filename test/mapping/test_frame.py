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
