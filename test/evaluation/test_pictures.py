import cv2
import numpy as np
import pytest

from lerf_ros.evaluation.pictures import Mark, best_view, draw_target, relevancy_overlay, top_down_map
from lerf_ros.geometry.camera import Camera
from lerf_ros.query.targets import Target

CAMERA = Camera(fx=100.0, fy=100.0, cx=79.5, cy=59.5, width=160, height=120)


def looking_along_x(x, y=0.0):
    """A camera at (x, y, 0) that looks along +x of the map, upright."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = x, y, 0.0
    return pose


def test_overlay_leaves_irrelevant_pixels_grey_and_colours_relevant_ones():
    image = np.full((40, 60, 3), 100, np.uint8)
    relevancy = np.full((40, 60), 0.5, np.float32)
    relevancy[:, 30:] = 1.0
    picture = relevancy_overlay(image, relevancy)
    assert (picture[:, :28] == 100).all()
    assert (picture[:, 34:].max(axis=-1).astype(int) - picture[:, 34:].min(axis=-1) > 50).all()


def test_a_target_is_drawn_where_opencv_projects_it():
    target = Target(np.array([2.0, 0.3, 0.2]), np.array([0.0, 0.0, 0.0, 1.0]), np.full(3, 0.05), 0.9, 0.2, 9, np.eye(3))
    T_world_camera = looking_along_x(0.0)
    picture = np.zeros((120, 160, 3), np.uint8)
    draw_target(picture, target, CAMERA, T_world_camera, (255, 255, 255))
    T_camera_world = np.linalg.inv(T_world_camera)
    rotation = cv2.Rodrigues(T_camera_world[:3, :3])[0]
    uv = cv2.projectPoints(target.position[None], rotation, T_camera_world[:3, 3], CAMERA.matrix().numpy(), None)[
        0
    ].reshape(2)
    drawn = np.argwhere(picture.any(axis=-1))[:, ::-1]
    assert drawn.mean(axis=0) == pytest.approx(uv, abs=3.0)


def test_the_best_view_is_close_central_and_not_occluded():
    poses = np.stack([looking_along_x(-4.0), looking_along_x(0.5), looking_along_x(0.5, y=0.4), looking_along_x(3.0)])
    free = np.full((4, 120, 160), np.nan, np.float32)
    position = np.array([2.0, 0.0, 0.0])
    assert best_view(position, CAMERA, poses, free) == 1
    occluded = free.copy()
    occluded[1] = 0.7  # something stands in front
    assert best_view(position, CAMERA, poses, occluded) == 2
    assert best_view(np.array([2.0, 50.0, 0.0]), CAMERA, poses, free) is None


def test_the_map_from_above_is_written(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (500, 3))
    marks = [Mark("mug", points[0], True), Mark("book", points[0], False), Mark("bear", points[1])]
    top_down_map(points, rng.integers(0, 255, (500, 3), np.uint8), marks, tmp_path / "map.png")
    assert cv2.imread(str(tmp_path / "map.png")).std() > 10
