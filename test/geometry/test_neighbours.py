"""Nearest neighbours, within places only."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from lerf_ros.geometry.neighbours import Places, nearest, nearest_by_cells, nearest_by_distance, nearest_by_tree

SIZES, ROOM = [40, 7, 55], 60
PLACES = Places(torch.tensor(SIZES), ROOM)
OWN = [ROOM * place + torch.arange(size) for place, size in enumerate(SIZES)]  # the points that there are

both_ways = pytest.mark.parametrize("nearest", [nearest_by_tree, nearest_by_distance])


@pytest.fixture
def x():
    return torch.rand(3 * ROOM, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3.0


@both_ways
def test_neighbours_are_those_that_scipy_finds_in_each_place_alone(x, nearest):
    distances, indices = nearest(x, 5, PLACES)
    for own in OWN:
        expected, index = cKDTree(x[own].numpy()).query(x[own].numpy(), k=5)
        torch.testing.assert_close(distances[own], torch.from_numpy(expected).float(), atol=1e-5, rtol=0)
        assert torch.equal(indices[own], own[torch.from_numpy(index)])


@both_ways
def test_neighbours_that_a_place_lacks_are_far_away(x, nearest):
    distances, indices = nearest(x, 9, PLACES)
    large, small, _ = OWN
    assert (distances[small][:, :7] < 2).all() and (distances[small][:, 7:] > 1e5).all()
    assert (distances[large] < 2).all() and ((indices >= 0) & (indices < len(x))).all()


@both_ways
def test_an_empty_place_has_no_neighbours(nearest):
    distances, _ = nearest(torch.zeros(4, 3), 2, Places(torch.tensor([0]), 4))
    assert (distances > 1e5).all()


def test_places_are_rows_of_a_table(x):
    assert PLACES.exists.shape == (3, ROOM) and PLACES.exists.sum(dim=1).tolist() == SIZES
    assert torch.equal(PLACES.exists.flatten().nonzero()[:, 0], torch.cat(OWN))
    for row, within, number in zip(PLACES.rows(x), PLACES.slices(), PLACES.each(torch.arange(3)).view(3, -1)):
        assert torch.equal(row, x[within]) and len(number.unique()) == 1


def test_medians_of_places_are_those_of_numpy(x):
    for median, own in zip(PLACES.medians(x[:, 0]), OWN, strict=True):
        assert median == np.median(x[own, 0].numpy())
    assert Places(torch.tensor([0]), 4).medians(torch.zeros(4)).isinf().all()


def test_without_places_all_are_neighbours(x):
    distances, indices = nearest(x, 3)
    expected, index = cKDTree(x.numpy()).query(x.numpy(), k=3)
    torch.testing.assert_close(distances, torch.from_numpy(expected).float())
    assert torch.equal(indices, torch.from_numpy(index))


def surface(count, seed):
    """Points on a floor and a wall, one a 2 cm cell, somewhere far from zero; some twice as dense."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([2.0, 1.0])
    height = 0.002 * torch.randn(count, 1, generator=generator, dtype=torch.float64)
    floor, wall = torch.cat([flat, height], dim=1), torch.cat([flat[:, :1], height, flat[:, 1:]], dim=1)
    points = torch.cat([floor, wall])
    _, cell = torch.unique(torch.floor(points / 0.02).long(), dim=0, return_inverse=True)
    first = torch.full((int(cell.max()) + 1,), len(points)).scatter_reduce(0, cell, torch.arange(len(points)), "amin")
    dense = 0.2 * torch.rand(200, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1.0, 0.0])
    return torch.cat([points[first], dense]) + torch.tensor([400.0, -300.0, 2.0])


@pytest.mark.parametrize("count", [3000, 40])
def test_within_its_reach_cells_find_what_a_tree_finds(count):
    x = surface(count, seed=count)
    distances, indices = nearest_by_cells(x, 16)
    expected, index = nearest_by_tree(x, 16, None)
    within = distances < 1e5
    # of all neighbours that are as near as `Neighbourhood` asks for, none is missing
    asked = expected <= 2.5 * expected[:, 1].median()
    assert (within | ~asked).all() and asked.float().mean() > 0.1
    torch.testing.assert_close(distances[within], expected[within], atol=2e-5, rtol=0)
    same = indices == index
    assert (same | ~within | (distances.diff(dim=1, prepend=-distances[:, :1]).abs() < 1e-4)).float().mean() > 0.999
    assert torch.equal(indices[:, 0], torch.arange(len(x)))


def test_cells_of_few_points():
    x = torch.tensor([[0.0, 0.0, 0.0], [0.01, 0.0, 0.0], [5.0, 0.0, 0.0]])
    distances, indices = nearest_by_cells(x, 3)
    assert indices[:2, :2].tolist() == [[0, 1], [1, 0]] and int(indices[2, 0]) == 2
    torch.testing.assert_close(distances[:2, :2], torch.tensor([[0.0, 0.01], [0.0, 0.01]]))
    assert (distances[2, 1:] > 1e5).all() and (distances[:, 2] > 1e5).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_finds_the_same(x):
    distances, indices = nearest(x.cuda(), 5, Places(torch.tensor(SIZES, device="cuda"), ROOM))
    expected, index = nearest(x, 5, PLACES)
    own = torch.cat(OWN)
    torch.testing.assert_close(distances.cpu()[own], expected[own], atol=1e-5, rtol=0)
    assert torch.equal(indices.cpu()[own], index[own])
