import pytest
import torch
from scipy import stats

from lerf_ros.render.sampling import (
    depth_guided_edges,
    importance_edges,
    midpoints,
    spaced_edges,
    stratified_edges,
)


def assert_tiles(t_edges, first, last):
    torch.testing.assert_close(t_edges[:, 0], torch.as_tensor(first).expand(len(t_edges)))
    torch.testing.assert_close(t_edges[:, -1], torch.as_tensor(last).expand(len(t_edges)))
    assert (t_edges.diff(dim=-1) >= -1e-6).all()


def test_spacing_is_uniform_near_and_in_disparity_far():
    edges = spaced_edges(0.0, 32.0, 62, knee=2.0)
    near, far = edges[edges <= 2.0], edges[edges >= 2.0]
    assert len(near) > 20 and len(far) > 20
    torch.testing.assert_close(near.diff(), near.diff()[:1].expand(len(near) - 1), rtol=1e-4, atol=0)
    torch.testing.assert_close((1 / far).diff(), (1 / far).diff()[:1].expand(len(far) - 1), rtol=1e-3, atol=0)
    assert edges[0] == 0.0 and edges[-1] == 32.0


@pytest.mark.parametrize(("near", "far", "bins"), [(1.0, 1.0, 8), (-0.1, 1.0, 8), (0.1, 1.0, 0)])
def test_impossible_ranges_are_refused(near, far, bins):
    with pytest.raises(ValueError, match="near < far"):
        spaced_edges(near, far, bins, knee=1.0)


def test_stratified_edges_keep_order_and_ends_and_move():
    torch.manual_seed(0)
    common = spaced_edges(0.1, 9.0, 16, knee=3.0)
    edges = stratified_edges(common, 500)
    assert_tiles(edges, 0.1, 9.0)
    assert (edges.diff(dim=-1) > 0).all()
    inner = edges[:, 5]
    uniform = stats.uniform(midpoints(common)[4].item(), (midpoints(common)[5] - midpoints(common)[4]).item())
    assert stats.kstest(inner.numpy(), uniform.cdf).pvalue > 0.01
    torch.testing.assert_close(stratified_edges(common, 2, jitter=False), common.expand(2, -1))


def test_importance_edges_split_the_weight_evenly():
    bins = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
    edges = importance_edges(bins, torch.tensor([[0.0, 3.0, 1.0]]), samples=4, jitter=False, floor=0.0)
    expected = torch.tensor([[0.0, 1 + 1 / 3, 1 + 2 / 3, 2.0, 4.0]])
    torch.testing.assert_close(edges, expected, atol=1e-3, rtol=0)
    assert_tiles(edges, 0.0, 4.0)


def test_importance_samples_follow_the_density():
    """Many jittered edges are distributed as the weights say."""
    torch.manual_seed(1)
    bins = torch.linspace(0, 1, 9)
    weights = torch.tensor([0.0, 0.1, 0.4, 0.0, 0.0, 0.3, 0.2, 0.0])
    edges = importance_edges(bins.expand(500, -1), weights.expand(500, -1), samples=200, floor=0.0)
    assert_tiles(edges, 0.0, 1.0)
    counts = torch.histogram(edges[:, 1:-1].flatten(), bins).hist
    torch.testing.assert_close(counts / counts.sum(), weights, atol=0.02, rtol=0)


def test_rays_without_weight_are_sampled_evenly():
    bins = torch.linspace(2.0, 6.0, 9).expand(3, -1)
    edges = importance_edges(bins, torch.zeros(3, 8), samples=4, jitter=False)
    torch.testing.assert_close(edges, torch.linspace(2, 6, 5).expand(3, -1))


def test_the_floor_keeps_every_bin_in_sight():
    torch.manual_seed(2)
    bins = torch.linspace(0, 1, 11).expand(2000, -1)
    weights = torch.zeros(2000, 10)
    weights[:, 8] = 1.0
    edges = importance_edges(bins, weights, samples=200, floor=0.5)
    assert (edges[:, 1:-1] < 0.8).float().mean().item() == pytest.approx(8 * 0.05 / 1.5, abs=0.01)


@pytest.mark.parametrize("jitter", [False, True])
def test_depth_guided_edges(jitter):
    torch.manual_seed(3)
    fallback = stratified_edges(torch.linspace(0.2, 8.0, 13), 4)
    t_surface = torch.tensor([2.0, float("nan"), 5.0, 0.22])
    half_width = torch.tensor([0.03, 0.03, 0.06, 0.05])
    edges = depth_guided_edges(fallback, t_surface, half_width, near=0.2, surface_samples=6, jitter=jitter)
    torch.testing.assert_close(edges[1], fallback[1])  # no depth: as proposed
    known = edges[[0, 2, 3]]
    assert_tiles(known, 0.2, (t_surface + half_width)[[0, 2, 3]])
    torch.testing.assert_close(known[:2, 6], torch.tensor([1.97, 4.94]))  # the band begins at the seventh edge
    assert (midpoints(edges)[2, 6:] - 5.0).abs().max() < 0.06
    assert known[2, :7].unique().item() == pytest.approx(0.2)  # surface at the near plane: no free space before it


def test_depth_guidance_needs_both_kinds_of_samples():
    with pytest.raises(ValueError, match="between 1 and 3"):
        depth_guided_edges(torch.zeros(1, 5), torch.ones(1), torch.ones(1), near=0.1, surface_samples=4)
