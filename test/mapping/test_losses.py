import numpy as np
import torch

from lerf_ros.mapping import losses
from lerf_ros.render.resampling import Histogram


def test_colour_loss_is_nearly_the_mean_absolute_difference():
    rgb, target = torch.rand(50, 3), torch.rand(50, 3)
    torch.testing.assert_close(losses.colour_loss(rgb, target), (rgb - target).abs().mean(), atol=1e-4, rtol=1e-3)
    same = rgb.clone().requires_grad_()
    losses.colour_loss(same, rgb).backward()
    assert torch.isfinite(same.grad).all()


def test_measured_rays_are_counted_and_at_least_one():
    assert losses.measured_count(torch.tensor([1.0, torch.nan, 4.0, torch.inf])) == 2
    assert losses.measured_count(torch.full((3,), torch.nan)) == 1


def test_language_loss_is_one_minus_cosine_over_the_rays_with_a_target():
    embeds = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    targets = torch.tensor([[0.8, 0.6], [0.0, -1.0], [0.0, 0.0]])
    torch.testing.assert_close(losses.language_loss(embeds, targets), torch.tensor((0.2 + 2.0) / 2))
    assert losses.language_loss(embeds, torch.zeros(3, 2)) == 0


def test_interlevel_loss_is_what_no_overlapping_bin_covers():
    rng = np.random.default_rng(2)
    rays, samples, bins = 5, 9, 6
    t_edges, t_bins = (np.sort(rng.uniform(0, 4, (rays, n + 1)), axis=1) for n in (samples, bins))
    t_edges[:, [0, -1]] = t_bins[:, [0, -1]] = 0.0, 4.0
    t_bins[0, 2] = t_edges[0, 4]  # a shared edge is no overlap
    weights, beliefs = (rng.dirichlet(np.ones(n), rays) for n in (samples, bins))
    expected, gradient = 0.0, np.zeros_like(beliefs)
    for r in range(rays):
        for i in range(samples):
            overlaps = (t_bins[r, :-1] < t_edges[r, i + 1]) & (t_bins[r, 1:] > t_edges[r, i])
            excess = max(0.0, weights[r, i] - beliefs[r, overlaps].sum())
            expected += excess**2 / weights[r, i] / rays
            gradient[r, overlaps] -= 2 * excess / weights[r, i] / rays
    assert expected > 0.01
    w, w_hat = torch.tensor(weights, requires_grad=True), torch.tensor(beliefs, requires_grad=True)
    loss = losses.interlevel_loss(torch.tensor(t_edges), w, Histogram(torch.tensor(t_bins), w_hat))
    loss.backward()
    np.testing.assert_allclose(float(loss.detach()), expected, rtol=1e-5)
    np.testing.assert_allclose(w_hat.grad, gradient, atol=1e-5)
    assert w.grad is None


def test_a_proposal_that_covers_the_field_costs_nothing():
    t_edges, weights = torch.linspace(0, 4, 9)[None], torch.rand(1, 8) / 8
    coarser = Histogram(t_edges[:, ::2], weights[:, ::2] + weights[:, 1::2])
    assert losses.interlevel_loss(t_edges, weights, coarser) == 0
