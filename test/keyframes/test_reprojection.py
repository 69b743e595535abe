import numpy as np
import pytest

from lerf_ros.keyframes.levenberg_marquardt import LevenbergMarquardt, PosePrior, moved_cameras
from lerf_ros.keyframes.reprojection import (
    Cameras,
    reduced_system,
    refined_points,
    reprojection_errors,
    reprojection_jacobians,
    triangulate,
)
from test.keyframes.conftest import pose_errors, rigidly_aligned, with_noise


def test_triangulated_points_are_where_they_were_projected_from(scene):
    points = triangulate(scene.tracks, scene.cameras)
    ahead = np.c_[points.unknowns[:, :2], np.ones(len(points.unknowns))] / points.unknowns[:, 2:]
    x_world = points.origins + np.einsum("pij,pj->pi", points.axes, ahead)
    np.testing.assert_allclose(x_world, scene.x_world, atol=1e-9)
    np.testing.assert_allclose(reprojection_errors(scene.tracks, scene.cameras, points), 0.0, atol=1e-8)


def test_jacobians_are_finite_differences(scene):
    tracks = scene.tracks
    cameras = scene.cameras._replace(T_world_camera=with_noise(scene.cameras.T_world_camera, 0.02, 1.0), log_focal=0.01)
    points = triangulate(tracks, cameras)
    of_camera, of_point = reprojection_jacobians(tracks, cameras, points)
    h, unknowns = 1e-6, 6 * len(cameras.T_world_camera) + 1
    for k in range(7):
        step = np.zeros(unknowns)
        step[slice(k, -1, 6) if k < 6 else -1] = h
        plus, minus = (reprojection_errors(tracks, moved_cameras(cameras, s), points) for s in (step, -step))
        np.testing.assert_allclose(of_camera[..., k], (plus - minus) / (2 * h), atol=1e-4)
    for k in range(3):
        step = h * np.eye(3)[k]
        plus, minus = (
            reprojection_errors(tracks, cameras, points._replace(unknowns=points.unknowns + s)) for s in (step, -step)
        )
        np.testing.assert_allclose(of_point[..., k], (plus - minus) / (2 * h), atol=1e-4)


def test_the_reduced_system_is_the_schur_complement_of_the_full_one(scene):
    tracks = scene.tracks.subset(scene.tracks.track < 20)
    cameras = scene.cameras._replace(T_world_camera=with_noise(scene.cameras.T_world_camera, 0.002, 0.1))
    points, sigma = triangulate(tracks, cameras), 5.0
    errors = reprojection_errors(tracks, cameras, points)
    of_camera, of_point = reprojection_jacobians(tracks, cameras, points)
    size, count = 6 * len(cameras.T_world_camera) + 1, len(tracks.lengths)
    J = np.zeros((len(errors), 2, size + 3 * count))
    for o, (i, p) in enumerate(zip(tracks.image, tracks.track)):
        J[o, :, 6 * i : 6 * i + 6], J[o, :, size - 1] = of_camera[o, :, :6], of_camera[o, :, 6]
        J[o, :, size + 3 * p : size + 3 * p + 3] = of_point[o]
    weights = 1 / sigma**2 / (1 + (errors**2).sum(axis=1) / sigma**2 / 9.21) ** 2
    H = np.einsum("oka,o,okb->ab", J, weights, J)
    g = np.einsum("oka,o,ok->a", J, weights, errors)
    depths = size + 2 + 3 * np.arange(count)
    H[depths, depths] += 0.04  # the weak prior of inverse depths
    g[depths] += 0.04 * points.unknowns[:, 2]
    eliminate = H[:size, size:] @ np.linalg.inv(H[size:, size:])
    system = reduced_system(tracks, cameras, points, sigma, 0.0)
    expected = H[:size, :size] - eliminate @ H[size:, :size]
    np.testing.assert_allclose(system.hessian, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(system.gradient, g[:size] - eliminate @ g[size:], atol=1e-6 * np.abs(g).max())


@pytest.mark.parametrize("log_focal", [0.0, 0.05])
def test_poses_are_recovered_up_to_the_gauge(scene, log_focal):
    truth = scene.cameras.T_world_camera
    given = with_noise(truth, 0.02, 1.0)
    focal = 0.98 if log_focal else 1.0
    start = Cameras(given, scene.cameras.intrinsics * [focal, focal, 1.0, 1.0], 0.0)
    solver = LevenbergMarquardt(scene.tracks, start, PosePrior(given, 0.03, 0.03, log_focal))
    while not solver.step():
        pass
    poses = solver.cameras.T_world_camera
    shift, angle = pose_errors(rigidly_aligned(poses, truth), truth)
    assert angle.max() < 0.05 and shift.max() < 0.01  # the scale is left to the prior
    # The frame of the given poses is kept: corrections have mean zero.
    correction = np.einsum("nji,nj->ni", poses[:, :3, :3], (poses - given)[:, :3, 3])
    assert np.linalg.norm((poses - given)[:, :3, 3].mean(axis=0)) < 1e-3 and np.abs(correction).max() > 0.01
    assert solver.cameras.log_focal == pytest.approx(-np.log(0.98) if log_focal else 0.0, abs=2e-3)


def test_refined_points_never_fit_worse(scene):
    cameras = scene.cameras._replace(T_world_camera=with_noise(scene.cameras.T_world_camera, 0.01, 0.5))
    points = triangulate(scene.tracks, cameras)
    before = (reprojection_errors(scene.tracks, cameras, points) ** 2).sum()
    after = (reprojection_errors(scene.tracks, cameras, refined_points(scene.tracks, cameras, points, 10.0)) ** 2).sum()
    assert after <= before
