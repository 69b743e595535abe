"""The Triton kernels of a ray's heaviest samples and their blend against torch (see test/kernels.py)."""

from types import SimpleNamespace

import pytest
import torch

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField
from lerf_ros.mapping import decoding
from lerf_ros.mapping.config import LanguageConfig
from lerf_ros.render.volume import accumulate, median_depth
from test.kernels import DEVICE, INTERPRETED, needs_kernels, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 9


def rays_of(rays, samples, seed=0):
    """Weights (R, S), some rays without any, some opaque at once; places (R, S, 3); edges (R, S + 1)."""
    rng = torch.Generator().manual_seed(seed)
    weights = torch.rand(rays, samples, generator=rng) ** 6
    weights *= torch.rand(rays, 1, generator=rng) / weights.sum(dim=1, keepdim=True)
    weights[::5] = 0.0
    weights[3::7, 0] = 1.0
    edges = torch.rand(rays, samples + 1, generator=rng).cumsum(dim=1) + 0.1
    return weights.to(DEVICE), torch.rand(rays, samples, 3, generator=rng).to(DEVICE), edges.to(DEVICE)


@needs_kernels
@pytest.mark.parametrize(("rays", "samples", "kept"), [(40, 48, 8), (15, 12, 3), (9, 100, 5), (7, 4, 4), (30, 33, 1)])
def test_the_heaviest_samples_are_those_of_topk(rays, samples, kept):
    from lerf_ros.mapping.decoding_triton import heaviest_triton

    weights, x_unit, t_edges = rays_of(rays, samples)
    found, places, t = heaviest_triton(weights, x_unit, t_edges, kept)
    expected = weights.topk(kept, dim=1).values
    expected = expected / expected.sum(dim=1, keepdim=True).clamp_min(1e-8)
    torch.testing.assert_close(found.sort(dim=1, descending=True).values, expected)
    torch.testing.assert_close(t, median_depth(weights, t_edges), rtol=1e-4, atol=0.0)
    taken = (places[:, :, None] == x_unit[:, None]).all(dim=-1)  # (R, kept, S)
    assert (taken.sum(dim=2) == 1).all() and (taken.sum(dim=1) <= 1).all()
    own = weights.gather(1, taken.int().argmax(dim=2))
    torch.testing.assert_close(found, own / own.sum(dim=1, keepdim=True).clamp_min(1e-8))


@needs_kernels
def test_weights_that_are_no_numbers_give_good_addresses():
    from lerf_ros.mapping.decoding_triton import heaviest_triton

    weights, x_unit, t_edges = rays_of(8, 40)
    weights[2], weights[3, 5] = torch.nan, torch.nan
    _, places, _ = heaviest_triton(weights, x_unit, t_edges, 6)
    assert (places[:, :, None] == x_unit[:, None]).all(dim=-1).any(dim=-1).all()


@needs_kernels
@pytest.mark.parametrize(("rays", "kept", "widths"), [(21, 8, (96, 96)), (5, 3, (20, 12)), (8, 1, (5, 7))])
def test_a_blend_and_its_gradients(rays, kept, widths):
    from lerf_ros.mapping.decoding_triton import Blend

    rng = torch.Generator().manual_seed(kept)
    weights = torch.rand(rays, kept, generator=rng).to(DEVICE)
    encoded = [torch.randn(rays * kept, width, generator=rng).to(DEVICE).requires_grad_() for width in widths]
    wanted = torch.randn(rays, sum(widths), generator=rng).to(DEVICE)
    blend = Blend.apply(weights, *encoded)
    expected = accumulate(weights, torch.cat(encoded, dim=1).view(rays, kept, -1))
    torch.testing.assert_close(blend, expected)
    found = torch.autograd.grad(blend, encoded, wanted)
    for value, gradient in zip(found, torch.autograd.grad(expected, encoded, wanted), strict=True):
        torch.testing.assert_close(value, gradient)
    assert found[0].stride() == found[1].stride() == (sum(widths), 1)  # as the hash grids' backward pass takes them


@needs_kernels
def test_half_precision_features_are_summed_in_float32():
    from lerf_ros.mapping.decoding_triton import Blend

    dtype = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter has no bfloat16
    weights = torch.full((4, 8), 1 / 8, device=DEVICE)
    encoded = [torch.randn(32, 16, device=DEVICE).to(dtype).requires_grad_() for _ in range(2)]
    blend = Blend.apply(weights, *encoded)
    exact = torch.cat(encoded, dim=1).float().view(4, 8, 32).mean(dim=1)
    assert torch.equal(blend, exact.to(dtype))
    assert torch.autograd.grad(blend.float().sum(), encoded)[0].dtype == dtype


@needs_kernels
@pytest.mark.parametrize("kind", ["trained", "asked"])
def test_decoding_takes_the_kernels_and_gives_the_same(kind, monkeypatch):
    torch.manual_seed(0)
    grid = HashGridConfig(levels=3, features=2, log2_table=10, min_resolution=8, max_resolution=32)
    language = LanguageField(grid, grid, 8, 16, 1, backend="torch", precision="float32").to(DEVICE)
    weights, x_unit, t_edges = rays_of(30, 20)
    marched = SimpleNamespace(weights=weights, x_unit=x_unit, t_edges=t_edges)
    take = decoding.training_features if kind == "trained" else decoding.asked_features
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(decoding, "runs_kernels", lambda device, kernels=kernels: kernels)
        taken = take(language, marched, LanguageConfig(samples=6))
        taken.features.square().sum().backward()
        found.append((taken.features, taken.t, language.coarse.table.grad, language.fine.table.grad))
        language.zero_grad()
    for value, expected in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-9)
