"""The Triton kernel that asks keyframes about points of the surface against the torch reference (see
test/kernels.py)."""

import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.mapping.decoding import CropScale
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.observation import observed_torch, scales_per_metre
from test.kernels import DEVICE, needs_kernels, starts_interpreter


@pytest.fixture
def store(box):
    """Two of five keyframes have some crops, one has all."""
    store = KeyframeStore(box.config, box.camera, 4, DEVICE)
    for frame in box.walk(5):
        store.insert(frame)
    store.valid[0], store.valid[2, 1], store.valid[3, 0] = True, True, True
    store.depth_sigma[1:3] = 0.03
    return store


def points(box, count, seed=0):
    """On the walls, most of them not exactly, and some in mid-air."""
    generator = torch.Generator().manual_seed(seed)
    x_world = 2 * torch.rand(count, 3, generator=generator, dtype=torch.float64) - 1
    x_world *= torch.from_numpy(box.half)
    x_world /= (x_world.abs() / torch.from_numpy(box.half)).amax(dim=1, keepdim=True)
    x_world *= 1 + 0.02 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    x_world[::5] *= 0.7
    return x_world.to(DEVICE), normalize(torch.randn(count, 3, generator=generator), dim=1).to(DEVICE)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 6


@needs_kernels
@pytest.mark.parametrize("kind", ["physical", "normalised", "none"])
@pytest.mark.parametrize("own", [False, True])
def test_points_agree(box, store, kind, own):
    from lerf_ros.mapping.observation_triton import observed_triton

    x_world, directions = points(box, 150)
    crop_scale, generator = CropScale(kind, store.layout, 3.5), torch.Generator().manual_seed(1)
    slots = torch.randint(5, (3, 150), generator=generator) if own else torch.arange(5)[:, None]
    known = torch.rand(slots.shape, generator=generator) < 0.8
    slots, known, ranges = slots.to(DEVICE), known.to(DEVICE), scales_per_metre(store, crop_scale)
    found = observed_triton(store, ranges, kind, x_world, directions, slots, known, 0.01, 0.1)
    expected = observed_torch(store, ranges, crop_scale, x_world, directions, slots, known)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, equal_nan=True)
    assert 0 < expected.variance.isnan().float().mean() < 1
    moved = (expected.x_world != x_world).any(dim=1).float().mean()
    assert 0.05 < moved < 0.95 and len(expected.views.unique()) > 1
    assert 0 < (expected.scale_min <= expected.scale_max).float().mean() < 1
