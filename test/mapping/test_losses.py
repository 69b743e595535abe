import numpy as np
import torch
from scipy.stats import norm

from lerf_ros.mapping import losses
from lerf_ros.render.resampling import Histogram


def test_colour_loss_is_nearly_the_mean_absolute_difference():
    rgb, target = torch.rand(50, 3), torch.rand(50, 3)
    torch.testing.assert_close(losses.colour_loss(rgb, target), (rgb - target).abs().mean(), atol=1e-4, rtol=1e-3)
    same = rgb.clone().requires_grad_()
    losses.colour_loss(same, rgb).backward()
    assert torch.isfinite(same.grad).all()


def test_depth_loss_is_relative_and_skips_what_was_not_measured():
    expected = torch.tensor([1.1, 3.0, 5.0], requires_grad=True)
    measured = torch.tensor([1.0, 4.0, torch.nan])
    loss = losses.depth_loss(expected, measured)
    torch.testing.assert_close(loss, torch.tensor((0.1 / 1.0 + 1.0 / 4.0) / 2))
    loss.backward()
    torch.testing.assert_close(expected.grad, torch.tensor([1 / 1.0, -1 / 4.0, 0.0]) / 2)
    assert losses.depth_loss(expected, torch.full((3,), torch.nan)) == 0


def test_sight_loss_asks_for_a_normal_distribution_up_to_the_surface():
    t_edges, t, sigma = np.linspace(0.5, 3.0, 26), 1.52, 0.08
    share = np.diff(norm.cdf(t_edges, t, sigma))
    weights = np.random.default_rng(0).uniform(0, 0.1, 25)
    asked = t_edges[:-1] < t + 3 * sigma
    expected = np.sum((weights - share)[asked] ** 2)
    rows = torch.tensor(np.stack([weights, weights]))
    edges = torch.tensor(np.stack([t_edges, t_edges]))
    loss = losses.sight_loss(rows, edges, torch.tensor([t, np.nan]), sigma)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-6)
    ideal = losses.sight_loss(torch.tensor(share)[None], edges[:1], torch.tensor([t]), sigma)
    assert float(ideal) < 1e-12


def test_distortion_loss_is_the_double_sum():
    rng = np.random.default_rng(1)
    weights, t_edges, far = rng.uniform(0, 1, (3, 7)), np.sort(rng.uniform(0, 5, (3, 8)), axis=1), 5.0
    expected = 0.0
    for w, s in zip(weights, t_edges / far, strict=True):
        m, d = (s[1:] + s[:-1]) / 2, np.diff(s)
        expected += sum(w[i] * w[j] * abs(m[i] - m[j]) for i in range(7) for j in range(7)) + np.sum(w**2 * d) / 3
    loss = losses.distortion_loss(torch.tensor(weights), torch.tensor(t_edges), far)
    np.testing.assert_allclose(float(loss), expected / 3, rtol=1e-6)


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
