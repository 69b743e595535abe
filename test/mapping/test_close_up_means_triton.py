"""The Triton kernels of what close-ups say about points against the torch reference (see test/kernels.py)."""

import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.close_up_means import Pyramids, Sights, means_torch, needed_torch
from lerf_ros.mapping.crop_means import log_bins
from test.kernels import DEVICE, needs_kernels, starts_interpreter

KEYFRAMES, ROWS = 4, 3
LAYOUT = PyramidLayout.build(48, 64, (0.1, 0.2, 0.4), (0.5, 0.5, 0.5))


def sights_of(views, points, seed=0):
    """Of which a third is not seen; what lies beyond the outermost crops is among them."""
    generator = torch.Generator().manual_seed(seed)
    shape = views, points
    slots = torch.randint(KEYFRAMES, shape, generator=generator)
    uv = torch.rand(*shape, 2, generator=generator) * torch.tensor([63.0, 47.0])
    depth_z = 0.5 + 3.0 * torch.rand(shape, generator=generator)
    sees = torch.rand(shape, generator=generator) < 0.67
    least_px = 30.0 * torch.rand(shape, generator=generator)
    sees[:, -1] = False
    return Sights(*(each.to(DEVICE) for each in (slots, uv, depth_z, sees, least_px)))


def pyramids_of(channels, bins, seed=1):
    generator = torch.Generator().manual_seed(seed)
    embeds = normalize(torch.randn(ROWS, LAYOUT.total, channels, generator=generator), dim=-1)
    embeds[:, ::5] = 0.0  # not encoded
    front = 0.5 + 3.0 * torch.rand(ROWS, 3, 12, 16, generator=generator)
    front[torch.rand(front.shape, generator=generator) < 0.2] = torch.inf
    focal_px = torch.tensor([[40.0, 41.0], [50.0, 52.0], [60.0, 57.0], [45.0, 44.0]])
    log_scales = log_bins(bins, 0.05, 1.0, "cpu")
    tensors = embeds.half(), front.half(), focal_px, log_scales, log_scales.exp()
    embeds, front, focal_px, *scales = (each.to(DEVICE) for each in tensors)
    return Pyramids(LAYOUT, embeds, front, focal_px[:, 1], *scales)


OF_SLOT = [[0, 1, 1, 1], [2, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1]]  # row, and which sizes are encoded


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 10


@needs_kernels
@pytest.mark.parametrize("points", [1, 90])
def test_needed_crops_are_the_same(points):
    from lerf_ros.mapping.close_up_means_triton import needed_triton

    sights = sights_of(2, points + 1)
    found, expected = needed_triton(sights, LAYOUT, KEYFRAMES), needed_torch(sights, LAYOUT, KEYFRAMES)
    assert torch.equal(found, expected) and 0 < expected.sum() < expected.numel()


@needs_kernels
@pytest.mark.parametrize(("channels", "bins"), [(6, 5), (16, 8), (37, 2)])
def test_means_agree(channels, bins):
    from lerf_ros.mapping.close_up_means_triton import means_triton

    sights, pyramids, of_slot = sights_of(3, 20), pyramids_of(channels, bins), torch.tensor(OF_SLOT, device=DEVICE)
    found, expected = means_triton(sights, pyramids, of_slot), means_torch(sights, pyramids, of_slot)
    torch.testing.assert_close(found[1:], expected[1:])
    torch.testing.assert_close(found.embeds.embeds, expected.embeds.embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.embeds.cosines, expected.embeds.cosines, atol=1e-5, rtol=0)
    assert expected.counts.amax() > 1 and (expected.counts == 0).any() and not expected.seen[-1]


@needs_kernels
@pytest.mark.parametrize("texts", [1, 5])
@pytest.mark.parametrize("per_point", [False, True])
def test_similarities_of_means_agree(texts, per_point):
    from lerf_ros.mapping.crop_means_triton import similarity_triton

    means = means_torch(sights_of(3, 20), pyramids_of(37, 6), torch.tensor(OF_SLOT, device=DEVICE)).embeds
    generator = torch.Generator().manual_seed(3)
    scales = 0.02 + 1.5 * torch.rand(9, 20 if per_point else 1, generator=generator).to(DEVICE)
    scales[0] = means.log_scales[2].exp()
    text_embeds = normalize(torch.randn(texts, 37, generator=generator), dim=-1).to(DEVICE)
    scales = scales.expand(9, 20)
    found = similarity_triton(means.log_scales, means.embeds, means.cosines, scales, text_embeds)
    torch.testing.assert_close(found, means.similarity_torch(scales, text_embeds), atol=1e-5, rtol=0)


@needs_kernels
def test_no_points():
    from lerf_ros.mapping.close_up_means_triton import means_triton, needed_triton

    sights, of_slot = Sights(*(each[:, :0] for each in sights_of(2, 3))), torch.tensor(OF_SLOT, device=DEVICE)
    assert not needed_triton(sights, LAYOUT, KEYFRAMES).any()
    assert means_triton(sights, pyramids_of(6, 5), of_slot).embeds.embeds.shape == (0, 5, 6)
