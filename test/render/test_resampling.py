"""Proposal sampling in rounds, against densities whose rays have a closed form."""

import pytest
import torch
from torch import nn

from lerf_ros.render.rays import Rays
from lerf_ros.render.resampling import ResampledProposal
from lerf_ros.render.sampling import spaced_edges, stratified_edges

WALL = 2.0  # m along the x axis; one local unit is 4 m, so that x_unit = 0.5 + t / 16


class Wall(nn.Module):
    """Dense from WALL to WALL + thickness metres, empty elsewhere."""

    def __init__(self, sigma, thickness):
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor(float(sigma)))
        self.thickness = thickness

    def forward(self, x_unit):
        t = (x_unit[:, 0] - 0.5) * 16
        return torch.where((t >= WALL) & (t < WALL + self.thickness), self.sigma, 0.0)


def rays(count):
    return Rays(torch.zeros(count, 3), torch.tensor([[1.0, 0.0, 0.0]]).expand(count, 3), 4.0)


def bins(count, rays_, jitter=False):
    return stratified_edges(spaced_edges(0.0, 4.0, count, knee=8.0), rays_, jitter)


def proposal(*densities, bins=(), steps=1000):
    made = ResampledProposal(densities, bins)
    made.steps.fill_(steps)
    return made


def test_each_round_has_the_weights_of_its_own_density():
    coarse, fine = Wall(0.7, 1.0), Wall(1.5, 0.5)
    t_edges, histograms = proposal(coarse, fine, bins=(20,)).propose(rays(3), bins(40, 3), 12, jitter=False)
    assert t_edges.shape == (3, 13) and [h.weights.shape for h in histograms] == [(3, 40), (3, 20)]
    assert (t_edges.diff(dim=1) > 0).all() and not t_edges.requires_grad
    torch.testing.assert_close(t_edges[:, [0, -1]], torch.tensor([[0.0, 4.0]]).expand(3, 2))
    # Beer and Lambert: what a slab of that thickness keeps. Of the second round the edges cut the slab somewhere.
    expected = 1 - torch.exp(torch.tensor(-0.7 * 1.0))
    torch.testing.assert_close(histograms[0].weights.sum(dim=1), expected.expand(3), atol=1e-5, rtol=0)
    in_wall = (histograms[1].t_edges[0, :-1] >= WALL - 0.1) & (histograms[1].t_edges[0, 1:] <= WALL + 0.6)
    assert histograms[1].weights[0, ~in_wall].sum() < 0.05


def test_samples_go_where_the_last_density_is():
    """With padding 0.01 a bin, 40 bins weigh 0.4 + w; the slab holds w + its padding of that."""
    sigma, thickness = 3.0, 0.4  # four bins of 0.1 m
    edges, _ = proposal(Wall(sigma, thickness)).propose(rays(1), bins(40, 1), 50, jitter=False)
    w = 1 - torch.exp(torch.tensor(-sigma * thickness))
    share = (w + 0.01 * 4 * w) / (w + 0.01 * 40 * w)
    middle = (edges[0, 1:] + edges[0, :-1]) / 2
    inside = ((middle > WALL) & (middle < WALL + thickness)).float().mean()
    assert float(inside) == pytest.approx(float(share), abs=0.03)


def test_early_weights_are_flattened():
    """w^0 is one: before any step, all bins are alike."""
    edges, _ = proposal(Wall(50.0, 0.5), steps=0).propose(rays(1), bins(40, 1), 20, jitter=False)
    torch.testing.assert_close(edges.diff(dim=1), torch.full((1, 20), 0.2), atol=1e-3, rtol=0)


def test_steps_are_counted_on_the_device():
    made = ResampledProposal([Wall(1.0, 1.0)], ())
    made.tick()
    assert float(made.steps) == 1.0 and "steps" in made.state_dict()


def test_beliefs_carry_gradient_to_their_own_density_only():
    first, second = Wall(1.0, 1.0), Wall(2.0, 1.0)
    _, histograms = proposal(first, second, bins=(16,)).propose(rays(2), bins(32, 2), 8)
    histograms[1].weights.sum().backward()
    assert second.sigma.grad.abs() > 0 and first.sigma.grad is None


def test_a_density_for_each_round_is_needed():
    with pytest.raises(ValueError, match="2 densities need 1"):
        ResampledProposal([Wall(1.0, 1.0), Wall(1.0, 1.0)], (64, 32))
