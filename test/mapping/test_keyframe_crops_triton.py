"""What was measured in the middle of crops: the Triton kernel and the torch reference against a loop (see
test/kernels.py)."""

import numpy as np
import torch

from lerf_ros.mapping.keyframe_crops import KeyframeCrops
from lerf_ros.mapping.keyframes import KeyframeStore
from test.kernels import DEVICE, needs_kernels, starts_interpreter


def store_of(box, device):
    """Three keyframes, a fifth of whose pixels was not measured. Crops of 8, 10 and 24 px: those of 8 have middles
    beyond the border, those of 10 half way between pixels of which now the left, now the right one is even."""
    sizes = {"pyramid.fractions": [8 / 48, 10 / 48, 0.5], "pyramid.strides": [1.0, 0.5, 0.5]}
    store, rng = KeyframeStore(box.config.override(sizes), box.camera, 4, device), np.random.default_rng(0)
    for frame in box.walk(3):
        frame.depth_z[rng.random(frame.depth_z.shape) < 0.2] = np.nan
        store.insert(frame)
    return store


def by_hand(store):
    """x_world (M, 3) and sizes (M,) of all crops."""
    depths, places, sizes = store.depth_z.float().cpu().numpy(), [], []
    for slot, T in enumerate(store.host_poses):
        for number, level in enumerate(store.layout.levels):
            for centre in store.layout.centres(number).numpy():
                u, v = np.clip(centre, 0, [store.camera.width - 1, store.camera.height - 1]).round().astype(int)
                z = float(depths[slot, v, u])
                x = (u - store.camera.cx) / store.camera.fx * z, (v - store.camera.cy) / store.camera.fy * z, z
                places.append(T[:3, :3] @ x + T[:3, 3])
                sizes.append(level.crop_px * z / store.camera.fy)
    return np.array(places), np.array(sizes)


def assert_agree(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float64 and 0.1 < np.isnan(other).mean() < 0.4
        np.testing.assert_allclose(one.cpu(), other, rtol=1e-6, atol=1e-9)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 3


def test_the_reference_agrees(box):
    store = store_of(box, "cpu")
    expected = by_hand(store)
    assert_agree(KeyframeCrops(store).middles_torch(torch.arange(len(expected[1]))), expected)


@needs_kernels
def test_the_kernel_agrees(box):
    from lerf_ros.mapping.keyframe_crops_triton import middles_triton

    store = store_of(box, DEVICE)
    expected = by_hand(store)
    order = np.random.default_rng(1).permutation(len(expected[1]))
    found = middles_triton(store, torch.from_numpy(order).to(DEVICE))
    assert_agree(found, [each[order] for each in expected])


@needs_kernels
def test_no_crops(box):
    from lerf_ros.mapping.keyframe_crops_triton import middles_triton

    x_world, sizes = middles_triton(store_of(box, DEVICE), torch.zeros(0, dtype=torch.int64, device=DEVICE))
    assert x_world.shape == (0, 3) and sizes.shape == (0,)
