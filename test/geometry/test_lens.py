"""Straightened pictures against OpenCV's own functions, and against points that were drawn where the lens sees them."""

import cv2
import numpy as np
import pytest
import torch

from lerf_ros.geometry.camera import Camera, project
from lerf_ros.geometry.lens import Lens, Rectification

CAMERA = Camera(fx=300.0, fy=296.0, cx=161.0, cy=117.5, width=320, height=240)
LENSES = {
    "plumb bob": Lens(CAMERA, (-0.28, 0.09, 0.001, -0.0008, -0.012)),
    "pincushion": Lens(CAMERA, (0.2, 0.1, 0.002, 0.001)),
    "rational": Lens(CAMERA, (0.9, 0.4, -0.0004, 0.0003, 0.05, 1.2, 0.6, 0.1)),
    "thin prism": Lens(CAMERA, (-0.2, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.004, -0.002, 0.003, 0.001)),
    "fisheye": Lens(CAMERA, (-0.03, 0.01, -0.004, 0.001), fisheye=True),
}
each_lens = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)


def bent(points, lens):
    """Pixels (N, 2) where OpenCV says that the lens draws points (N, 3) in optical axes."""
    function = cv2.fisheye.projectPoints if lens.fisheye else cv2.projectPoints
    nothing, K, distortion = np.zeros(3), CAMERA.matrix().numpy(), np.array(lens.distortion)
    if lens.fisheye:
        return function(points[:, None], nothing, nothing, K, distortion)[0][:, 0]
    return function(points, nothing, nothing, K, distortion)[0][:, 0]


def drawn(pixels, height=240, width=320):
    """A picture with a soft dot at each of the pixels (N, 2)."""
    v, u = np.mgrid[:height, :width]
    distances = np.hypot(u[..., None] - pixels[:, 0], v[..., None] - pixels[:, 1]).min(axis=-1)
    return np.repeat(np.round(255 * np.exp(-0.5 * (distances / 1.5) ** 2))[..., None], 3, axis=-1).astype(np.uint8)


def centroid(picture, uv, radius=5):
    """Of what is bright around a pixel."""
    u, v = np.round(uv).astype(int)
    v, u = np.mgrid[v - radius : v + radius + 1, u - radius : u + radius + 1]
    weights = picture[v, u, 0].astype(float)
    return np.array([(weights * u).sum(), (weights * v).sum()]) / weights.sum()


@each_lens
def test_points_lie_where_the_pinhole_says(lens):
    rectification = Rectification(lens)
    camera = rectification.camera
    v, u = np.mgrid[20:230:50, 20:310:55]
    depth_z = np.random.default_rng(0).uniform(1.0, 4.0, u.size)
    x, y = (u.ravel() - camera.cx) / camera.fx, (v.ravel() - camera.cy) / camera.fy
    points = np.stack([x, y, np.ones_like(x)], axis=-1) * depth_z[:, None]
    straight = rectification.colour(drawn(bent(points, lens)))
    expected, _ = project(torch.from_numpy(points), camera)
    found = np.array([centroid(straight, uv) for uv in expected.numpy()])
    assert np.abs(found - expected.numpy()).max() < 0.1


@each_lens
def test_colours_are_those_of_opencvs_own_undistortion(lens):
    picture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8), (0, 0), 2)
    rectification = Rectification(lens)
    K, new_K = CAMERA.matrix().numpy(), rectification.camera.matrix().numpy()
    distortion = np.array(lens.distortion)
    if lens.fisheye:
        expected = cv2.fisheye.undistortImage(picture, K, distortion, Knew=new_K, new_size=(320, 240))
    else:
        expected = cv2.undistort(picture, K, distortion, newCameraMatrix=new_K)
    inside = slice(1, -1), slice(1, -1)  # at the rim, OpenCV mixes in black
    assert np.abs(rectification.colour(picture)[inside].astype(int) - expected[inside]).max() <= 1


