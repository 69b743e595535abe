import pytest
import torch

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.radiance import RadianceField
from lerf_ros.render.proposal import DensityGrid
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import depth_guided_edges, midpoints, spaced_edges, stratified_edges
from lerf_ros.render.volume import accumulate, expected_depth, weights_from_sigmas

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def test_a_training_step_can_be_captured_and_replayed():
    """Sampling, field, rendering, backward pass and grid update: no synchronisation, no shape that depends on data."""
    torch.manual_seed(0)
    field = RadianceField(HashGridConfig(4, 2, 14, 16, 128)).cuda()
    grid = DensityGrid(32).cuda()
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2, capturable=True)
    bins = spaced_edges(0.1, 6.0, 32, knee=2.0, device="cuda")
    origins = torch.zeros(64, 3, device="cuda")
    directions = torch.nn.functional.normalize(torch.randn(64, 3, device="cuda"), dim=-1)
    t_surface = torch.where(torch.arange(64, device="cuda") % 2 == 0, 2.0, torch.nan)
    half_width = torch.full_like(t_surface, 0.1)
    target = torch.tensor([0.2, 0.5, 0.9], device="cuda")

    def step():
        rays = Rays(origins, directions, 2.0)
        proposed = grid.propose(rays, stratified_edges(bins, 64), 12)
        t_edges = depth_guided_edges(proposed, t_surface, half_width, near=0.1, surface_samples=6)
        x_unit = rays.x_unit(midpoints(t_edges)).flatten(0, 1)
        sigmas, geometry = field.density(x_unit)
        weights = weights_from_sigmas(sigmas.view(64, -1), t_edges.diff(dim=-1))
        rgb = accumulate(weights, field.colour(geometry, directions).view(64, -1, 3))
        loss = (rgb - target).square().mean() + 0.1 * (expected_depth(weights, t_edges) - 2.0).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)
        grid.update(x_unit, sigmas.detach())
        return loss.detach()

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(3):
            first = step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for _ in range(200):
        graph.replay()
    assert captured.item() < 0.2 * first.item()
