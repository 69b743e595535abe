import math
from itertools import product

import pytest
import torch

from lerf_ros.field.encoding import GridLayout, HashGrid, HashGridConfig

# Dense and hashed levels, a dense level that needs padding to a multiple of 8, and a resolution that is not whole.
CONFIG = HashGridConfig(levels=6, features=2, log2_table=10, min_resolution=5, max_resolution=120)


def points(count, seed=0):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def grid(backend, config=CONFIG, spread=1.0):
    torch.manual_seed(1)
    module = HashGrid(config, backend)
    torch.nn.init.normal_(module.table, std=spread)
    return module


def encode_slowly(x_unit, table, config):
    """tinycudann's grid.h in plain Python: one point, one vertex, one feature at a time."""
    growth = (config.max_resolution / config.min_resolution) ** (1 / max(config.levels - 1, 1))
    rows, offset = [], 0
    encoded = [[] for _ in x_unit]
    for level in range(config.levels):
        scale = 2 ** (level * math.log2(growth)) * config.min_resolution - 1
        resolution = math.ceil(scale) + 1
        size = min(math.ceil(resolution**3 / 8) * 8, 2**config.log2_table)
        for i, point in enumerate(x_unit):
            cell = [math.floor(c * scale + 0.5) for c in point]
            fraction = [c * scale + 0.5 - v for c, v in zip(point, cell, strict=True)]
            values = [0.0] * config.features
            for corner in product((0, 1), repeat=3):
                vertex = [v + d for v, d in zip(cell, corner, strict=True)]
                if resolution**3 <= size:
                    index = vertex[0] + vertex[1] * resolution + vertex[2] * resolution**2
                else:
                    index = vertex[0] ^ (vertex[1] * 2654435761 % 2**32) ^ (vertex[2] * 805459861 % 2**32)
                weight = math.prod(f if d else 1 - f for f, d in zip(fraction, corner, strict=True))
                for f in range(config.features):
                    values[f] += weight * table[(offset + index % size) * config.features + f]
            encoded[i] += values
        offset += size
        rows.append(size)
    return torch.tensor(encoded), rows


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_agrees_with_plain_python(backend):
    module = grid(backend)
    x_unit = torch.cat([points(20), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.5]])])
    expected, sizes = encode_slowly(x_unit.tolist(), module.table.tolist(), CONFIG)
    assert module.layout.sizes.tolist() == sizes
    assert 0 < module.layout.hashed.sum() < CONFIG.levels
    torch.testing.assert_close(module(x_unit), expected, atol=2e-4, rtol=0)  # float32 coordinates in a table of std 1


def test_level_sizes_of_lerf():
    """Nerfacto's grid as tinycudann reports it: 16 levels, 2^19 entries, 16 .. 2048: 12,196,240 parameters."""
    layout = GridLayout.build(HashGridConfig(16, 2, 19, 16, 2048))
    assert layout.resolutions[0] == 16 and layout.sizes[0] == 16**3
    assert layout.offsets[-1] * 2 == 12_196_240


@pytest.mark.parametrize("features", [1, 2, 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_numba_agrees_with_torch_in_value_and_gradient(features, threads):
    config = HashGridConfig(levels=5, features=features, log2_table=12, min_resolution=8, max_resolution=200)
    x_unit = points(1000)  # not a multiple of the kernel's block
    reference, fast = grid("torch", config), grid("numba", config)
    fast.load_state_dict(reference.state_dict())
    cotangent = torch.randn(1000, reference.output_dim, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(fast(x_unit), reference(x_unit), atol=1e-4, rtol=1e-5)
        fast(x_unit).backward(cotangent)
    finally:
        torch.set_num_threads(before)
    reference(x_unit).backward(cotangent)
    torch.testing.assert_close(fast.table.grad, reference.table.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_gradient_that_is_there_is_added_to_in_place(backend):
    module, x_unit = grid(backend), points(300)
    cotangent = torch.randn(300, module.output_dim, generator=torch.Generator().manual_seed(2))
    (expected,) = torch.autograd.grad(module(x_unit), module.table, cotangent)
    module.table.grad = kept = torch.ones_like(module.table)
    for times in (1, 2):
        module(x_unit).backward(cotangent)
        assert module.table.grad is kept
        torch.testing.assert_close(kept, 1 + times * expected, atol=1e-4, rtol=1e-4)


def test_gradient_by_finite_differences():
    module = grid(
        "torch", HashGridConfig(levels=2, features=1, log2_table=4, min_resolution=2, max_resolution=6)
    ).double()
    x_unit = points(5).double()
    assert torch.autograd.gradcheck(
        lambda table: torch.func.functional_call(module, {"table": table}, x_unit), module.table
    )


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_continuous_across_cells(backend):
    module = grid(backend)
    x_unit = points(1, seed=3) + torch.linspace(0, 0.1, 2000)[:, None] * torch.tensor([[1.0, -0.5, 0.7]])
    steps = module(x_unit).diff(dim=0).abs().amax()
    assert steps < 0.1  # std 1 table, finest cell 1/119: one step is 1/150 of a cell


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_points_outside_the_cube_are_clamped_and_nan_is_harmless(backend):
    module = grid(backend)
    outside = torch.tensor([[-0.5, 0.3, 7.0], [0.2, 1.5, float("inf")]])
    torch.testing.assert_close(module(outside), module(outside.clamp(0, 1)))
    with torch.no_grad():
        assert module(torch.full((300, 3), float("nan"))).shape == (300, 12)


def test_the_choice_of_backend():
    assert HashGrid(CONFIG).backend == "numba"
    assert HashGrid(CONFIG).double().backend == "torch"
    assert HashGrid(CONFIG, "torch").backend == "torch"
    with pytest.raises(ValueError, match="auto, torch, numba"):
        HashGrid(CONFIG, "tcnn")
    with pytest.raises(ValueError, match="float32 table on the CPU"):
        HashGrid(CONFIG, "numba").double()(points(3))
    with pytest.raises(ValueError, match="N, 3"):
        HashGrid(CONFIG)(torch.zeros(5, 2))


@pytest.mark.parametrize("change", [{"levels": 0}, {"log2_table": 40}, {"min_resolution": 300}, {"features": 0}])
def test_impossible_sizes_are_refused(change):
    values = {"levels": 6, "features": 2, "log2_table": 10, "min_resolution": 5, "max_resolution": 120}
    with pytest.raises(ValueError):
        HashGridConfig(**(values | change))


def test_autocast_leaves_the_reference_exact():
    module, x_unit = grid("torch"), points(50)
    expected = module(x_unit)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), module.table)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x_unit)
    (gradient,) = torch.autograd.grad(found.square().sum(), module.table)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    torch.testing.assert_close(gradient, expected_gradient, atol=0, rtol=0)
