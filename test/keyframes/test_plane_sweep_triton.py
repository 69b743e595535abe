"""The kernels of plane sweep and semi-global matching against their torch references."""

import pytest
import torch

from lerf_ros.keyframes.plane_sweep import NO_EVIDENCE, NOISE_VARIANCE, PATCH, plane_projections, plane_sweep_torch
from lerf_ros.keyframes.semi_global import EDGE, JUMP_PENALTY, STEP_PENALTY, aggregated_torch
from test.kernels import DEVICE, INTERPRETED, needs_kernels, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 9


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    """The interpreter runs one after another."""
    if INTERPRETED:
        from lerf_ros.keyframes import plane_sweep_triton

        monkeypatch.setattr(plane_sweep_triton, "_PIXELS", 256)


@pytest.fixture
def scene():
    """Grey images (3, 12, 18) of noise, and projections of two sources that see a part of the reference each."""
    generator = torch.Generator().manual_seed(0)
    greys = torch.rand(3, 12, 18, generator=generator)
    K = torch.tensor([[15.0, 0.0, 8.5], [0.0, 15.0, 5.5], [0.0, 0.0, 1.0]])
    T = torch.eye(4).repeat(2, 1, 1)
    T[0, 0, 3], T[1, 1, 3] = 0.3, -0.2
    T[1, :3, :3] = torch.linalg.matrix_exp(torch.tensor([[0.0, -0.05, 0.1], [0.05, 0.0, 0.02], [-0.1, -0.02, 0.0]]))
    return greys.to(DEVICE), plane_projections(K, K[None], T).to(DEVICE)


@needs_kernels
@pytest.mark.parametrize("planes", [5, 32, 40])
def test_costs_agree(scene, planes):
    from lerf_ros.keyframes.plane_sweep_triton import plane_sweep_triton

    greys, projections = scene
    q = torch.linspace(0.1, 2.0, planes, device=DEVICE)
    expected = plane_sweep_torch(greys[0], greys[1:], projections, q)
    got = plane_sweep_triton(greys[0], greys[1:], projections, q, PATCH, NOISE_VARIANCE, NO_EVIDENCE)
    # at the border of a source, rounding decides whether a pixel is shown
    assert ((got - expected).abs() > 1e-4).float().mean() < 0.01
    assert (expected == NO_EVIDENCE).any() and (expected != NO_EVIDENCE).any()


@needs_kernels
@pytest.mark.parametrize("views", [1, 2, 5, 8])
def test_the_better_half_of_some_views_agrees(views):
    from lerf_ros.keyframes.plane_sweep_triton import plane_sweep_triton

    generator = torch.Generator().manual_seed(2)
    greys = torch.rand(1 + views, 37, 61, generator=generator).to(DEVICE)
    K = torch.tensor([[50.0, 0.0, 30.0], [0.0, 50.0, 18.0], [0.0, 0.0, 1.0]])
    T = torch.eye(4).repeat(views, 1, 1)
    T[:, :3, 3] = torch.randn(views, 3, generator=generator) * 0.3
    projections = plane_projections(K, K[None], T).to(DEVICE)
    q = torch.linspace(0.0, 1.0, 3, device=DEVICE)
    expected = plane_sweep_torch(greys[0], greys[1:], projections, q)
    got = plane_sweep_triton(greys[0], greys[1:], projections, q, PATCH, NOISE_VARIANCE, NO_EVIDENCE)
    assert ((got - expected).abs() > 1e-4).float().mean() < 0.01


@needs_kernels
@pytest.mark.parametrize("planes", [6, 32])
def test_paths_agree(planes):
    from lerf_ros.keyframes.semi_global_triton import aggregated_triton

    generator = torch.Generator().manual_seed(1)
    cost = torch.rand(7, 9, planes, generator=generator).to(DEVICE)
    grey = torch.rand(7, 9, generator=generator).to(DEVICE)
    expected = aggregated_torch(cost, grey)
    torch.testing.assert_close(aggregated_triton(cost, grey, STEP_PENALTY, JUMP_PENALTY, EDGE), expected)
