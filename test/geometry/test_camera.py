import cv2
import numpy as np
import pytest
import torch

from lerf_ros.geometry.camera import Camera, directions_from_uv, project

CAMERA = Camera(fx=585.0, fy=560.0, cx=319.5, cy=241.0, width=640, height=480)


def test_projection_agrees_with_opencv():
    points = np.random.default_rng(0).uniform([-2, -2, 0.5], [2, 2, 6], (50, 3))
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), CAMERA.matrix().numpy(), None)
    uv, depth_z = project(torch.from_numpy(points), CAMERA)
    np.testing.assert_allclose(uv.numpy(), expected[:, 0], atol=1e-9)
    np.testing.assert_array_equal(depth_z.numpy(), points[:, 2])


def test_ray_through_a_pixel_hits_the_point_it_shows():
    points = torch.from_numpy(np.random.default_rng(1).uniform([-2, -2, 0.5], [2, 2, 6], (50, 3)))
    uv, depth_z = project(points, CAMERA)
    directions, z_per_t = directions_from_uv(uv, CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(directions * (depth_z / z_per_t)[:, None], points)


def test_rays_of_several_cameras_in_one_batch():
    uv = torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    fx, cx = torch.tensor([100.0, 200.0]), torch.tensor([10.0, 20.0])
    batch, _ = directions_from_uv(uv, fx, fx, cx, cx)
    for i in range(2):
        single, _ = directions_from_uv(uv[i : i + 1], fx[i].item(), fx[i].item(), cx[i].item(), cx[i].item())
        torch.testing.assert_close(batch[i], single[0])


def test_points_behind_the_camera_have_no_pixel():
    uv, depth_z = project(torch.tensor([[0.1, 0.2, -1.0]]), CAMERA)
    assert uv.isnan().all() and depth_z.item() == -1.0


def test_scaled_camera_keeps_the_image_edges():
    half = CAMERA.scaled(0.5)
    assert (half.width, half.height) == (320, 240)
    corners = torch.tensor([[-0.5, -0.5], [639.5, 479.5]], dtype=torch.float64)
    corners_half = torch.tensor([[-0.5, -0.5], [319.5, 239.5]], dtype=torch.float64)
    full, _ = directions_from_uv(corners, CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    scaled, _ = directions_from_uv(corners_half, half.fx, half.fy, half.cx, half.cy)
    torch.testing.assert_close(full, scaled)


def test_pixel_grid_is_row_major():
    grid = Camera(1.0, 1.0, 0.0, 0.0, width=3, height=2).pixel_grid()
    assert grid.tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"fx": 0.0}, "positive"), ({"fy": -5.0}, "positive"), ({"cx": float("nan")}, "finite"), ({"width": 0}, "pixel")],
)
def test_bad_intrinsics_are_refused(change, message):
    values = {"fx": 500.0, "fy": 500.0, "cx": 320.0, "cy": 240.0, "width": 640, "height": 480}
    with pytest.raises(ValueError, match=message):
        Camera(**(values | change))


def test_cropped_camera_sees_the_window():
    window = CAMERA.cropped(100, 40, 320, 200)
    points = torch.from_numpy(np.random.default_rng(2).uniform([-1, -1, 1], [1, 1, 4], (20, 3)))
    whole, _ = project(points, CAMERA)
    uv, _ = project(points, window)
    torch.testing.assert_close(uv, whole - torch.tensor([100.0, 40.0]).double())
    assert (window.width, window.height) == (320, 200)
