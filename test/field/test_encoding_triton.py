"""The Triton kernels against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.field.encoding import GridLayout, HashGrid, HashGridConfig, encode_torch
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

# Dense levels, one of them padded to a multiple of 8, hashed ones, and a resolution that is not whole.
CONFIGS = {features: HashGridConfig(5, features, 10, 5, 120) for features in (1, 2, 3, 4, 8)}
ALL_DENSE = HashGridConfig(levels=2, features=2, log2_table=14, min_resolution=2, max_resolution=20)


def points(count=150, seed=0):
    """Random points, and the places where floor, wrap and clamp happen; not a multiple of any block."""
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.5], [0.0, 1.0, 1.0], [1.5, -0.2, 3e38]])
    borders = (torch.arange(12)[:, None] + torch.tensor([0.5, 1.5, 2.5])) / 119.0  # of the finest level's cells
    random = torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))
    return torch.cat([corners, borders, random]).to(DEVICE)


def table_of(config, seed=1):
    count = int(GridLayout.build(config).offsets[-1]) * config.features
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(DEVICE).requires_grad_()


def cotangent_of(x_unit, config, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(x_unit), config.levels * config.features, generator=generator).to(DEVICE)


def backward(encode, x_unit, table, layout, cotangent):
    encoded = encode(x_unit, table, layout)
    return encoded.detach(), *torch.autograd.grad(encoded, table, cotangent)


@pytest.fixture
def encode_triton():
    from lerf_ros.field.encoding_triton import encode_triton

    return encode_triton


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 13


@needs_kernels
@pytest.mark.parametrize("config", [*CONFIGS.values(), ALL_DENSE], ids=lambda config: f"{config.features}")
def test_agrees_with_torch_in_value_and_gradient(encode_triton, config):
    x_unit, table, layout = points(), table_of(config), GridLayout.build(config)
    cotangent = cotangent_of(x_unit, config)
    assert layout.hashed.any() == (config is not ALL_DENSE) and not layout.hashed.all()
    reference = backward(encode_torch, x_unit.double(), table.detach().double().requires_grad_(), layout, cotangent)
    for found, expected in zip(backward(encode_triton, x_unit, table, layout, cotangent), reference):
        torch.testing.assert_close(found, expected.float(), atol=3e-4, rtol=1e-5)  # float32 coordinates, table of std 1


@needs_kernels
def test_hash_of_vertices_beyond_31_bits(encode_triton):
    """LERF's sizes: products of vertices and primes overflow 32 bits, and entries of all levels are many."""
    config = HashGridConfig(levels=3, features=2, log2_table=19, min_resolution=512, max_resolution=2048)
    x_unit, table, layout = points(60), table_of(config), GridLayout.build(config)
    with torch.no_grad():
        expected = encode_torch(x_unit.double(), table.double(), layout).float()
        torch.testing.assert_close(encode_triton(x_unit, table, layout), expected, atol=5e-3, rtol=0)  # 2048 * 2^-24


@needs_kernels
def test_gradients_of_a_slice_and_of_an_expanded_scalar(encode_triton):
    config = CONFIGS[4]
    x_unit, table, layout = points(20), table_of(config), GridLayout.build(config)
    wide = torch.cat([encode_triton(x_unit, table, layout), torch.ones(len(x_unit), 3, device=DEVICE)], dim=1)
    cotangent = torch.cat([cotangent_of(x_unit, config), torch.ones(len(x_unit), 3, device=DEVICE)], dim=1)
    _, expected = backward(encode_torch, x_unit, table, layout, cotangent[:, :-3])
    torch.testing.assert_close(torch.autograd.grad(wide, table, cotangent)[0], expected, atol=3e-4, rtol=1e-5)

    (expected,) = torch.autograd.grad(encode_torch(x_unit, table, layout).sum(), table)
    (found,) = torch.autograd.grad(encode_triton(x_unit, table, layout).sum(), table)
    torch.testing.assert_close(found, expected, atol=3e-4, rtol=1e-5)


