"""Regions of maxima on a surface with random bumps, against a plain search with SciPy's connected components."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lerf_ros.geometry.neighbours import Places
from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.maxima import Floor, MaximaFinder
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.smoothing import Smoother
from lerf_ros.query.sweep import Sweep

S, SUPPORT, PROMINENCE = 5, 4, 0.9
NAMES = tuple(field.name for field in fields(SurfacePoints))


def bumps(N, seed):
    """N points of a table top, and a sweep with a dozen bumps of different scales, widths and heights on it; a tenth of
    the points are not known at the smallest scale, some not at all."""
    generator = np.random.default_rng(seed)
    x = np.concatenate([generator.random((N, 2)), np.full((N, 1), 0.7)], axis=1)
    ranks = 0.1 * generator.standard_normal((S, N))
    for _ in range(12):
        width, at_scale = 0.02 + 0.06 * generator.random(), np.abs(np.arange(S) - generator.integers(S))[:, None]
        square = np.square(x - x[generator.integers(N)]).sum(axis=1)
        ranks += (1 + 2 * generator.random()) * np.exp(-square / width**2 - at_scale)
    low, high = np.where(generator.random(N) < 0.1, 0.2, 0.1), np.where(generator.random(N) < 0.03, 0.0, 1.0)
    down = torch.tensor([0.0, 0.0, -1.0]).expand(N, 3)
    points = SurfacePoints(
        torch.from_numpy(x),
        down,
        torch.ones(N, dtype=torch.int64),
        *(torch.from_numpy(each).float() for each in (low, high)),
        torch.from_numpy(generator.random((N, 3, 3))).float(),
    )
    scales, offset = torch.linspace(0.1, 1.0, S), torch.from_numpy(generator.random((S, N))).float()
    return points, Sweep(scales, torch.from_numpy(ranks).float(), offset)


def finder_and_heights(points, sweep, places=None):
    near = Neighbourhood(points.x_world, places=places)
    finder = MaximaFinder(points, near, SUPPORT, PROMINENCE)
    return finder, finder.heights(Smoother(points, near)(sweep))


def searched(points, heights):
    """(height, relevancy, scale, support, covered, floor) of every region, the slow way."""
    near = Neighbourhood(points.x_world)
    members, counts = near.members.numpy(), near.counts.numpy()
    N = len(members)
    to = csr_matrix((np.ones(members.size), members.flatten(), np.arange(N + 1) * members.shape[1]), shape=(N, N))

    def component(seed, values, least):
        (high,) = np.nonzero(values >= np.float32(least))
        labels = connected_components(to[high][:, high], connection="weak")[1]
        return high[labels == labels[np.searchsorted(high, seed)]]

    def above(seed, values, floor, share):
        return component(seed, values, floor + share * (values[seed] - floor))

    values, peak = heights.values, heights.values.max(axis=0)
    rank_floor = np.median(peak[np.isfinite(peak)])
    claimed, gone = np.zeros(N, bool), counts < SUPPORT
    while (left := np.where(gone, -np.inf, peak)).max() >= rank_floor:
        seed = left.argmax()
        ridge = above(seed, peak, rank_floor, PROMINENCE)
        region = above(seed, values[values[:, seed].argmax()], rank_floor, 0.6)
        s = np.where(np.isfinite(values), values, rank_floor)[:, region].mean(axis=1).argmax()
        seed = region[values[s, region].argmax()]
        region = above(seed, values[s], rank_floor, 0.6)
        support = (heights.own[s, region] >= values[s, region].min()).sum()
        if not claimed[ridge].any() and support >= SUPPORT:
            seed = region[values[s, region].argmax()]
            relevancy, floor = heights.relevancy[s], np.median(heights.relevancy[s])
            covered = component(seed, relevancy, min((floor + relevancy[seed]) / 2, relevancy[seed]))
            yield values[s, seed], relevancy[seed], heights.scales[s], support, covered, Floor(rank_floor, floor)
        for each in (ridge, region):
            claimed[each] = gone[each] = True


@pytest.mark.parametrize(("N", "seed"), [(1500, 0), (1501, 1)])  # medians of an even and of an odd number
def test_regions_are_those_of_a_plain_search(N, seed):
    points, sweep = bumps(N, seed)
    finder, heights = finder_and_heights(points, sweep)
    regions, expected = list(finder.regions(heights)), list(searched(points, heights))
    assert len(regions) == len(expected) > 5 and len({region.scale for region in regions}) > 2
    for region, (height, relevancy, scale, support, covered, floor) in zip(regions, expected, strict=True):
        assert (region.height, region.relevancy, region.scale) == pytest.approx((height, relevancy, scale))
        assert region.support == support and region.floor == pytest.approx(floor)
        assert region.covered.tolist() == points.x_world[covered].tolist()
        (own,) = (points.x_world.numpy() == region.position).all(axis=1).nonzero()[0]
        assert region.covariance.tolist() == points.covariance[own].tolist()
        off = points.x_world[: N // 3].numpy() - region.position
        distances = np.linalg.norm(region.covered - region.position - off[:, None], axis=2).min(axis=1)
        for position, distance in zip(region.position + off, distances, strict=True):
            assert region.distance(position) == pytest.approx(distance)


def test_places_are_searched_as_if_each_were_alone():
    room, sizes, floor = 700, (700, 400, 600), Floor(0.2, 0.5)
    full = [bumps(room, seed) for seed in (3, 4, 5)]
    alone = []
    for size, (points, sweep) in zip(sizes, full, strict=True):
        points.scale_max[size:] = 0.0  # these only fill the place up
        own_points = SurfacePoints(*(getattr(points, name)[:size] for name in NAMES))
        own_sweep = Sweep(sweep.scales, sweep.ranks[:, :size], sweep.offset[:, :size])
        own, heights = finder_and_heights(own_points, own_sweep)
        alone.append(list(own.regions(heights, floor)))
    every = SurfacePoints(*(torch.cat([getattr(points, name) for points, _ in full]) for name in NAMES))
    places = Places(torch.tensor(sizes), room)
    scales = full[0][1].scales[:, None].expand(S, 3 * room)
    together = (torch.cat([getattr(sweep, name) for _, sweep in full], dim=1) for name in ("ranks", "offset"))
    finder, heights = finder_and_heights(every, Sweep(scales, *together), places)
    for within, expected in zip(places.slices(), alone, strict=True):
        found = list(finder.regions(heights, floor, within))
        assert len(found) == len(expected) > 2
        for one, other in zip(found, expected, strict=True):
            assert (one.support, one.scale) == (other.support, other.scale)
            assert one.covered.tolist() == other.covered.tolist() and one.position.tolist() == other.position.tolist()


def test_what_is_around_a_position():
    points, sweep = bumps(500, 0)
    finder, _ = finder_and_heights(points, sweep)
    position = np.array([0.5, 0.4, 0.75])
    inside = sorted(cKDTree(points.x_world.numpy()).query_ball_point(position, 0.15))
    assert 10 < len(inside) < 100
    assert finder.around(position, 0.15).tolist() == points.x_world[inside].tolist()
    assert finder.around(position, 0.01).tolist() == [position.tolist()]


def test_nothing_known_is_no_region():
    points, sweep = bumps(50, 0)
    points.scale_max.fill_(0.0)
    finder, heights = finder_and_heights(points, sweep)
    assert list(finder.regions(heights)) == []
