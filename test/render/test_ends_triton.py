"""The Triton kernel that finds where rays end against the torch reference in float64 (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.render.ends import Ends, ray_ends_torch
from test.kernels import needs_kernels, starts_interpreter
from test.render.test_composite_triton import SAMPLES, rays


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= len(SAMPLES) + 1


@needs_kernels
@pytest.mark.parametrize("samples", SAMPLES)
def test_rays_of_many_kinds_end_where_the_reference_says(samples):
    from lerf_ros.render.ends_triton import ray_ends_triton

    sigmas, _, t_edges, *_ = rays(samples)
    found, expected = Ends(*ray_ends_triton(sigmas, t_edges)), ray_ends_torch(sigmas.double(), t_edges.double())
    for name in ("weights", "t_median", "opacity"):
        torch.testing.assert_close(getattr(found, name).double(), getattr(expected, name), atol=2e-6, rtol=2e-5)
    known = expected.opacity > 1e-5  # of a ray that meets next to nothing, the spread is of no meaning
    torch.testing.assert_close(found.spread[known].double(), expected.spread[known], atol=1e-5, rtol=1e-4)
    assert known.sum() >= 4 and (expected.opacity == 0).any()


@needs_kernels
def test_no_rays():
    from lerf_ros.render.ends_triton import ray_ends_triton

    sigmas, _, t_edges, *_ = rays(12)
    assert [tuple(x.shape) for x in ray_ends_triton(sigmas[:0], t_edges[:0])] == [(0, 12), (0,), (0,), (0,)]
