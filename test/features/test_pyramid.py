from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from lerf_ros.features.pyramid import PyramidLayout, lerf_stride

LAYOUT = PyramidLayout.build(480, 640)


def test_lerf_defaults_give_1148_crops_in_seven_levels():
    assert [level.crop_px for level in LAYOUT.levels] == [24, 60, 96, 132, 168, 204, 240]
    assert [level.count for level in LAYOUT.levels] == [567, 234, 154, 80, 48, 35, 30]
    assert LAYOUT.total == 1148


def test_strides_are_lerfs():
    assert [lerf_stride(f) for f in (0.05, 0.125, 0.2, 0.5)] == pytest.approx([1.0, 0.625, 0.5, 0.5])


def test_levels_are_contiguous_and_their_crops_start_inside_the_mirrored_border():
    offset = 0
    for number, level in enumerate(LAYOUT.levels):
        assert level.offset == offset
        offset += level.count
        centres = LAYOUT.centres(number)
        assert len(centres) == level.count
        assert centres.amin() >= -0.5
        assert centres[:, 0].max() <= 640 and centres[:, 1].max() <= 480
        assert 640 - centres[:, 0].max() < level.stride + 1 and 480 - centres[:, 1].max() < level.stride + 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"height": 0, "width": 640},
        {"height": 480, "width": 640, "fractions": ()},
        {"height": 480, "width": 640, "fractions": (0.5, 0.1)},
        {"height": 480, "width": 640, "fractions": (0.1, 1.1)},
        {"height": 480, "width": 640, "fractions": (0.1, 0.2), "strides": (0.5,)},
        {"height": 480, "width": 640, "fractions": (0.1,), "strides": (0.0,)},
        {"height": 480, "width": 100, "fractions": (0.5,)},
        {"height": 8, "width": 8, "fractions": (0.05,)},
    ],
)
def test_impossible_layouts_are_refused(arguments):
    with pytest.raises(ValueError):
        PyramidLayout.build(**arguments)


def test_crops_are_the_windows_around_their_centres_as_opencv_cuts_and_shrinks_them():
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.random((120, 160, 3), dtype=np.float32), (0, 0), 3)
    layout = PyramidLayout.build(120, 160, fractions=(0.1, 0.4), strides=(1.0, 0.5))
    bordered = cv2.copyMakeBorder(image, 60, 60, 60, 60, cv2.BORDER_REFLECT_101)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for number, level in enumerate(layout.levels):
        some = torch.arange(3, level.count - 1).flip(0)
        crops = layout.crops(tensor, number, some)
        small = layout.crops(tensor, number, some, size=level.crop_px // 4)
        centres = layout.centres(number)[some]
        assert len(crops) == len(centres)
        for crop, shrunk, (u, v) in zip(crops, small, centres.numpy()):
            left, top = (round(float(c - (level.crop_px - 1) / 2)) + 60 for c in (u, v))
            expected = bordered[top : top + level.crop_px, left : left + level.crop_px]
            np.testing.assert_allclose(crop.permute(1, 2, 0).numpy(), expected, atol=1e-6)
            area = cv2.resize(expected, (level.crop_px // 4,) * 2, interpolation=cv2.INTER_AREA)
            np.testing.assert_allclose(shrunk.permute(1, 2, 0).numpy(), area, atol=0.03)


def test_crops_around_pixels_are_those_that_are_read_there():
    uv = torch.tensor([[0.0, 0.0], [13.7, 41.2], [159.0, 119.0], [80.0, 60.0]])
    layout = PyramidLayout.build(120, 160, fractions=(0.1, 0.4), strides=(0.4, 0.25))
    corners = layout.corners(uv)
    pyramid = torch.full((1, layout.total, 2), torch.nan)
    pyramid[0, corners.crops.flatten()] = 1.0
    valid, slots = torch.ones(1, 2, dtype=torch.bool), torch.zeros(len(uv), dtype=torch.int64)
    read = layout.interpolate(pyramid, valid, slots, uv, torch.full((len(uv),), 20.0))
    assert torch.isfinite(read).all() and torch.isfinite(layout.at_levels(pyramid, slots, corners)).all()
    for number, level in enumerate(layout.levels):
        crops = corners.crops[:, number] - level.offset
        assert ((crops >= 0) & (crops < level.count)).all()
        assert ((layout.centres(number)[crops] - uv[:, None]).abs() <= level.stride).all()


def test_between_the_crops_of_single_levels_reads_as_scipy_does():
    uv = torch.tensor([[-3.0, 0.0], [13.7, 41.2], [159.0, 119.0], [80.0, 60.0]])
    layout = PyramidLayout.build(120, 160, fractions=(0.1, 0.4), strides=(0.4, 0.25))
    pyramids = torch.randn(3, layout.total, 5, generator=torch.Generator().manual_seed(0))
    slots, valid = torch.tensor([2, 0, 1, 2]), torch.ones(3, 2, dtype=torch.bool)
    read = layout.at_levels(pyramids, slots, layout.corners(uv))
    for level, size in enumerate(layout.sizes.tolist()):
        own = np.arange(2) == level
        for i, slot in enumerate(slots):
            expected = reference(layout, pyramids[slot].double().numpy(), own, uv[i].numpy(), size)
            np.testing.assert_allclose(read[i, level], expected, atol=1e-5)
        interpolated = layout.interpolate(pyramids, valid, slots, uv, torch.full((len(uv),), float(size)))
        torch.testing.assert_close(read[:, level], interpolated)


def test_crops_of_another_image_size_are_refused():
    with pytest.raises(ValueError, match="480, 640"):
        LAYOUT.crops(torch.zeros(3, 240, 320), 0)


def reference(layout, pyramid, valid, uv, crop_px):
    """The same interpolation by SciPy: one regular grid per level, then linear between levels."""
    per_level = {}
    for number, level in enumerate(layout.levels):
        if valid[number]:
            rows = level.first_centre + level.stride * np.arange(level.rows)
            columns = level.first_centre + level.stride * np.arange(level.columns)
            values = pyramid[level.offset : level.offset + level.count].reshape(level.rows, level.columns, -1)
            at = [np.clip(uv[1], rows[0], rows[-1]), np.clip(uv[0], columns[0], columns[-1])]
            per_level[level.crop_px] = RegularGridInterpolator((rows, columns), values)(at)[0]
    sizes = sorted(per_level)
    mixed = np.array([np.interp(crop_px, sizes, [per_level[s][d] for s in sizes]) for d in range(pyramid.shape[1])])
    return mixed / np.linalg.norm(mixed)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float16, 4e-3)])
