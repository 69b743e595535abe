import numpy as np
import torch
from scipy.stats import norm

from lerf_ros.render.composite import composite, depth_error, distortion, sight_error
from lerf_ros.render.volume import rendered_colour


def test_depth_error_is_relative_and_skips_what_was_not_measured():
    expected = torch.tensor([1.1, 3.0, 5.0, 0.0], requires_grad=True)
    errors = depth_error(expected, torch.tensor([1.0, 4.0, torch.nan, torch.nan]))
    torch.testing.assert_close(errors, torch.tensor([0.1 / 1.0, 1.0 / 4.0, 0.0, 0.0]))
    errors.sum().backward()
    torch.testing.assert_close(expected.grad, torch.tensor([1 / 1.0, -1 / 4.0, 0.0, 0.0]))


def test_sight_error_asks_for_a_normal_distribution_up_to_the_surface():
    t_edges, t, sigmas = np.linspace(0.5, 3.0, 26), 1.52, np.array([0.08, 0.2, 0.08])
    shares = [np.diff(norm.cdf(t_edges, t, sigma)) for sigma in sigmas]
    weights = np.random.default_rng(0).uniform(0, 0.1, 25)
    expected = [np.sum((weights - share)[t_edges[:-1] < t + 3 * sigma] ** 2) for share, sigma in zip(shares, sigmas)]
    rows, edges = (torch.tensor(np.stack([row, row, row])) for row in (weights, t_edges))
    errors = sight_error(rows, edges, torch.tensor([t, t, np.nan]), torch.tensor(sigmas))
    np.testing.assert_allclose(errors, [*expected[:2], 0.0], rtol=1e-6)
    ideal = sight_error(torch.tensor(np.stack(shares)), edges, torch.full((3,), t), torch.tensor(sigmas))
    assert float(ideal.max()) < 1e-12


def test_distortion_is_the_double_sum():
    rng = np.random.default_rng(1)
    weights, t_edges, far = rng.uniform(0, 1, (3, 7)), np.sort(rng.uniform(0, 5, (3, 8)), axis=1), 5.0
    expected = []
    for w, s in zip(weights, t_edges / far, strict=True):
        m, d = (s[1:] + s[:-1]) / 2, np.diff(s)
        between = sum(w[i] * w[j] * abs(m[i] - m[j]) for i in range(7) for j in range(7))
        expected.append(between + np.sum(w**2 * d) / 3)
    np.testing.assert_allclose(distortion(torch.tensor(weights), torch.tensor(t_edges), far), expected, rtol=1e-6)


def test_light_that_passes_takes_the_last_colour():
    colours = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    rgb = rendered_colour(torch.tensor([[0.5, 0.2, 0.1]]), colours)
    torch.testing.assert_close(rgb, torch.tensor([[0.5, 0.2, 0.3]]))


def test_no_gradient_passes_through_the_weights():
    sigmas = torch.ones(2, 3, requires_grad=True)
    result = composite(
        sigmas, torch.rand(2, 3, 3), torch.arange(4.0).expand(2, 4), torch.ones(2), torch.full((2,), 0.1), 3.0
    )
    assert not result.weights.requires_grad
    assert all(x.requires_grad for x in (result.rgb, result.depth, result.sight, result.distortion))
