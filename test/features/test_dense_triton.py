"""The Triton kernel of dense features at pixels against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.features.dense import DenseGrid
from test.kernels import DEVICE, needs_kernels, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 4


@needs_kernels
@pytest.mark.parametrize(
    ("rows", "dim", "dtype"),
    [(30, 384, torch.float16), (6, 20, torch.float32), (1, 3, torch.float32), (15, 128, torch.float16)],
)
def test_agrees_with_the_reference(rows, dim, dtype):
    from lerf_ros.features.dense_triton import interpolate_triton

    grid = DenseGrid.build(48, 64, rows)
    generator = torch.Generator().manual_seed(dim)
    buffer = torch.randn(3, grid.rows, grid.columns, dim, generator=generator).to(dtype)
    slots = torch.randint(3, (50,), generator=generator)
    uv = torch.rand(50, 2, generator=generator) * torch.tensor([64.0, 48.0]) - 0.5
    uv[:4] = torch.tensor([[-0.5, -0.5], [63.5, 47.5], [-9.0, 20.0], [30.0, 90.0]])
    expected = grid.interpolate(buffer, slots, uv)  # on the CPU: the reference
    found = interpolate_triton(buffer.to(DEVICE), slots.to(DEVICE), uv.to(DEVICE), grid.height, grid.width)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)