def test_interpolation_agrees_with_scipy(dtype, tolerance):
    rng = np.random.default_rng(1)
    buffer = rng.normal(size=(3, LAYOUT.total, 5)).astype(np.float32)
    valid = np.array([[1] * 7, [0, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 1, 0, 0]], dtype=bool)
    slots = rng.integers(0, 3, 60)
    uv = rng.uniform([-0.5, -0.5], [639.5, 479.5], (60, 2)).astype(np.float32)
    crop_px = rng.uniform(24, 240, 60).astype(np.float32)
    crop_px[:4] = (24, 240, 96, 60)
    tensors = [torch.from_numpy(a) for a in (valid, slots, uv, crop_px)]
    embeds = LAYOUT.interpolate(torch.from_numpy(buffer).to(dtype), *tensors).numpy()
    for i in range(60):
        expected = reference(LAYOUT, buffer[slots[i]].astype(np.float64), valid[slots[i]], uv[i], crop_px[i])
        np.testing.assert_allclose(embeds[i], expected, atol=tolerance)


def test_a_crop_centre_at_its_own_size_gives_that_crop_and_no_valid_level_gives_zeros():
    buffer = torch.nn.functional.normalize(torch.randn(2, LAYOUT.total, 8, generator=torch.manual_seed(2)), dim=-1)
    valid = torch.tensor([[True] * 7, [False] * 7])
    level = LAYOUT.levels[3]
    uv, crop_px = LAYOUT.centres(3), torch.full((level.count,), float(level.crop_px))
    slots = torch.zeros(level.count, dtype=torch.int64)
    embeds = LAYOUT.interpolate(buffer, valid, slots, uv, crop_px)
    torch.testing.assert_close(embeds, buffer[0, level.offset : level.offset + level.count])
    assert torch.equal(LAYOUT.interpolate(buffer, valid, slots + 1, uv, crop_px), torch.zeros_like(embeds))


def test_crop_sizes_are_drawn_between_the_valid_levels():
    valid = torch.tensor([[True] * 7, [False, False, True, False, True, False, False]])
    slots = torch.tensor([0, 0, 0, 1, 1, 1])
    random = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    assert LAYOUT.draw_crop_px(valid, slots, random).tolist() == [24.0, 132.0, 240.0, 96.0, 132.0, 168.0]
