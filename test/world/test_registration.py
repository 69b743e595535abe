import numpy as np
import pytest

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.registration import Registration, estimate_registration

DEPTH_CAMERA = Camera(fx=290.0, fy=290.0, cx=160.0, cy=120.0, width=320, height=240)
COLOUR_CAMERA = Camera(fx=262.0, fy=262.0, cx=163.0, cy=117.0, width=320, height=240)
OFFSET = np.array([-0.03, 0.005, 0.0])


def boards(seed):
    """Upright rectangles (x0, y0, x1, y1, z) in metres before a wall at 3 m, in the depth camera's axes."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform([-1.0, -0.8], [0.7, 0.5], (6, 2))
    return np.column_stack([corners, corners + rng.uniform(0.2, 0.6, (6, 2)), rng.uniform(1.2, 2.5, 6)])


def look(camera, offset, seed):
    """Depth (H, W) and image (H, W, 3) of the boards from a camera whose axes are the depth camera's, moved."""
    v, u = np.mgrid[: camera.height, : camera.width]
    depth_z = np.full(u.shape, 3.0, np.float32)
    image = np.full((*u.shape, 3), 90, np.uint8)
    for number, (x0, y0, x1, y1, z) in enumerate(boards(seed)):
        x, y = (u - camera.cx) / camera.fx * z - offset[0], (v - camera.cy) / camera.fy * z - offset[1]
        hit = (x > x0) & (x < x1) & (y > y0) & (y < y1) & (z < depth_z)
        depth_z[hit], image[hit] = z, 120 + 25 * number
    return image, depth_z


def test_the_colour_camera_is_found_from_the_edges():
    pairs = [(look(COLOUR_CAMERA, OFFSET, seed)[0], look(DEPTH_CAMERA, np.zeros(3), seed)[1]) for seed in range(8)]
    found = estimate_registration(pairs, DEPTH_CAMERA)
    assert found.colour.fx == pytest.approx(262.0, abs=2.0)
    # Principal point and offset are told apart by parallax alone; what counts is where points fall.
    for z in (1.3, 2.4):
        u = found.colour.fx * found.offset[0] / z + found.colour.cx
        v = found.colour.fy * found.offset[1] / z + found.colour.cy
        assert u == pytest.approx(262 * OFFSET[0] / z + 163, abs=1.0)
        assert v == pytest.approx(262 * OFFSET[1] / z + 117, abs=1.0)


def test_registered_depth_is_left_alone():
    pairs = [look(DEPTH_CAMERA, np.zeros(3), seed) for seed in range(8)]
    assert estimate_registration(pairs, DEPTH_CAMERA) is None
    assert estimate_registration([], DEPTH_CAMERA) is None


def test_registering_gives_what_the_colour_camera_would_have_measured():
    registration = Registration(COLOUR_CAMERA, OFFSET)
    registered = registration.register(look(DEPTH_CAMERA, np.zeros(3), 0)[1], DEPTH_CAMERA)
    expected = look(COLOUR_CAMERA, OFFSET, 0)[1]
    known = np.isfinite(registered)
    assert known.mean() > 0.75
    assert np.mean(np.abs(registered - expected)[known] < 1e-3) > 0.98  # one pixel at each edge may differ
    np.testing.assert_allclose(registration.T_depth_colour()[:3, 3], -OFFSET)
