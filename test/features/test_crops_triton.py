"""The Triton kernel that cuts crops against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.features.pyramid import PyramidLayout
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

# Tiny, for the interpreter takes its time for every tap: crops of 2, 4 and 9 px.
LAYOUT = PyramidLayout.build(13, 19, (0.15, 0.3, 0.7), (1.0, 0.7, 0.5))


def images_of(layout, keyframes, seed=0, device=DEVICE):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (keyframes, layout.height, layout.width, 3), generator=generator).byte().to(device)


def corners_of(layout):
    """The crops of every level that lie in the corners of the image, and one in its middle."""
    corners = [
        level.offset + row * level.columns + column
        for level in layout.levels
        for row, column in [
            (0, 0),
            (0, level.columns - 1),
            (level.rows - 1, 0),
            (level.rows - 1, level.columns - 1),
            (level.rows // 2, level.columns // 2),
        ]
    ]
    return torch.tensor(corners, device=DEVICE)


def shuffled(count, seed=1):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def assert_agrees(layout, images, slots, crops, size):
    from lerf_ros.features.crops_triton import cut_triton

    found = cut_triton(images, slots, crops, size, layout.table_on(images.device))
    expected = layout._cut_by_level(images, slots, crops, size)
    assert found.dtype == torch.float32 and found.shape == (len(crops), 3, size, size)
    # pixel coordinates are rounded: 640 of them to 4e-5 px
    torch.testing.assert_close(found, expected, atol=4e-5, rtol=0)
    return found


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 18


@needs_kernels
@pytest.mark.parametrize("size", [5, 7])
def test_crops_at_all_borders_shrunk_and_enlarged(size):
    crops = corners_of(LAYOUT)
    crops = crops[shuffled(len(crops))]
    slots = torch.arange(len(crops), device=DEVICE) % 3
    assert_agrees(LAYOUT, images_of(LAYOUT, 3), slots, crops, size)


@needs_kernels
@pytest.mark.parametrize(("level", "size"), [(2, 3), (2, 2), (1, 1), (0, 1)])
def test_shrunk_to_almost_nothing(level, size):
    crops = LAYOUT.levels[level].offset + torch.zeros(1, dtype=torch.int64, device=DEVICE)
    assert_agrees(LAYOUT, images_of(LAYOUT, 1), torch.zeros_like(crops), crops, size)


@needs_kernels
@pytest.mark.parametrize("level", range(3))
def test_crops_of_the_result_s_own_size_are_the_pixels_themselves(level):
    at, images = LAYOUT.levels[level], images_of(LAYOUT, 2)
    index = torch.arange(at.count, device=DEVICE)[::3]
    found = assert_agrees(LAYOUT, images, torch.ones_like(index), at.offset + index, at.crop_px)
    image = images[1].permute(2, 0, 1).float() / 255
    torch.testing.assert_close(found, LAYOUT.crops(image, level, index), atol=1e-6, rtol=0)
    assert found.amin() >= 0 and found.amax() <= 1


@needs_kernels
def test_more_pixels_than_a_program_takes():
    """As with real encoders: the last program of a crop is not full."""
    crops = corners_of(LAYOUT)[[0, 8, 14]]
    assert_agrees(LAYOUT, images_of(LAYOUT, 2), torch.tensor([1, 0, 1], device=DEVICE), crops, 25)


@needs_kernels
@pytest.mark.parametrize(("levels", "height", "width"), [(1, 16, 9), (2, 20, 31), (8, 40, 30)])
def test_layouts_of_other_shapes(levels, height, width):
    """Levels that are a power of two in number or not; upright images; strides of one pixel among them."""
    fractions = [0.15 + 0.05 * level for level in range(levels)]
    layout = PyramidLayout.build(height, width, fractions, strides=[0.3] * levels)
    crops = torch.cat([level.offset + shuffled(level.count)[: 16 // levels] for level in layout.levels])
    slots = shuffled(len(crops), seed=2) % 2
    assert_agrees(layout, images_of(layout, 2), slots, crops, 12)


@needs_kernels
def test_crops_as_large_as_the_smallest_images():
    layout = PyramidLayout.build(2, 2, (1.0,), (0.5,))
    crops = torch.arange(layout.total, device=DEVICE)
    assert_agrees(layout, images_of(layout, 1), torch.zeros_like(crops), crops, 3)


@needs_kernels
def test_no_crops_and_tensors_that_are_parts_of_others():
    images, crops = images_of(LAYOUT, 3), corners_of(LAYOUT)
    table = torch.stack([torch.arange(len(crops), device=DEVICE) % 3, crops], dim=1)
    assert_agrees(LAYOUT, images, table[:0, 0], table[:0, 1], 4)
    assert_agrees(LAYOUT, images[1:], table[::2, 0] % 2, table[::2, 1], 4)


def test_without_kernels_the_layout_takes_the_reference():
    images = images_of(LAYOUT, 3, device="cpu")
    crops = torch.arange(3, LAYOUT.total, 7)
    slots = torch.arange(len(crops)) % 3
    found = LAYOUT.cut(images, slots, crops, 6)
    ends = [level.offset + level.count for level in LAYOUT.levels]
    for cut, slot, crop in zip(found, slots.tolist(), crops.tolist()):
        level = next(number for number, end in enumerate(ends) if crop < end)
        image = images[slot].permute(2, 0, 1).float() / 255
        alone = LAYOUT.crops(image, level, torch.tensor([crop - LAYOUT.levels[level].offset]), 6)[0]
        torch.testing.assert_close(cut, alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("images", [torch.zeros(2, 19, 13, 3).byte(), torch.zeros(2, 13, 19, 3)])
def test_other_images_are_refused(images):
    with pytest.raises(ValueError, match="13, 19"):
        LAYOUT.cut(images, torch.zeros(1).long(), torch.zeros(1).long(), 4)


@needs_cuda
def test_the_layout_takes_the_kernel_where_it_runs():
    layout = PyramidLayout.build(480, 640)
    images, crops = images_of(layout, 4), shuffled(layout.total)
    slots = shuffled(len(crops), seed=2) % 4
    for size in (64, 224):
        assert torch.equal(layout.cut(images, slots, crops, size), assert_agrees(layout, images, slots, crops, size))
