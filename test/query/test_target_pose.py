import numpy as np
import pytest

from lerf_ros.query.target_pose import extent, plane_normal, target_axes

UP = np.array([0.0, 0.0, 1.0])


@pytest.mark.parametrize("normal", [[1.0, 0.0, 0.0], [0.3, -0.8, 0.2], [0.0, 0.0, 1.0], [0.05, 0.0, -1.0]])
def test_axes_are_a_rotation_with_x_along_the_normal(normal):
    axes = target_axes(np.array(normal), np.array([0.0, 1.0, -0.5]), UP)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-12)
    assert np.linalg.det(axes) == pytest.approx(1.0)
    assert axes[:, 0] == pytest.approx(np.array(normal) / np.linalg.norm(normal))


def test_on_a_wall_z_is_map_up():
    assert target_axes(np.array([0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0]), UP)[:, 2] == pytest.approx(UP)


def test_on_a_table_z_leans_away_from_the_viewer():
    axes = target_axes(UP, np.array([0.6, 0.0, -0.8]), UP)
    assert axes[:, 2] == pytest.approx([1.0, 0.0, 0.0])


def test_on_a_table_seen_from_straight_above_there_is_still_a_pose():
    axes = target_axes(UP, -UP, UP)
    assert axes.T @ axes == pytest.approx(np.eye(3), abs=1e-12)


def test_extent_is_measured_along_the_axes_and_ignores_a_stray_point():
    rng = np.random.default_rng(0)
    box = rng.uniform(-0.5, 0.5, (20000, 3)) * [0.4, 0.2, 0.1]
    rotation = target_axes(np.array([1.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.0]), UP)
    points = np.vstack([box @ rotation.T, [[9.0, 9.0, 9.0]]])
    assert extent(points, rotation) == pytest.approx(np.array([0.4, 0.2, 0.1]) * 0.96, rel=0.02)


def test_the_normal_is_that_of_the_plane_and_faces_the_viewer():
    axes = target_axes(np.array([0.3, -0.8, 0.2]), np.array([0.0, 1.0, -0.5]), UP)  # x is the normal
    flat = np.random.default_rng(0).normal(size=(16, 3)) * [0.001, 1.0, 1.0]
    for view in (axes[:, 0] + 0.2 * axes[:, 1], -axes[:, 0]):
        normal = plane_normal(2.0 + flat @ axes.T, view)
        assert abs(normal @ axes[:, 0]) == pytest.approx(1.0, abs=1e-4) and normal @ view < 0
    assert plane_normal(flat[:2], UP) == pytest.approx(-UP)
