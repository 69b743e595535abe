import cv2
import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import KeyframeConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.selection import KeyframeSelector, cells_seen, motion, sharpness

CONFIG = KeyframeConfig(translation=0.2, rotation=0.3, blur_ratio=0.5, blur_wait=3, unseen_share=0.3, unseen_voxel=0.25)
CAMERA = Camera(fx=60.0, fy=60.0, cx=31.5, cy=31.5, width=64, height=64)
SHARP = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
BLURRED = cv2.GaussianBlur(SHARP, None, 4.0)
NOTHING_SEEN = np.empty(0, np.int64)


def pose(x=0.0, yaw=0.0):
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0]
    T[0, 3] = x
    return T


def frame(x=0.0, yaw=0.0, image=SHARP, depth_z=None, stamp_ns=0):
    return Frame(stamp_ns, image, depth_z, CAMERA, pose(x, yaw))


def test_motion_is_the_larger_of_translation_and_rotation_in_threshold_units():
    others = np.stack([pose(x=0.1), pose(yaw=-0.6), pose(x=0.5, yaw=0.15)])
    np.testing.assert_allclose(motion(pose(), others, CONFIG), [0.5, 2.0, 2.5], rtol=1e-6)


def test_blur_lowers_sharpness():
    assert sharpness(BLURRED) < 0.2 * sharpness(SHARP)


def test_only_frames_that_moved_are_wanted():
    selector, known = KeyframeSelector(CONFIG), np.stack([pose()])
    assert selector.offer(frame(), known[:0], NOTHING_SEEN).reason == "first keyframe"
    assert selector.offer(frame(x=0.19, yaw=0.29), known, NOTHING_SEEN).frame is None
    assert selector.offer(frame(x=0.21), known, NOTHING_SEEN).reason == "moved"
    assert selector.offer(frame(yaw=0.31), known, NOTHING_SEEN).reason == "moved"


def test_unmapped_volume_is_wanted_without_motion():
    near, far = np.full((64, 64), 1.0), np.full((64, 64), 3.0)
    seen = cells_seen(frame(depth_z=near), CONFIG.unseen_voxel)
    selector, known = KeyframeSelector(CONFIG), np.stack([pose()])
    assert selector.offer(frame(depth_z=near), known, seen).frame is None
    assert selector.offer(frame(depth_z=far), known, seen).reason == "sees unmapped volume"


def test_cells_hold_the_back_projected_points():
    depth_z = np.full((64, 64), np.nan)
    depth_z[8, 56] = 2.0  # one of the pixels that are looked at: x = 2 * (56 - 31.5) / 60 = 0.8167 m
    first = cells_seen(frame(x=0.0, depth_z=depth_z), 0.25)
    np.testing.assert_array_equal(cells_seen(frame(x=0.18, depth_z=depth_z), 0.25), first)  # up to x = 1 m
    assert cells_seen(frame(x=0.19, depth_z=depth_z), 0.25) != first
    assert cells_seen(frame(x=-0.07, depth_z=depth_z), 0.25) != first  # below 0.75 m


def test_a_blurred_frame_loses_to_a_sharp_neighbour():
    selector, known = KeyframeSelector(CONFIG), np.stack([pose()])
    for _ in range(3):
        selector.offer(frame(), known, NOTHING_SEEN)
    assert selector.offer(frame(x=0.3, image=BLURRED, stamp_ns=1), known, NOTHING_SEEN).frame is None
    assert selector.offer(frame(x=0.31, stamp_ns=2), known, NOTHING_SEEN).frame.stamp_ns == 2


def test_the_sharpest_that_waited_is_taken_when_no_sharp_one_comes():
    selector, known = KeyframeSelector(CONFIG), np.stack([pose()])
    for _ in range(9):
        selector.offer(frame(), known, NOTHING_SEEN)
    less = cv2.GaussianBlur(SHARP, None, 3.0)
    taken = [
        selector.offer(frame(x=0.3, image=image, stamp_ns=i), known, NOTHING_SEEN).frame
        for i, image in enumerate([BLURRED, less, BLURRED, BLURRED])
    ]
    assert taken[:3] == [None, None, None]
    assert taken[3].stamp_ns == 1
