"""The Triton kernel that smooths a sweep over the surface against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.geometry.neighbours import Places
from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.relevancy import half_step, scale_sweep
from lerf_ros.query.smoothing import Smoother
from lerf_ros.query.sweep import Sweep
from test.kernels import DEVICE, needs_kernels, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 2


@needs_kernels
@pytest.mark.parametrize("sizes", [None, [50, 7, 52]])
def test_ranks_and_relevancy_agree(sizes):
    from lerf_ros.query.smoothing_triton import smoothed_triton

    N, S, generator = 156, 6, torch.Generator().manual_seed(0)
    low = 0.03 + 0.3 * torch.rand(N, generator=generator)
    high = low + torch.rand(N, generator=generator) - 0.2  # of some points nothing is known
    x_world, ranks, offset = (torch.rand(*shape, generator=generator) for shape in ((N, 3), (S, N), (S, N)))
    x_world, ranks, offset, low, high = (each.to(DEVICE) for each in (x_world.double(), ranks, offset, low, high))
    views, covariance = torch.ones(N, dtype=torch.int64, device=DEVICE), torch.zeros(N, 3, 3, device=DEVICE)
    points = SurfacePoints(x_world, x_world.float(), views, low, high, covariance)
    places = Places(torch.tensor(sizes, device=DEVICE), 52) if sizes else None
    near, scales = Neighbourhood(x_world, places=places), scale_sweep(low, high, S, places)
    expected = Smoother(points, near).means_torch(Sweep(scales, ranks, offset))
    found = smoothed_triton(scales, half_step(scales), low, high, ranks, offset, near.members, near.shares)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    unknown = torch.isinf(expected[0])
    assert 0.1 < unknown.float().mean() < 0.9 and (expected[1][unknown] == 0).all()
