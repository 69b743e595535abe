"""The Triton kernel of what crop pyramids say to training against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.features.pyramid import PyramidLayout
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

LAYOUT = PyramidLayout.build(480, 640)  # seven levels of 24 to 240 px
NONE, ALL = [0] * 7, [1] * 7
VALID = [ALL, [0, 0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0], NONE]
CORNERS = [[-0.5, -0.5], [639.5, 479.5], [-0.5, 479.5], [639.5, -0.5], [-300.0, 2000.0], [700.0, -90.0]]


def buffer_of(layout, keyframes, channels, dtype, seed=0, device=DEVICE):
    buffer = torch.randn(keyframes, layout.total, channels, generator=torch.Generator().manual_seed(seed))
    return buffer.to(device, dtype)


def rays_of(layout, keyframes, count, seed=1, device=DEVICE):
    """Slots, pixels and random numbers of so many rays: both ends of the range of sizes among them."""
    generator = torch.Generator().manual_seed(seed)
    slots = torch.randint(keyframes, (count,), generator=generator)
    uv = torch.rand(count, 2, generator=generator) * torch.tensor([layout.width, layout.height]) - 0.5
    random = torch.rand(count, generator=generator)
    random[::7], random[3::7] = 0.0, 1.0 - 2.0**-24
    return slots.to(device), uv.to(device), random.to(device)


def reference(layout, buffer, valid, slots, uv, random):
    crop_px = layout.draw_crop_px(valid, slots, random)
    return layout.interpolate(buffer, valid, slots, uv, crop_px), crop_px


def assert_agrees(layout, buffer, valid, slots, uv, random):
    """Crop sizes to the last bit, and with them the levels."""
    from lerf_ros.features.pyramid_triton import supervision_triton

    found = supervision_triton(buffer, valid, slots, uv, random, layout.table_on(buffer.device))
    expected = reference(layout, buffer, valid, slots, uv, random)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert torch.equal(found[1], expected[1])
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    return found


@needs_kernels
@pytest.mark.parametrize("layout", [LAYOUT, PyramidLayout.build(48, 64, (0.3,), (0.3,))])
def test_corners_are_the_same_crops_to_the_last_bit(layout):
    from lerf_ros.features.pyramid_triton import corners_triton

    _, uv, _ = rays_of(layout, 1, 70)
    uv = torch.cat([uv, torch.tensor(CORNERS, device=DEVICE), uv.round()])
    found, expected = corners_triton(uv, layout.table_on(uv.device)), layout._corners_torch(uv)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)
    assert corners_triton(uv[:0], layout.table_on(uv.device))[0].shape == (0, len(layout.levels), 4)


def valid_of(rows):
    return torch.tensor(rows, dtype=torch.bool, device=DEVICE)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 18


def test_without_kernels_the_layout_takes_the_reference():
    buffer = buffer_of(LAYOUT, len(VALID), 16, torch.float16, device="cpu")
    valid, rays = torch.tensor(VALID, dtype=torch.bool), rays_of(LAYOUT, len(VALID), 50, device="cpu")
    for found, expected in zip(LAYOUT.supervision(buffer, valid, *rays), reference(LAYOUT, buffer, valid, *rays)):
        assert torch.equal(found, expected)


@needs_kernels
@pytest.mark.parametrize("channels", [96, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_agrees_with_the_reference(channels, dtype):
    buffer = buffer_of(LAYOUT, len(VALID), channels, dtype)
    targets, _ = assert_agrees(LAYOUT, buffer, valid_of(VALID), *rays_of(LAYOUT, len(VALID), 120))
    lengths = targets.norm(dim=1)
    assert ((lengths - 1).abs() < 1e-5).logical_or(lengths == 0).all()


@needs_kernels
@pytest.mark.parametrize("levels", [1, 2, 3, 8])
def test_layouts_of_other_shapes(levels):
    """Levels that are a power of two in number or not, rows of any width, validity drawn at random; bfloat16."""
    fractions = [0.1 + 0.1 * level for level in range(levels)]
    layout = PyramidLayout.build(120, 90 + 9 * levels, fractions, strides=[0.3] * levels)
    valid = torch.rand(9, levels, generator=torch.Generator().manual_seed(levels)) < 0.5
    buffer = buffer_of(layout, 9, 5 * levels, torch.bfloat16)
    assert_agrees(layout, buffer, valid.to(DEVICE), *rays_of(layout, 9, 60))


@needs_kernels
def test_sizes_that_are_levels_choose_the_same_levels():
    """`sizes <= crop_px` at equality and one rounding beside it."""
    sizes = torch.from_numpy(LAYOUT.sizes).float()
    at_levels = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
    beside = [torch.nextafter(at_levels, at_levels + side) for side in (-1.0, 1.0)]
    random = torch.cat([at_levels, *beside]).clamp(0.0, 1.0).to(DEVICE)
    slots, uv, _ = rays_of(LAYOUT, 3, len(random))
    _, crop_px = assert_agrees(LAYOUT, buffer_of(LAYOUT, 3, 16, torch.float32), valid_of(VALID[:3]), slots, uv, random)
    assert torch.isin(crop_px, sizes.to(DEVICE)).sum() >= 7


@needs_kernels
def test_no_valid_level_gives_zeros_and_sizes_of_the_whole_range():
    slots, uv, _ = rays_of(LAYOUT, 1, 3)
    random = torch.tensor([0.0, 0.5, 1.0], device=DEVICE)
    buffer = buffer_of(LAYOUT, 1, 32, torch.float16)
    targets, crop_px = assert_agrees(LAYOUT, buffer, valid_of([NONE]), slots, uv, random)
    assert not targets.any()
    assert crop_px.tolist() == [24.0, 132.0, 240.0]


@needs_kernels
def test_one_valid_level_is_read_alone():
    slots, uv, random = rays_of(LAYOUT, 1, 20)
    buffer = buffer_of(LAYOUT, 1, 32, torch.float32)
    targets, crop_px = assert_agrees(LAYOUT, buffer, valid_of([VALID[3]]), slots, uv, random)
    assert (crop_px == LAYOUT.sizes[3]).all()
    torch.testing.assert_close(targets, LAYOUT.at_levels(buffer, slots, LAYOUT.corners(uv))[:, 3], atol=1e-5, rtol=1e-5)


@needs_kernels
def test_beyond_the_outermost_centres_the_outermost_crops_are_read():
    """There, and at crop centres, where the fraction of the way is zero."""
    uv = torch.cat([torch.tensor(CORNERS), LAYOUT.centres(6)]).to(DEVICE)
    slots = torch.arange(len(uv), device=DEVICE) % 3
    random = torch.linspace(0, 1, len(uv), device=DEVICE)
    assert_agrees(LAYOUT, buffer_of(LAYOUT, 3, 24, torch.float32), valid_of(VALID[:3]), slots, uv, random)


@needs_kernels
def test_what_is_not_encoded_is_not_read():
    """Not even with a weight of zero, as at the largest valid level and beyond the outermost centres."""
    valid = valid_of(VALID[:-1])
    counts = torch.tensor([level.count for level in LAYOUT.levels], device=DEVICE)
    buffer = buffer_of(LAYOUT, len(valid), 8, torch.float32)
    buffer[~valid.repeat_interleave(counts, dim=1)] = torch.nan
    uv = torch.tensor(CORNERS, device=DEVICE).repeat(2 * len(valid), 1)
    slots = torch.arange(len(valid), device=DEVICE).repeat_interleave(2 * len(CORNERS))
    random = torch.tensor([0.3, 1.0], device=DEVICE).repeat(len(uv) // 2)
    targets, _ = assert_agrees(LAYOUT, buffer, valid, slots, uv, random)
    assert torch.isfinite(targets).all()


@needs_kernels
def test_zero_embeddings_give_zeros_and_no_rays_nothing():
    buffer = torch.zeros(2, LAYOUT.total, 16, dtype=torch.float16, device=DEVICE)
    for count in (5, 0):
        targets, crop_px = assert_agrees(LAYOUT, buffer, valid_of(VALID[:2]), *rays_of(LAYOUT, 2, count))
        assert targets.shape == (count, 16) and crop_px.shape == (count,) and not targets.any()


@needs_kernels
def test_tensors_that_are_parts_of_others():
    """As training passes them: the first rays of a batch; here also every second one."""
    slots, uv, random = rays_of(LAYOUT, len(VALID), 80)
    buffer = buffer_of(LAYOUT, len(VALID), 48, torch.float16)
    for part in (slice(31), slice(None, None, 2)):
        assert_agrees(LAYOUT, buffer, valid_of(VALID), slots[part], uv[part], random[part])


@needs_cuda
def test_the_layout_takes_the_kernel_where_it_runs():
    buffer, valid = buffer_of(LAYOUT, len(VALID), 512, torch.float16), valid_of(VALID)
    rays = rays_of(LAYOUT, len(VALID), 3000)
    for found, expected in zip(LAYOUT.supervision(buffer, valid, *rays), assert_agrees(LAYOUT, buffer, valid, *rays)):
        assert torch.equal(found, expected)


@needs_cuda
def test_replays_read_what_the_buffers_hold_by_then():
    from lerf_ros.captured import Captured

    buffer, valid = buffer_of(LAYOUT, len(VALID), 512, torch.float16), valid_of(VALID)
    rays = rays_of(LAYOUT, len(VALID), 500)
    graph = Captured(lambda: LAYOUT.supervision(buffer, valid, *rays), torch.device("cuda"))
    for seed in range(8):
        buffer.copy_(buffer_of(LAYOUT, len(VALID), 512, torch.float16, seed))
        valid.copy_(valid.roll(1, dims=0))
        for x, new in zip(rays, rays_of(LAYOUT, len(VALID), 500, seed)):
            x.copy_(new)
        targets, crop_px = graph.run("same")
        expected = reference(LAYOUT, buffer, valid, *rays)
        torch.testing.assert_close(targets, expected[0], atol=1e-5, rtol=1e-5)
        assert torch.equal(crop_px, expected[1])
