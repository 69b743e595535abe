"""Semi-global matching against a direct dynamic program."""

import numpy as np
import pytest
import torch

from lerf_ros.keyframes import semi_global
from lerf_ros.keyframes.semi_global import DIRECTIONS, EDGE, JUMP_PENALTY, STEP_PENALTY, aggregated_torch


def volume(height=5, width=6, planes=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 2, (height, width, planes)), rng.random((height, width))


def along_paths(cost, grey, rows, columns):
    """L of one direction, pixel by pixel and plane by plane: equation 12 of the paper as it stands."""
    height, width, planes = cost.shape
    L = np.full(cost.shape, np.nan)
    for y in range(height) if rows >= 0 else reversed(range(height)):
        for x in range(width) if columns >= 0 else reversed(range(width)):
            py, px = y - rows, x - columns
            if not (0 <= py < height and 0 <= px < width):
                L[y, x] = cost[y, x]
                continue
            jump = max(JUMP_PENALTY / (1 + abs(grey[y, x] - grey[py, px]) / EDGE), STEP_PENALTY)
            for d in range(planes):
                penalties = [0 if k == d else STEP_PENALTY if abs(k - d) == 1 else jump for k in range(planes)]
                L[y, x, d] = cost[y, x, d] + np.min(L[py, px] + penalties) - L[py, px].min()
    return L


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_each_direction_is_a_dynamic_program(monkeypatch, direction):
    monkeypatch.setattr(semi_global, "DIRECTIONS", (direction,))
    cost, grey = volume()
    found = aggregated_torch(torch.from_numpy(cost), torch.from_numpy(grey))
    np.testing.assert_allclose(found, along_paths(cost, grey, *direction))


def test_all_directions_count_alike():
    cost, grey = volume(seed=1)
    expected = np.mean([along_paths(cost, grey, *direction) for direction in DIRECTIONS], axis=0)
    np.testing.assert_allclose(aggregated_torch(torch.from_numpy(cost), torch.from_numpy(grey)), expected)
    assert len(set(DIRECTIONS)) == 8 and all((-y, -x) in DIRECTIONS for y, x in DIRECTIONS)


def cost_of(planes_of_columns, planes=20, height=9):
    """0 at the plane of each column, 1 elsewhere; without texture (None) 0.5, give or take noise."""
    rng = np.random.default_rng(2)
    cost = np.ones((height, len(planes_of_columns), planes))
    for column, plane in enumerate(planes_of_columns):
        if plane is None:
            cost[:, column] = 0.5 + rng.uniform(-0.01, 0.01, (height, planes))
        else:
            cost[:, column, plane] = 0
    return torch.from_numpy(cost)


def test_a_gap_in_a_plane_is_filled():
    cost = cost_of([5] * 6 + [None] * 12 + [5] * 6)
    assert (cost.argmin(dim=2)[:, 6:18] != 5).float().mean() > 0.8
    assert (aggregated_torch(cost, torch.full((9, 24), 0.5)).argmin(dim=2) == 5).all()


@pytest.mark.parametrize("edge", [8, 15])
def test_a_gap_is_filled_from_both_sides_up_to_the_edge_in_the_image(edge):
    cost = cost_of([4] * 6 + [None] * 12 + [16] * 6)
    grey = torch.full((9, 24), 0.1)
    grey[:, edge:] = 0.9
    found = aggregated_torch(cost, grey).argmin(dim=2)
    assert ((found[:, :edge] - 4).abs() <= 2).all() and ((found[:, edge:] - 16).abs() <= 2).all()


def test_jumps_cost_half_where_the_grey_value_changes_by_the_edge(monkeypatch):
    monkeypatch.setattr(semi_global, "DIRECTIONS", ((0, 1),))
    cost = torch.zeros(1, 2, 9, dtype=torch.float64)
    cost[0, 0, 1:] = 10.0  # plane 0 is certain
    for change, jump in [(0.0, JUMP_PENALTY), (EDGE, JUMP_PENALTY / 2), (3 * EDGE, JUMP_PENALTY / 4), (1e6, 0.1)]:
        grey = torch.tensor([[0.2, 0.2 + change]], dtype=torch.float64)
        found = aggregated_torch(cost, grey)[0, 1]
        assert found[0] == 0 and found[1] == pytest.approx(STEP_PENALTY)
        assert found[2:] == pytest.approx(np.full(7, jump))


def test_a_slope_of_one_plane_a_pixel_is_followed():
    cost = cost_of(list(range(2, 18)))
    assert (aggregated_torch(cost, torch.full((9, 16), 0.5)).argmin(dim=2) == torch.arange(2, 18)).all()
