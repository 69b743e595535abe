import pytest
import torch

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.render.proposal import DensityGrid
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import midpoints, spaced_edges, stratified_edges

RADIUS = 2.0


def rays_along_x(count):
    return Rays(torch.zeros(count, 3), torch.tensor([[1.0, 0.0, 0.0]]).expand(count, -1), RADIUS)


def test_points_on_rays_are_where_the_scene_bounds_put_them():
    bounds = SceneBounds(center=(10.0, -3.0, 1.0), radius=RADIUS)
    torch.manual_seed(0)
    origins = torch.tensor(bounds.center) + torch.randn(5, 3)
    directions = torch.nn.functional.normalize(torch.randn(5, 3), dim=-1)
    t = torch.rand(5, 4) * 6
    x_world = origins[:, None] + t[..., None] * directions[:, None]
    x_unit = Rays(bounds.to_local(origins), directions, RADIUS).x_unit(t)
    torch.testing.assert_close(x_unit.reshape(-1, 3), bounds.to_unit(x_world.reshape(-1, 3)))


def test_a_new_grid_samples_evenly():
    grid = DensityGrid(32, initial_density=0.01)
    bins = spaced_edges(0.1, 6.0, 96, knee=RADIUS)
    edges = grid.propose(rays_along_x(3), stratified_edges(bins, 3, jitter=False), 24, jitter=False)
    assert edges.shape == (3, 25)
    assert (edges.diff(dim=-1).amax() / edges.diff(dim=-1).amin()) < 4  # bins differ by 2 themselves


@pytest.mark.parametrize("t_surface", [1.02, 1.07, 1.11, 1.16])
def test_samples_gather_around_a_surface_wherever_it_lies_in_its_cell(t_surface):
    """A solid behind t_surface; the cells measure 12.5 cm (4 * 2 m / 64)."""
    grid = DensityGrid(64, decay=0.2)
    axis = (torch.arange(64 * 4) + 0.5) / (64 * 4)
    x_unit = torch.cartesian_prod(axis, *(torch.tensor([0.495, 0.505]),) * 2)  # the cells beside the rays
    for _ in range(10):
        grid.update(x_unit, torch.where((x_unit[:, 0] - 0.5) * 4 * RADIUS > t_surface, 500.0, 0.0))
    bins = spaced_edges(0.1, 6.0, 96, knee=RADIUS)
    edges = grid.propose(rays_along_x(200), stratified_edges(bins, 200), 16)
    torch.testing.assert_close(edges[:, [0, -1]], torch.tensor([[0.1, 6.0]]).expand(200, -1))
    near_surface = (midpoints(edges) - t_surface).abs() < 0.3
    assert near_surface.float().sum(dim=-1).mean() > 8  # even sampling would give 2
    at_surface = (edges[:, :-1] <= t_surface) & (edges[:, 1:] > t_surface)
    assert edges.diff(dim=-1)[at_surface].median() < 0.06


def test_update_takes_the_largest_density_of_a_cell_and_lets_old_ones_fade():
    grid = DensityGrid(4, initial_density=1.0, decay=0.5)
    inside = torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.2, 0.2], [0.9, 0.9, 0.9]])  # two in the first cell, one in the last
    grid.update(inside, torch.tensor([3.0, 7.0, 0.2]))
    assert grid.density(inside).tolist() == [7.0, 7.0, 0.5]
    grid.update(inside[:2], torch.tensor([0.0, 0.0]))
    assert grid.density(inside).tolist() == [3.5, 3.5, 0.5]
    assert grid.sigmas.sum().item() == 62 + 3.5 + 0.5  # nothing else was touched


def test_cells_follow_the_axes_and_the_border_is_inside():
    grid = DensityGrid(4, initial_density=0.0)
    grid.update(torch.tensor([[0.9, 0.1, 0.4]]), torch.tensor([5.0]))
    assert grid.sigmas.reshape(4, 4, 4).nonzero().tolist() == [[3, 0, 1]]
    assert grid.density(torch.tensor([[1.0, 0.0, 0.26]])).item() == 5.0
    assert grid.density(torch.tensor([1.3, -2.0, 0.26])).item() == 5.0


def test_random_points_reach_every_cell():
    torch.manual_seed(0)
    grid = DensityGrid(4, initial_density=1.0, decay=0.5)
    points = grid.random_points(4000)
    assert points.min() >= 0 and points.max() <= 1
    grid.update(points, torch.zeros(4000))
    assert (grid.sigmas == 0.5).all()
    assert (((points - 0.5).abs() < 0.25).all(dim=-1).float().mean() - (0.5 + 0.5 / 8)).abs() < 0.05


@pytest.mark.parametrize("values", [{"resolution": 0}, {"resolution": 8, "decay": 1.0}])
def test_impossible_grids_are_refused(values):
    with pytest.raises(ValueError):
        DensityGrid(**values)


def test_exploring_samples_reach_behind_what_is_taken_for_dense():
    grid = DensityGrid(16, initial_density=1e3)  # fog everywhere: only its beginning is sampled
    bins = stratified_edges(spaced_edges(0.1, 6.0, 96, knee=RADIUS), 50, jitter=False)
    behind = [
        (midpoints(grid.propose(rays_along_x(50), bins, 40, jitter=False, explore=share)) > 2.0).float().mean()
        for share in (0.0, 0.5, 1.0)
    ]
    evenly = (midpoints(bins) > 2.0).float().mean()
    assert behind[0] < 0.05
    assert behind[1] == pytest.approx(float(evenly) / 2, abs=0.05) and behind[2] == pytest.approx(
        float(evenly), abs=0.05
    )