@each_lens
def test_the_pinhole_sees_nothing_outside_the_picture_and_touches_all_edges(lens):
    camera = Rectification(lens).camera
    v, u = np.mgrid[: camera.height, : camera.width]
    x, y = (u.ravel() - camera.cx) / camera.fx, (v.ravel() - camera.cy) / camera.fy
    pixels = bent(np.stack([x, y, np.ones_like(x)], axis=-1), lens)
    lowest, highest = pixels.min(axis=0), pixels.max(axis=0)
    assert (lowest > -0.05).all() and (highest < np.array([319.05, 239.05])).all()
    assert (lowest < 1.0).all() and (highest > np.array([318.0, 238.0])).all()


@each_lens
@pytest.mark.parametrize("share", [1, 2])
def test_depth_keeps_its_values_at_any_resolution(lens, share):
    """A slanted plane n . x = 2, as the lens sees it."""
    normal = np.array([0.2, -0.1, 1.0])
    height, width = 240 // share, 320 // share
    v, u = np.mgrid[:height, :width]
    raw = np.stack([(u + 0.5) * share - 0.5, (v + 0.5) * share - 0.5], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    K, distortion = CAMERA.matrix().numpy(), np.array(lens.distortion)
    undistort = cv2.fisheye.undistortPoints if lens.fisheye else cv2.undistortPoints
    ideal = undistort(raw, K, distortion)[:, 0]
    for _ in range(0 if lens.fisheye else 60):  # OpenCV stops after five rounds
        ideal += (raw[:, 0] - bent(np.insert(ideal, 2, 1.0, axis=1), lens)) / (300.0, 296.0)
    depth_z = (2.0 / (ideal @ normal[:2] + normal[2])).reshape(height, width).astype(np.float32)
    rectification = Rectification(lens)
    depth_z[: height // 2] = np.nan
    straight = rectification.depth(depth_z)
    camera = rectification.camera
    v, u = np.mgrid[: camera.height, : camera.width]
    expected = 2.0 / (0.2 * (u - camera.cx) / camera.fx - 0.1 * (v - camera.cy) / camera.fy + 1.0)
    measured = np.isfinite(straight)
    # half a pixel of the depth picture away at most, diagonally, with what straightening stretches
    slope = np.hypot(*np.gradient(expected)).max()
    assert np.abs(straight - expected)[measured].max() < 1.5 * share * slope
    assert np.isin(straight[measured], depth_z).all()  # never a mixture
    assert 0.45 < measured.mean() < 0.55 and measured[130:].all() and not measured[:110].any()


def test_without_distortion_nothing_is_touched():
    rectification = Rectification(Lens(CAMERA, (0.0,) * 5))
    image, depth_z = np.zeros((240, 320, 3), np.uint8), np.ones((240, 320), np.float32)
    assert rectification.colour(image) is image and rectification.depth(depth_z) is depth_z
    assert rectification.camera == CAMERA


def test_smaller_depth_without_distortion_is_spread_evenly():
    depth_z = np.random.default_rng(2).uniform(1, 2, (120, 160)).astype(np.float32)
    spread = Rectification(Lens(CAMERA)).depth(depth_z)
    np.testing.assert_array_equal(spread, np.repeat(np.repeat(depth_z, 2, axis=0), 2, axis=1))


def test_a_fisheye_is_cut_before_60_degrees():
    wide = Lens(Camera(100.0, 100.0, 159.5, 119.5, 320, 240), (0.0,) * 4, fisheye=True)  # 91 degrees off the axis
    camera = wide.pinhole()
    x, y = (camera.width - 1 - camera.cx) / camera.fx, (camera.height - 1 - camera.cy) / camera.fy
    assert 50.0 < np.degrees(np.arctan(x)) <= 60.0 and 40.0 < np.degrees(np.arctan(y)) <= 60.0


@pytest.mark.parametrize(
    "lens",
    [Lens(CAMERA, (-1.5, 0.0, 0.0, 0.0)), Lens(CAMERA, (-0.9, 0.0, 0.0, 0.0), fisheye=True)],
)
def test_coefficients_that_fold_the_picture_are_refused(lens):
    with pytest.raises(ValueError, match="fold the picture"):
        Rectification(lens)


@pytest.mark.parametrize(("distortion", "fisheye"), [((0.1,), False), ((0.1,) * 5, True), ((float("nan"),) * 4, False)])
def test_impossible_coefficients(distortion, fisheye):
    with pytest.raises(ValueError, match="coefficients"):
        Lens(CAMERA, distortion, fisheye)
