"""Depth from colour alone: field, proposal grid and rendering together, on a scene with analytic truth."""

import pytest
import torch

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.radiance import RadianceField
from lerf_ros.geometry.camera import Camera, directions_from_uv
from lerf_ros.render.proposal import DensityGrid
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import midpoints, spaced_edges, stratified_edges
from lerf_ros.render.volume import accumulate, median_depth, weights_from_sigmas

HALF_SIZE = torch.tensor([2.0, 1.6, 1.2])  # of the room, m
BALL, BALL_RADIUS = torch.tensor([0.5, 0.2, -0.5]), 0.5
RADIUS, NEAR, FAR = 2.5, 0.05, 6.0
CAMERA = Camera(fx=48, fy=48, cx=31.5, cy=23.5, width=64, height=48)


def trace(origins, directions):
    """A box-shaped room, painted with waves, and a ball of other colours in it: distances (R,) and rgb (R, 3)."""
    t_wall = ((directions.sign() * HALF_SIZE - origins) / directions).amin(dim=-1)
    to_ball = origins - BALL
    b = (to_ball * directions).sum(dim=-1)
    root = b**2 - to_ball.square().sum(dim=-1) + BALL_RADIUS**2
    t_ball = torch.where((root > 0) & (b < 0), -b - root.clamp_min(0).sqrt(), torch.inf)
    t = torch.minimum(t_wall, t_ball)
    frequencies = torch.randn(6, 3, generator=torch.Generator().manual_seed(5)) * torch.tensor([[4.0], [12.0]]).repeat(
        3, 1
    )
    waves = torch.sin((origins + t[:, None] * directions) @ frequencies.T).reshape(-1, 3, 2)
    rgb = 0.5 + 0.22 * waves.sum(dim=-1)
    return t, torch.where((t_ball < t_wall)[:, None], 1 - 0.8 * rgb, rgb)


def random_view():
    while True:
        position = (torch.rand(3) * 2 - 1) * HALF_SIZE * 0.6
        if (position - BALL).norm() > 0.8:
            break
    rotation = torch.linalg.qr(torch.randn(3, 3))[0]
    directions, _ = directions_from_uv(CAMERA.pixel_grid(), CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    return position.expand(len(directions), 3), directions @ rotation.T


@pytest.mark.slow
def test_depth_is_learned_from_colour_alone():
    torch.manual_seed(0)
    field = RadianceField(HashGridConfig(10, 2, 15, 16, 512), hidden=32)
    grid = DensityGrid(64)
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2, eps=1e-15)
    bins = spaced_edges(NEAR, FAR, 96, knee=RADIUS)

    def render(origins, directions, jitter):
        rays = Rays(origins / RADIUS, directions, RADIUS)
        t_edges = grid.propose(rays, stratified_edges(bins, len(origins), jitter), 32, jitter)
        x_unit = rays.x_unit(midpoints(t_edges)).flatten(0, 1)
        sigmas, geometry = field.density(x_unit)
        weights = weights_from_sigmas(sigmas.view(-1, 32), t_edges.diff(dim=-1))
        rgb = accumulate(weights, field.colour(geometry, directions).view(-1, 32, 3))
        grid.update(x_unit, sigmas.detach())
        return rgb, median_depth(weights, t_edges)

    origins, directions = (torch.cat(parts) for parts in zip(*(random_view() for _ in range(150)), strict=True))
    _, colours = trace(origins, directions)
    test_origins, test_directions = random_view()
    t_true, rgb_true = trace(test_origins, test_directions)

    def median_error():
        with torch.no_grad():
            return (render(test_origins, test_directions, jitter=False)[1] - t_true).abs().median().item()

    untrained = median_error()
    for step in range(300):
        chosen = torch.randint(len(origins), (256,))
        rgb, _ = render(origins[chosen], directions[chosen], jitter=True)
        loss = (rgb - colours[chosen]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 8 == 0:
            points = grid.random_points(4096)
            with torch.no_grad():
                grid.update(points, field.density(points)[0])
    assert median_error() < min(0.25, 0.3 * untrained)
