"""What keyframes say about points: those in mid-air, which most keyframes see through, are not asked about."""

import numpy as np
import pytest
import torch

from lerf_ros.mapping.decoding import CropScale
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.observation import observed, scales_per_metre


@pytest.fixture
def store(box):
    """Six keyframes with all crops encoded."""
    store = KeyframeStore(box.config, box.camera, 4, "cpu")
    for frame in box.walk(6):
        store.insert(frame)
    store.valid[:6] = True
    return store


def walls_of(box, store):
    return torch.from_numpy(box.view(store.host_poses[0])[2][::12, ::16].reshape(-1, 3))


def asked(store, points):
    """Which points (N, 3) have a supervised scale."""
    crop_scale, slots = CropScale("physical", store.layout, 3.5), torch.arange(6)[:, None]
    arguments = points, torch.zeros(len(points), 3), *torch.zeros(2, len(points)), slots, slots >= 0
    found = observed(store, scales_per_metre(store, crop_scale), crop_scale, *arguments)
    return found.scale_min <= found.scale_max


def test_a_point_that_more_keyframes_see_through_than_see_has_no_scale(box, store):
    walls = walls_of(box, store)
    camera = torch.from_numpy(store.host_poses[0][:3, 3])
    is_asked = asked(store, torch.cat([walls, 0.5 * (walls + camera)]))
    assert is_asked[: len(walls)].all() and not is_asked[len(walls) :].any()


def test_a_keyframe_that_measured_nothing_says_nothing_about_a_point_in_mid_air(box, store):
    points = 0.5 * (walls_of(box, store) + torch.from_numpy(store.host_poses[0][:3, 3]))
    store.depth_z[1:] = torch.nan
    assert not asked(store, points).any()  # the only one that measured saw through them
    store.depth_z[0] = torch.nan
    assert asked(store, points).all()  # nobody contradicts


def test_the_variance_is_that_of_the_mean_of_what_keyframes_measured(box):
    """Four keyframes look at one wall from the same place and measure it at different depths."""
    store = KeyframeStore(box.config, box.camera, 4, "cpu")
    frame = box.walk(1)[0]
    for _ in range(4):
        store.insert(frame)
    store.valid[:4] = True
    row, column = box.camera.height // 2, box.camera.width // 2
    depth_z = float(frame.depth_z[row, column])
    errors, sigma = np.array([-0.004, 0.001, 0.003, 0.008]), 0.012
    store.depth_z[:4] = torch.from_numpy(depth_z + errors)[:, None, None].to(store.depth_z)
    store.depth_sigma[1:3] = sigma
    measured = store.depth_z[:4, row, column].double().numpy()  # as it is stored
    fx, fy, cx, cy = store.intrinsics[0].double().numpy()
    ray = np.array([(column - cx) / fx, (row - cy) / fy, 1.0])
    x_world = torch.from_numpy(frame.T_world_camera[:3, :3] @ (depth_z * ray) + frame.T_world_camera[:3, 3])[None]
    crop_scale, slots = CropScale("physical", store.layout, 3.5), torch.arange(4)[:, None]
    along, across = torch.full((1,), 0.5), torch.full((1,), 0.002)
    arguments = x_world, torch.zeros(1, 3), along, across, slots, slots >= 0
    found = observed(store, scales_per_metre(store, crop_scale), crop_scale, *arguments)

    length = np.linalg.norm(ray)
    stored = float(store.depth_sigma[1, row, column])
    noise = np.mean([0, stored**2, stored**2, 0]) * length**2
    of_mean = np.var(measured * length) / 4 + noise * (0.1 + 0.9 / 4)  # errors with a correlation of 0.1
    direction = frame.T_world_camera[:3, :3] @ (ray / length)
    expected = (of_mean + 0.002**2) * (np.outer(direction, direction) * 8 / 9 + np.eye(3) / 9)
    np.testing.assert_allclose(found.covariance[0], expected, rtol=2e-3, atol=1e-9)
    moved = np.linalg.norm(found.x_world[0].numpy() - frame.T_world_camera[:3, 3]) / length
    np.testing.assert_allclose(moved, measured.mean(), rtol=1e-6)

    store.depth_z[:4] = torch.nan
    found = observed(store, scales_per_metre(store, crop_scale), crop_scale, *arguments)
    assert torch.linalg.eigvalsh(found.covariance[0])[-1].sqrt().item() == pytest.approx(0.5, rel=1e-4)
