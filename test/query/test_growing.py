"""Regions of points against SciPy's connected components, and what is measured of them against NumPy."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from lerf_ros.geometry.neighbours import Places
from lerf_ros.query.growing import Graph, component, nearest, own_support, region_means
from lerf_ros.query.neighbourhood import Neighbourhood


def graph_of(near):
    return Graph.of(near.members.numpy(), near.one_sided.numpy())


def test_neighbourhood_smooths_and_connects_over_gaps_below_its_radius_only():
    x = torch.tensor([[0.00, 0, 0], [0.01, 0, 0], [0.02, 0, 0], [0.10, 0, 0], [0.11, 0, 0]])
    near = Neighbourhood(x, radius=0.015)
    assert near.smooth(torch.tensor([0.0, 3.0, 0.0, 1.0, 1.0])).tolist() == pytest.approx([1.5, 1.0, 1.5, 1.0, 1.0])
    graph = graph_of(near)
    assert component(graph, 0, np.ones(5, np.float32), 1.0).tolist() == [0, 1, 2]
    assert component(graph, 2, np.array([1, 0, 1, 1, 1], np.float32), 0.5).tolist() == [2]


@pytest.mark.parametrize("k", [4, 6, 300])  # most neighbourhoods are full; some; none
def test_components_are_those_that_scipy_finds(k):
    generator, N = np.random.default_rng(0), 300
    x = generator.random((N, 3))
    x[::40] = x[0]  # more copies of one point than its neighbourhood holds
    near = Neighbourhood(torch.from_numpy(x), k=k, radius=0.12)
    members = near.members.numpy()
    to = csr_matrix((np.ones(members.size), members.flatten(), np.arange(N + 1) * members.shape[1]), shape=(N, N)) > 0
    assert ((to != to.T).nnz > 0) == (k < N)
    values = generator.random(N).astype(np.float32)
    for least in (0.2, 0.5):
        (high,) = np.nonzero(values >= np.float32(least))
        labels = connected_components(to[high][:, high], connection="weak")[1]
        sizes = []
        for i, seed in enumerate(high):
            expected = high[labels == labels[i]]
            assert component(graph_of(near), seed, values, least).tolist() == expected.tolist()
            sizes.append(len(expected))
        assert min(sizes) == 1 and max(sizes) > 3


def test_only_full_neighbourhoods_have_one_sided_neighbours():
    """Each relation that is not said to be one-sided is mutual: what components need not look for."""
    near = Neighbourhood(torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)), k=12)
    members, N = near.members.numpy(), len(near.members)
    mutual = (members[members] == np.arange(N)[:, None, None]).any(axis=2)
    assert (mutual | near.one_sided.numpy()).all()
    assert not mutual.all() and near.one_sided.float().mean() < 0.5


def test_places_do_not_touch_each_other():
    table = torch.rand(500, 3, generator=torch.Generator().manual_seed(1))
    both = torch.cat([table, table + 1e-3])
    alone, together = Neighbourhood(table), Neighbourhood(both, places=Places(torch.tensor([500, 500]), 500))
    values = torch.rand(2, len(both), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(together.smooth(values)[:, : len(table)], alone.smooth(values[:, : len(table)]))
    expected = component(graph_of(alone), 5, np.ones(500, np.float32), 1.0)
    assert component(graph_of(together), 505, np.ones(1000, np.float32), 1.0).tolist() == (expected + 500).tolist()


def test_regions_are_measured_as_numpy_does():
    generator = np.random.default_rng(0)
    values, own = generator.random((2, 5, 80)).astype(np.float32)
    values[generator.random(values.shape) < 0.2] = -np.inf
    region = np.sort(generator.permutation(80)[:30])
    filled = np.where(np.isfinite(values), values, 0.25)[:, region]
    assert region_means(values, region, np.float32(0.25)) == pytest.approx(filled.mean(axis=1))
    low = np.where(np.isfinite(values[0]), values[0], 0.4)
    assert 0 < own_support(region, low, own[0]) == (own[0][region] >= low[region].min()).sum() < 30
    points, position = generator.random((50, 3)), generator.random(3)
    assert nearest(position, points) == np.linalg.norm(points - position, axis=1).argmin()
