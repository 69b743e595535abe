"""The Triton kernels of sampling against the torch references, with the same noise (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.captured import Captured
from lerf_ros.render.proposal import DensityGrid, propose_torch, update_torch
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import (
    depth_guided_edges,
    guided_edges_torch,
    midpoints,
    moved_edges,
    spaced_edges,
    stratified_edges,
)
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

NEAR, FAR, RADIUS = 0.15, 8.0, 2.0
NAN = float("nan")


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 40


def noise_of(rays, columns, jitter, generator):
    return torch.rand(rays, columns, generator=generator).to(DEVICE) if jitter else None


def bins_of(count, per_ray, rays, generator):
    """Common bins, or bins that differ from ray to ray."""
    common = spaced_edges(NEAR, FAR, count, RADIUS)
    if not per_ray:
        return common.to(DEVICE)
    return moved_edges(common, rays, torch.rand(rays, count + 1, generator=generator)).to(DEVICE)


def rays_of(count, generator):
    """Some begin in the contracted space."""
    origins = torch.randn(count, 3, generator=generator) * 0.6
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return Rays(origins.to(DEVICE), directions.to(DEVICE), RADIUS)


def grid_of(sigmas, resolution=16, decay=0.9):
    grid = DensityGrid(resolution, decay=decay).to(DEVICE)
    grid.sigmas.copy_(torch.as_tensor(sigmas))
    return grid


def rough_densities(resolution, generator):
    """Mostly empty space, thin fog, and cells as dense as walls."""
    density = torch.rand(resolution**3, generator=generator)
    return torch.where(density < 0.6, 0.0, torch.where(density < 0.9, 1e-3 * density, 500 * density))


def assert_ascend(edges, first, last):
    torch.testing.assert_close(edges[:, 0], first.expand(len(edges)), atol=1e-6, rtol=0)
    torch.testing.assert_close(edges[:, -1], last.expand(len(edges)), atol=1e-6, rtol=0)
    assert (edges.diff(dim=1) > -1e-6).all()


def assert_nearly_all_agree(found, expected, rays):
    """A share of the rays to 2 mm, and nearly all edges to 0.1 mm. A bin without density has 1e-4 of its ray's weight,
    so that 1e-7 of rounding in the CDF moves an edge by a thousandth of the bin, of which the last measure 0.5 m."""
    difference = (found - expected).abs()
    assert (difference < 2e-3).all(dim=1).float().mean() >= rays
    assert (difference < 1e-4).float().mean() > 0.99


# Around measured depth


SURFACES = {
    "known": [2.0, 0.9, 7.5, 3.0, 1.0],
    "some": [2.0, NAN, 7.5, NAN, 0.4],
    "none": [NAN] * 5,
    "nearer than near": [0.05, 0.15, 0.2, 0.16, NAN],
}


@needs_kernels
@pytest.mark.parametrize("surfaces", SURFACES)
@pytest.mark.parametrize("jitter", [False, True])
@pytest.mark.parametrize("per_ray", [False, True])
@pytest.mark.parametrize(("samples", "surface_samples"), [(48, 24), (7, 6)])
def test_guided_edges_agree(surfaces, jitter, per_ray, samples, surface_samples):
    from lerf_ros.render.sampling_triton import guided_edges_triton

    generator = torch.Generator().manual_seed(0)
    t_surface = torch.tensor(SURFACES[surfaces] * 8, device=DEVICE)  # more elements than one program has
    rays = len(t_surface)
    t_edges = bins_of(samples, per_ray, rays, generator)
    noise = noise_of(rays, samples + 1, jitter, generator)
    scalar = torch.tensor(0.06, device=DEVICE)
    for half_width in (scalar, scalar * (1 + torch.rand(rays, generator=generator).to(DEVICE))):
        arguments = t_edges, t_surface, half_width, NEAR, surface_samples, noise
        found, expected = guided_edges_triton(*arguments), guided_edges_torch(*arguments)
        torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-6)
        assert (found.diff(dim=1) > -1e-6).all()


@needs_kernels
def test_guided_edges_of_no_rays():
    from lerf_ros.render.sampling_triton import guided_edges_triton

    nothing = torch.zeros(0, device=DEVICE)
    t_edges = spaced_edges(NEAR, FAR, 8, RADIUS).to(DEVICE)
    edges = guided_edges_triton(t_edges, nothing, torch.tensor(0.1, device=DEVICE), NEAR, 4, None)
    assert edges.shape == (0, 9)


def test_common_edges_of_rays_without_depth_are_stratified():
    """The public function, which draws its own noise: common edges do as stratified ones did."""
    torch.manual_seed(0)
    common = spaced_edges(NEAR, FAR, 8, RADIUS)
    edges = depth_guided_edges(common, torch.full((4000,), NAN), torch.tensor(0.1), NEAR, 4)
    expected = stratified_edges(common, 4000)
    assert_ascend(edges, common[0], common[-1])
    middle = midpoints(common)
    assert (edges[:, 1:-1] >= middle[:-1] - 1e-6).all() and (edges[:, 1:-1] <= middle[1:] + 1e-6).all()
    torch.testing.assert_close(edges.mean(dim=0), expected.mean(dim=0), atol=0.03, rtol=0)
    torch.testing.assert_close(edges.std(dim=0), expected.std(dim=0), atol=0.03, rtol=0)
    still = depth_guided_edges(common, torch.full((2,), NAN), torch.tensor(0.1), NEAR, 4, jitter=False)
    torch.testing.assert_close(still, common.expand(2, -1))


# Proposals


def densities_of(kind, resolution, generator):
    count = resolution**3
    return {
        "rough": rough_densities(resolution, generator),
        "empty": torch.zeros(count),
        "faint": torch.full((count,), 1e-4),  # 1 - exp(-x) of nearly nothing
        "fog": torch.full((count,), 1e3),  # the first bin is as opaque as a bin can be
    }[kind]


@needs_kernels
@pytest.mark.parametrize("kind", ["rough", "empty", "faint", "fog"])
@pytest.mark.parametrize(("jitter", "explore"), [(False, 0.0), (True, 0.0), (True, 0.5)])
@pytest.mark.parametrize(("bins", "samples", "per_ray"), [(128, 64, False), (48, 12, False), (96, 48, True)])
def test_proposals_agree(kind, jitter, explore, bins, samples, per_ray):
    """But where the middle of a bin lies on the border of two cells: there rounding chooses, and the ray differs."""
    from lerf_ros.render.proposal_triton import propose_triton

    generator = torch.Generator().manual_seed(1)
    count = 16 if kind == "rough" else 3
    grid, rays = grid_of(densities_of(kind, 16, generator)), rays_of(count, generator)
    t_edges = bins_of(bins, per_ray, count, generator)
    noise = noise_of(count, samples + 1 + (0 if per_ray else bins + 1), jitter, generator)
    arguments = grid, rays, t_edges, samples, noise, explore
    found, expected = propose_triton(*arguments), propose_torch(*arguments)
    assert found.shape == expected.shape == (count, samples + 1)
    assert_ascend(found, t_edges[..., 0], t_edges[..., -1])
    assert_nearly_all_agree(found, expected, rays=0.85 if kind == "rough" else 1.0)


@needs_kernels
def test_proposals_follow_a_wall():
    """Independent of the reference: a solid 1.5 m away draws half of the samples to where it begins."""
    from lerf_ros.render.proposal_triton import propose_triton

    x = (torch.arange(64) + 0.5) / 64
    dense = torch.where((x - 0.5) * 4 * RADIUS > 1.5, 500.0, 0.0)[:, None, None].expand(64, 64, 64)
    grid = grid_of(dense.reshape(-1), resolution=64)
    directions = torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE).expand(8, -1)
    rays = Rays(torch.zeros(8, 3, device=DEVICE), directions, RADIUS)
    t_edges = spaced_edges(NEAR, FAR, 96, RADIUS).to(DEVICE)
    noise = noise_of(8, 17 + 97, True, torch.Generator().manual_seed(2))
    edges = propose_triton(grid, rays, t_edges, 16, noise, 0.0)
    assert ((midpoints(edges) - 1.5).abs() < 0.3).float().sum(dim=1).min() > 8


@needs_kernels
def test_bins_that_rays_share_in_memory_and_no_rays():
    from lerf_ros.render.proposal_triton import propose_triton

    generator = torch.Generator().manual_seed(3)
    grid, rays = grid_of(rough_densities(16, generator)), rays_of(4, generator)
    common = spaced_edges(NEAR, FAR, 48, RADIUS).to(DEVICE)
    shared = propose_triton(grid, rays, common.expand(4, -1), 12, None, 0.0)
    assert torch.equal(shared, propose_triton(grid, rays, common, 12, None, 0.0))
    nobody = Rays(rays.origins[:0], rays.directions[:0], RADIUS)
    assert propose_triton(grid, nobody, common, 12, None, 0.0).shape == (0, 13)


def test_common_bins_are_stratified_bins():
    """The reference, which both kinds of bins share."""
    generator = torch.Generator().manual_seed(4)
    grid, rays = DensityGrid(16), Rays(torch.zeros(8, 3), torch.randn(8, 3, generator=generator), RADIUS)
    common, noise = spaced_edges(NEAR, FAR, 48, RADIUS), torch.rand(8, 49 + 13, generator=generator)
    expected = propose_torch(grid, rays, moved_edges(common, 8, noise[:, :49]), 12, noise[:, 49:], 0.0)
    assert torch.equal(propose_torch(grid, rays, common, 12, noise, 0.0), expected)


# Updates


@needs_kernels
@pytest.mark.parametrize("resolution", [2, 16, 37])
@pytest.mark.parametrize("count", [1, 5, 1500])
def test_updates_agree(resolution, count):
    """To the last bit, and again and again; with resolution 2 hundreds of points fall into a cell, of several
    programs."""
    from lerf_ros.render.proposal_triton import update_triton

    generator = torch.Generator().manual_seed(count)
    sigmas = rough_densities(resolution, generator)
    found, expected = grid_of(sigmas, resolution), grid_of(sigmas, resolution)
    for _ in range(4):
        x_unit = torch.rand(count, 3, generator=generator) * 1.2 - 0.1  # some outside: of the cells beside them
        seen = torch.rand(count, generator=generator).mul(100) * (torch.rand(count, generator=generator) < 0.5)
        for grid, update in ((found, update_triton), (expected, update_torch)):
            update(grid, x_unit.to(DEVICE), seen.to(DEVICE))
        assert torch.equal(found.sigmas, expected.sigmas)
        assert not found.sigmas.signbit().any()


@needs_kernels
def test_an_update_decays_once_and_touches_nothing_else():
    from lerf_ros.render.proposal_triton import update_triton

    grid = grid_of(torch.arange(1.0, 65.0), resolution=4, decay=0.5)
    before = grid.sigmas.clone()
    x_unit = torch.full((1000, 3), 0.1, device=DEVICE)
    x_unit[600:] = 0.9  # the last cell
    seen = torch.zeros(1000, device=DEVICE)
    seen[700:703] = torch.tensor([40.0, 90.0, 33.0], device=DEVICE)
    update_triton(grid, x_unit, seen)
    assert grid.sigmas[0] == 0.5 and grid.sigmas[63] == 90.0
    assert torch.equal(grid.sigmas[1:63], before[1:63])
    update_triton(grid, x_unit[:0], seen[:0])
    assert grid.sigmas[0] == 0.5


@needs_kernels
def test_empty_cells_stay_empty_without_a_sign():
    from lerf_ros.render.proposal_triton import update_triton

    grid = grid_of(torch.zeros(8), resolution=2)
    update_triton(grid, torch.rand(300, 3, device=DEVICE), torch.zeros(300, device=DEVICE))
    assert not grid.sigmas.any() and not grid.sigmas.signbit().any()


# Points on rays


@needs_kernels
@pytest.mark.parametrize("samples", [1, 12, 48])
def test_points_of_intervals_agree(samples):
    from lerf_ros.render.rays_triton import x_unit_of_intervals_triton

    generator = torch.Generator().manual_seed(5)
    rays = rays_of(33, generator)
    t_edges = bins_of(samples, True, 33, generator)
    found = x_unit_of_intervals_triton(rays, t_edges)
    torch.testing.assert_close(found, rays.x_unit(midpoints(t_edges)), atol=1e-6, rtol=0)
    assert x_unit_of_intervals_triton(Rays(rays.origins[:0], rays.directions[:0], RADIUS), t_edges[:0]).numel() == 0


# Graphs


@needs_cuda
def test_sampling_can_be_captured_and_replayed():
    """Through the public functions, which choose the kernels: a replay does what a call does, with inputs that change,
    and draws new noise."""
    generator = torch.Generator().manual_seed(6)
    rays, grid = rays_of(64, generator), grid_of(rough_densities(16, generator))
    common = spaced_edges(NEAR, FAR, 128, RADIUS, DEVICE)
    even = spaced_edges(NEAR, FAR, 48, RADIUS, DEVICE)
    t_surface = torch.full((64,), 2.0, device=DEVICE)
    seen = torch.ones(64 * 48, device=DEVICE)
    half_width = torch.tensor(0.06, device=DEVICE)
    jitter = True

    def work():
        guided = depth_guided_edges(even, t_surface, half_width, NEAR, 24, jitter)
        proposed = grid.propose(rays, common, 48, jitter, 0.5)
        grid.update(rays.x_unit_of_intervals(proposed).flatten(0, 1), seen)
        return guided, proposed

    graph = Captured(work, torch.device("cuda"))
    for step in range(6):
        t_surface.fill_(1.0 + step)
        t_surface[::3] = NAN
        seen.fill_(10.0 * step)
        guided, proposed = (edges.clone() for edges in graph.run("jitter"))
        again = [edges.clone() for edges in graph.run("jitter")]
        assert not torch.equal(guided, again[0]) and not torch.equal(proposed, again[1])
        torch.testing.assert_close(guided[1::3, 24], torch.full_like(guided[1::3, 24], 0.94 + step))
        assert_ascend(guided[0::3], common[0], common[-1])
        assert_ascend(proposed, common[0], common[-1])

    jitter = False
    follower = grid_of(grid.sigmas)
    for step in range(6):
        seen.fill_(5.0 * step)
        expected = propose_torch(follower, rays, common, 48, None, 0.5)
        guided, proposed = graph.run("still")
        torch.testing.assert_close(guided, guided_edges_torch(even, t_surface, half_width, NEAR, 24, None))
        assert_nearly_all_agree(proposed, expected, rays=0.9)
        follower.sigmas.copy_(grid.sigmas)  # bins at a cell's border must not add up
