"""Nearest neighbours, within places only."""

import pytest
import torch
from scipy.spatial import cKDTree

from lerf_ros.geometry.neighbours import nearest, nearest_by_distance, nearest_by_tree

SIZES = [40, 7, 55]
PLACE = torch.arange(3).repeat_interleave(torch.tensor(SIZES))

both_ways = pytest.mark.parametrize("nearest", [nearest_by_tree, nearest_by_distance])


@pytest.fixture
def x():
    return torch.rand(len(PLACE), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3.0


@both_ways
def test_neighbours_are_those_that_scipy_finds_in_each_place_alone(x, nearest):
    distances, indices = nearest(x, 5, SIZES)
    for place in range(3):
        own = (PLACE == place).nonzero()[:, 0]
        expected, index = cKDTree(x[own].numpy()).query(x[own].numpy(), k=5)
        torch.testing.assert_close(distances[own], torch.from_numpy(expected).float(), atol=1e-5, rtol=0)
        assert torch.equal(indices[own], own[torch.from_numpy(index)])


@both_ways
def test_neighbours_that_a_place_lacks_are_far_away(x, nearest):
    distances, indices = nearest(x, 9, SIZES)
    small = PLACE == 1
    assert (distances[small][:, :7] < 2).all() and (distances[small][:, 7:] > 1e5).all()
    assert (distances[~small] < 2).all() and ((indices >= 0) & (indices < len(x))).all()


def test_without_places_all_are_neighbours(x):
    distances, indices = nearest(x, 3)
    expected, index = cKDTree(x.numpy()).query(x.numpy(), k=3)
    torch.testing.assert_close(distances, torch.from_numpy(expected).float())
    assert torch.equal(indices, torch.from_numpy(index))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("sizes", [SIZES, None])
def test_a_gpu_finds_the_same(x, sizes):
    distances, indices = nearest(x.cuda(), 5, sizes)
    expected, index = nearest(x, 5, sizes)
    torch.testing.assert_close(distances.cpu(), expected, atol=1e-5, rtol=0)
    assert torch.equal(indices.cpu(), index)
