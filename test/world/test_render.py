import numpy as np
import pytest

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.materials import PATTERNS, Material, paint, pattern_mix
from lerf_ros.world.parts import PARTS
from lerf_ros.world.poses import look_at
from lerf_ros.world.render import NOTHING, Scene
from lerf_ros.world.sensor import FARTHEST, expose, measure_depth
from lerf_ros.world.shapes import Shape, cuboid, ellipsoid

CAMERA = Camera(100.0, 110.0, 39.5, 29.5, 80, 60)
LIGHTS = np.array([[0.0, 0.0, 3.0]])


def _rays() -> np.ndarray:
    u, v = np.meshgrid(np.arange(80), np.arange(60))
    return np.stack([(u - 39.5) / 100, (v - 29.5) / 110, np.ones((60, 80))], axis=-1)


def test_depth_of_a_plane_is_the_closed_form():
    scene = Scene([(5, Shape().add(cuboid((100, 100, 2)), paint("grey"), at=(0, 0, -1)), np.eye(4))], LIGHTS)
    pose = look_at(np.array([0.3, -0.2, 1.5]), np.array([2.0, 1.0, 0.0]), roll=0.2)
    down = (_rays() @ pose[:3, :3].T)[..., 2]
    expected = np.where(down < 0, 1.5 / -down, np.nan)  # z of the ray (x, y, 1) where it reaches the floor
    near = expected < 30
    view = scene.view(CAMERA, pose)
    np.testing.assert_allclose(view.depth_z[near], expected[near], rtol=2e-5)
    assert (view.instance[near] == 5).all()
    depth, instance = scene.masks(CAMERA, pose)
    np.testing.assert_array_equal(depth, view.depth_z)
    np.testing.assert_array_equal(instance, view.instance)


def test_a_box_covers_the_pixels_that_pinhole_projection_says():
    scene = Scene([(1, Shape().add(cuboid((0.2, 1.0, 0.5)), paint("red")), np.eye(4))], LIGHTS)
    view = scene.view(CAMERA, look_at(np.array([3.1, 0, 0]), np.zeros(3)))  # its front face is 3 m away
    assert (view.instance[30] == 1).sum() == pytest.approx(100 * 1.0 / 3, abs=1)
    assert (view.instance[:, 40] == 1).sum() == pytest.approx(110 * 0.5 / 3, abs=1)
    np.testing.assert_allclose(view.depth_z[view.instance == 1], 3.0, rtol=1e-5)
    assert np.isnan(view.depth_z[view.instance == NOTHING]).all()
    red = view.image[view.instance == 1].mean(axis=0)
    assert red[0] > 2 * red[1] and red[0] > 2 * red[2]


def test_depth_and_incidence_of_a_sphere():
    scene = Scene([(1, Shape().add(ellipsoid((1, 1, 1), 200), paint("blue")), np.eye(4))], LIGHTS)
    view = scene.view(CAMERA, look_at(np.array([4.0, 0, 0]), np.zeros(3)))
    rays = _rays()
    squared = (rays**2).sum(axis=-1)
    root = 16 - squared * 15  # |t r - (0, 0, 4)|^2 = 1
    hit = root > 0.5
    t = (4 - np.sqrt(np.maximum(root, 0))) / squared
    np.testing.assert_allclose(view.depth_z[hit], t[hit], atol=2e-3)
    normal = rays * t[..., None] - [0, 0, 4]
    cosine = -(normal * rays).sum(axis=-1) / np.sqrt(squared)
    np.testing.assert_allclose(view.incidence[hit], cosine[hit], atol=0.02)


def test_points_seen_lie_in_the_boxes_of_what_they_belong_to(room):
    pose, camera = room.trajectory[20], room.camera
    view = room.truth_view(20)
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    x_camera = (
        np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], -1)
        * view.depth_z[..., None]
    )
    x_world = x_camera @ pose[:3, :3].T + pose[:3, 3]
    checked = 0
    for instance in np.unique(view.instance):
        thing, here = room.things[int(instance)], view.instance == instance
        assert thing.box.contains(x_world[here], 1e-3).all()
        for part in np.unique(view.part[here]):
            if part:
                assert thing.parts[PARTS[part - 1]].contains(x_world[here & (view.part == part)], 1e-3).all()
                checked += 1
    assert checked > 3 and (view.instance != NOTHING).all()


def test_every_pattern_is_finite_and_bounded():
    x = np.random.default_rng(0).uniform(-3, 3, (1000, 3)).astype(np.float32)
    normals = x / np.linalg.norm(x, axis=1, keepdims=True)
    for pattern in PATTERNS:
        mix, brightness = pattern_mix(pattern, x, normals, np.full(1000, 0.1, np.float32))
        assert mix.shape == brightness.shape == (1000,)
        assert ((mix >= 0) & (mix <= 1)).all() and ((brightness > 0.4) & (brightness < 1.6)).all(), pattern
    with pytest.raises(ValueError, match="unknown pattern"):
        pattern_mix("tartan", x, normals, x[:, 0])


def test_the_sensor_is_noisy_as_stated_and_blind_beyond_its_range():
    wall = Scene([(1, Shape().add(cuboid((0.2, 50, 50)), Material((0.5, 0.5, 0.5))), np.eye(4))], LIGHTS)
    rng = np.random.default_rng(0)
    for distance in (1.0, 3.0):
        view = wall.view(CAMERA, look_at(np.array([distance + 0.1, 0, 0]), np.zeros(3)))
        error = measure_depth(view, rng) - view.depth_z
        assert np.isfinite(error).mean() > 0.97
        assert np.nanstd(error) == pytest.approx(0.0012 + 0.0019 * (distance - 0.4) ** 2, rel=0.1)
        assert np.std(expose(view.image, rng).astype(float) - view.image) == pytest.approx(2.0, rel=0.1)
    far = wall.view(CAMERA, look_at(np.array([FARTHEST + 0.5, 0, 0]), np.zeros(3)))
    assert np.isnan(measure_depth(far, rng)).all()


def test_the_sensor_loses_pixels_at_edges_and_at_grazing_angles():
    floor = Shape().add(cuboid((40, 40, 2)), paint("grey"), at=(0, 0, -1))
    block = Shape().add(cuboid((0.4, 0.4, 0.8)), paint("red"), at=(0, 0, 0.4))
    scene = Scene([(0, floor, np.eye(4)), (1, block, np.eye(4))], LIGHTS)
    view = scene.view(CAMERA, look_at(np.array([1.5, 0, 0.9]), np.array([0, 0, 0.5])))
    lost = np.isnan(measure_depth(view, np.random.default_rng(0))) & (view.depth_z < FARTHEST - 0.3)
    rim = np.zeros_like(lost)
    rim[:, 1:] |= np.abs(np.diff(view.depth_z, axis=1)) > 0.3
    assert lost[rim].mean() > 0.4
    assert lost[view.instance == 1].mean() < 0.2
    low = scene.view(CAMERA, look_at(np.array([-0.5, 0, 0.2]), np.array([-4.0, 0, 0.05])))
    grazing = (low.incidence < 0.08) & (low.depth_z < FARTHEST - 0.3)
    assert grazing.any() and np.isnan(measure_depth(low, np.random.default_rng(0)))[grazing].mean() > 0.4
