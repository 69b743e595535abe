import math

import pytest
import torch

from lerf_ros.render.volume import (
    accumulate,
    depth_spread,
    expected_depth,
    median_depth,
    opacity,
    transmittance,
    weights_from_sigmas,
)

NEAR, FAR = 0.5, 4.5


def medium(sigma, samples=2000):
    """A homogeneous medium between NEAR and FAR, in uneven intervals."""
    edges = NEAR + (FAR - NEAR) * torch.linspace(0, 1, samples + 1, dtype=torch.float64)[None] ** 1.3
    return weights_from_sigmas(torch.full((1, samples), sigma, dtype=torch.float64), edges.diff(dim=-1)), edges


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_homogeneous_medium(sigma):
    """A truncated exponential distribution: all of its moments are known."""
    weights, edges = medium(sigma)
    length = FAR - NEAR
    total = 1 - math.exp(-sigma * length)
    mean = 1 / sigma - length * math.exp(-sigma * length) / total
    second = 2 / sigma**2 - length * math.exp(-sigma * length) * (length + 2 / sigma) / total
    assert opacity(weights).item() == pytest.approx(total, rel=1e-12)
    assert expected_depth(weights, edges).item() == pytest.approx(NEAR + mean, rel=1e-5)
    assert median_depth(weights, edges).item() == pytest.approx(NEAR - math.log(1 - total / 2) / sigma, rel=1e-5)
    assert depth_spread(weights, edges).item() == pytest.approx(math.sqrt(second - mean**2), rel=1e-3)


def test_transmittance_is_what_the_weights_leave():
    sigmas, deltas = torch.rand(7, 9, dtype=torch.float64) * 3, torch.rand(7, 9, dtype=torch.float64)
    before = torch.cat([torch.zeros(7, 1), weights_from_sigmas(sigmas, deltas).cumsum(dim=-1)[:, :-1]], dim=1)
    torch.testing.assert_close(transmittance(sigmas, deltas), 1 - before)


def test_accumulate_composites_front_to_back():
    sigmas, deltas, colours = torch.rand(4, 6) * 5, torch.rand(4, 6), torch.rand(4, 6, 3)
    expected = torch.zeros(4, 3)
    for i in reversed(range(6)):  # the "over" operator
        alpha = 1 - torch.exp(-sigmas[:, i] * deltas[:, i])[:, None]
        expected = alpha * colours[:, i] + (1 - alpha) * expected
    torch.testing.assert_close(accumulate(weights_from_sigmas(sigmas, deltas), colours), expected)


def test_median_depth_interpolates_where_half_the_weight_is_reached():
    edges = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert median_depth(torch.tensor([[0.1, 0.1, 0.6]]), edges).item() == pytest.approx(3 + 2 * (0.4 - 0.2) / 0.6)
    assert median_depth(torch.tensor([[0.4, 0.0, 0.0]]), edges).item() == pytest.approx(1.5)


def test_median_depth_does_not_float_between_two_surfaces():
    sigmas = torch.zeros(1, 100)
    sigmas[:, 20], sigmas[:, 90] = 10.0, 1e4  # front surface hides 63 %
    edges = torch.linspace(0, 10, 101)[None]
    weights = weights_from_sigmas(sigmas, edges.diff(dim=-1))
    assert 2.0 <= median_depth(weights, edges).item() <= 2.1
    assert 4.0 < expected_depth(weights, edges).item() < 6.0
    assert depth_spread(weights, edges).item() > 3.0


def test_an_opaque_interval_hides_everything_behind_it():
    sigmas = torch.tensor([[0.3, 1e8, 0.5, 2.0]])
    weights = weights_from_sigmas(sigmas, torch.ones(1, 4))
    torch.testing.assert_close(weights, torch.tensor([[1 - math.exp(-0.3), math.exp(-0.3), 0.0, 0.0]]))


def test_empty_rays_are_finite_in_value_and_gradient():
    sigmas = torch.zeros(2, 5, requires_grad=True)
    edges = torch.linspace(1, 2, 6).expand(2, -1)
    weights = weights_from_sigmas(sigmas, edges.diff(dim=-1))
    assert opacity(weights).tolist() == [0, 0]
    assert median_depth(weights, edges).tolist() == [1, 1]
    assert depth_spread(weights, edges).tolist() == [0, 0]
    expected_depth(weights, edges).sum().backward()
    assert sigmas.grad.isfinite().all()


def test_gradients_by_finite_differences():
    generator = torch.Generator().manual_seed(0)
    sigmas = (torch.rand(3, 6, dtype=torch.float64, generator=generator) * 3).requires_grad_()
    colours = torch.rand(3, 6, 3, dtype=torch.float64, generator=generator).requires_grad_()
    edges = torch.rand(3, 7, dtype=torch.float64, generator=generator).cumsum(dim=-1)

    def render(sigmas, colours):
        weights = weights_from_sigmas(sigmas, edges.diff(dim=-1))
        depths = expected_depth(weights, edges), median_depth(weights, edges), depth_spread(weights, edges)
        return accumulate(weights, colours), opacity(weights), *depths

    assert torch.autograd.gradcheck(render, (sigmas, colours))