@needs_kernels
def test_a_bad_point_spoils_only_itself(encode_triton):
    config = CONFIGS[2]
    x_unit, table, layout = points(20), table_of(config), GridLayout.build(config)
    expected = encode_triton(x_unit, table, layout)
    spoilt = x_unit.clone()
    spoilt[3, 1] = torch.nan
    found = encode_triton(spoilt, table, layout)
    assert found[3].isnan().all()
    kept = torch.arange(len(x_unit), device=DEVICE) != 3
    torch.testing.assert_close(found[kept], expected[kept], atol=0, rtol=0)


@needs_kernels
def test_a_gradient_that_is_there_is_added_to_in_place(encode_triton):
    config = CONFIGS[4]
    x_unit, table, layout = points(20), table_of(config), GridLayout.build(config)
    cotangent = cotangent_of(x_unit, config)
    _, expected = backward(encode_torch, x_unit, table, layout, cotangent)
    table.grad = kept = torch.ones_like(table)
    for times in (1, 2):
        encode_triton(x_unit, table, layout).backward(cotangent)
        assert table.grad is kept
        torch.testing.assert_close(kept, 1 + times * expected, atol=6e-4, rtol=1e-5)


@needs_kernels
def test_no_points(encode_triton):
    config = CONFIGS[2]
    table = table_of(config)
    encoded = encode_triton(torch.zeros(0, 3, device=DEVICE), table, GridLayout.build(config))
    assert encoded.shape == (0, 10)
    encoded.sum().backward()
    assert table.grad is not None and not table.grad.any()


@needs_kernels
def test_autocast_rounds_the_result_alone(encode_triton):
    config = CONFIGS[2]
    x_unit, table, layout = points(20), table_of(config), GridLayout.build(config)
    cotangent = cotangent_of(x_unit, config).bfloat16()
    exact, expected = backward(encode_triton, x_unit, table, layout, cotangent.float())
    with torch.autocast(DEVICE, torch.bfloat16):
        found, gradient = backward(encode_triton, x_unit, table, layout, cotangent)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0, rtol=2**-7)  # the interpreter cuts bits off
    torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-5)  # sums come in any order


@needs_kernels
def test_wrong_tables_are_refused(encode_triton):
    config = CONFIGS[2]
    with pytest.raises(ValueError, match="float32 table on a GPU, not torch.float64"):
        encode_triton(points(), table_of(config).double(), GridLayout.build(config))


@needs_cuda
def test_auto_chooses_triton_on_a_gpu(caplog):
    from lerf_ros.field import encoding

    encoding.fastest_backend.cache_clear()
    module = HashGrid(CONFIGS[2]).cuda()
    with caplog.at_level("INFO"):
        assert module.backend == "triton"
    assert "backend triton" in caplog.text
    assert module.double().backend == "torch"
    with pytest.raises(ValueError, match="not torch.float32 on cpu"):
        HashGrid(CONFIGS[2], "triton")(torch.rand(5, 3))


@needs_cuda
def test_can_be_captured_and_replayed_with_other_points():
    config = HashGridConfig(levels=8, features=4, log2_table=14, min_resolution=8, max_resolution=256)
    module = HashGrid(config).cuda()
    torch.nn.init.normal_(module.table)
    x_unit = torch.rand(1000, 3, device="cuda")
    cotangent = torch.empty(1000, 32, device="cuda")

    def step():
        module.table.grad = None
        encoded = module(x_unit)
        encoded.backward(cotangent)
        return encoded.detach(), module.table.grad

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        encoded, gradient = step()
    for _ in range(3):
        with torch.no_grad():
            x_unit.uniform_()
            cotangent.normal_()
            module.table.normal_()
        graph.replay()
        expected = backward(encode_torch, x_unit, module.table, module.layout, cotangent)
        torch.testing.assert_close(encoded, expected[0], atol=1e-3, rtol=1e-5)
        torch.testing.assert_close(gradient, expected[1], atol=1e-3, rtol=1e-4)
