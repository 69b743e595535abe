"""The Triton kernel that finds points in keyframes against the torch reference (see test/kernels.py)."""

import numpy as np
import pytest
import torch

from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import seen_by, seen_by_torch
from test.kernels import DEVICE, needs_kernels, starts_interpreter


@pytest.fixture
def store(box):
    store = KeyframeStore(box.config, box.camera, 0, DEVICE)
    for frame in box.walk(4):
        store.insert(frame)
    return store


def points(count, seed=0):
    """Inside the room, on its walls, beyond them, and one that is not there."""
    generator = torch.Generator().manual_seed(seed)
    x_world = 6.0 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 3.0
    half = torch.tensor([2.0, 1.5, 2.0], dtype=torch.float64)
    x_world[::2] /= (x_world[::2].abs() / half).amax(dim=1, keepdim=True)
    x_world[-1] = torch.nan
    return x_world.to(DEVICE)


def assert_agrees(store, slots, x_world):
    from lerf_ros.mapping import sight
    from lerf_ros.mapping.sight_triton import seen_by_triton

    found = seen_by_triton(store, slots, x_world, sight.NEAREST, sight.VISIBLE_WITHIN, sight.VISIBLE_SIGMAS)
    expected = seen_by_torch(store, slots, x_world)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-6, equal_nan=True)
    return expected


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 6


@needs_kernels
def test_keyframes_that_are_asked_about_all_points(store):
    sight = assert_agrees(store, torch.tensor([[0], [3], [1]], device=DEVICE), points(300))
    assert sight.sees.sum() > 20 and (sight.sees != sight.inside).any() and not sight.sees[:, -1].any()


@needs_kernels
def test_keyframes_of_each_point_s_own(store):
    slots = torch.randint(4, (2, 130), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    assert_agrees(store, slots, points(130))
    assert_agrees(store, slots.T.contiguous().T, points(130))


@needs_kernels
def test_pixels_that_were_not_measured_are_seen(store):
    store.depth_z[0] = torch.nan
    sight = assert_agrees(store, torch.tensor([[0]], device=DEVICE), points(100))
    assert torch.equal(sight.sees, sight.inside) and sight.sees.any()


@needs_kernels
def test_between_two_pixels_both_take_the_even_one(store):
    store.poses[0] = torch.eye(4)
    store.depth_z[0] = torch.arange(64, device=DEVICE)  # metres: the column
    u = torch.tensor([20.5, 21.5, 33.5, 34.5], device=DEVICE, dtype=torch.float64)
    x_world = torch.stack([(u - 31.5) / 40.0, torch.zeros_like(u), torch.ones_like(u)], dim=1)
    sight = assert_agrees(store, torch.tensor([[0]], device=DEVICE), x_world)
    assert sight.measured_z[0].tolist() == [20.0, 22.0, 34.0, 34.0]


@needs_kernels
def test_points_within_three_standard_deviations_of_stereo_depth_are_visible(store):
    store.poses[0] = torch.eye(4)
    store.depth_z[0] = 2.0
    store.depth_sigma[0, :, :32], store.depth_sigma[0, :, 32:] = 0.0625, 0.0
    z = torch.tensor([1.74, 1.72, 2.30, 2.32, 1.92, 1.88], device=DEVICE, dtype=torch.float64)
    left, right = (torch.stack([u * z, torch.zeros_like(z), z], dim=1) for u in (-0.25, 0.25))
    sight = assert_agrees(store, torch.tensor([[0]], device=DEVICE), torch.cat([left, right]))
    # 3 x 0.0625 m beyond 5 % of the point's depth; without a standard deviation, only these 5 %
    assert sight.sees[0].tolist() == [True, False, True, False, True, True, False, False, False, False, True, False]


@needs_kernels
def test_no_points(store):
    assert_agrees(store, torch.tensor([[0], [1]], device=DEVICE), points(1)[:0])


def test_without_kernels_the_reference_answers(box):
    store = KeyframeStore(box.config, box.camera, 0, "cpu")
    for frame in box.walk(2):
        store.insert(frame)
    x_world = torch.from_numpy(box.view(store.host_poses[1])[2][::7, ::9].reshape(-1, 3))
    sight = seen_by(store, torch.tensor([[1]]), x_world)
    v, u = np.mgrid[:48:7, :64:9]
    np.testing.assert_allclose(sight.uv[0], np.stack([u, v], axis=-1).reshape(-1, 2), atol=1e-3)
    assert sight.sees.all()
