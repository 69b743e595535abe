"""The fused networks of the radiance field against its plain ones (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.field.radiance import RadianceField
from test.kernels import DEVICE, needs_cuda, needs_interpreter, starts_interpreter

LIMIT = 11.0


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 5


def field_of(levels=16, hidden=64, precision="float32"):
    torch.manual_seed(levels)
    grid = HashGridConfig(levels=levels, features=2, log2_table=8, min_resolution=4, max_resolution=32)
    field = RadianceField(grid, hidden=hidden, backend="torch", precision=precision).to(DEVICE)
    for parameter in field.parameters():  # biases, too
        parameter.data += 0.1 * torch.randn_like(parameter)
    return field


def inputs_of(field, rays, samples):
    generator = torch.Generator().manual_seed(rays)
    encoded = torch.randn(rays * samples, field.grid.output_dim, generator=generator).to(DEVICE)
    directions = torch.nn.functional.normalize(torch.randn(rays, 3, generator=generator), dim=-1).to(DEVICE)
    wanted = [torch.randn(rays * samples, generator=generator), torch.randn(rays * samples, 3, generator=generator)]
    return encoded, directions, [cotangent.to(DEVICE) for cotangent in wanted]


def networks_of(field):
    return [parameter for name, parameter in field.named_parameters() if not name.endswith("table")]


def plain(field, encoded, directions, wanted, monkeypatch):
    """Values and gradients (of the encoding, of all networks) by the field's own methods."""
    encoded = encoded.clone().requires_grad_()
    monkeypatch.setattr(HashGrid, "forward", lambda self, x_unit: encoded)
    sigmas, geometry = field.density(encoded)
    colours = field.colour(geometry, directions)
    return [sigmas, colours, *torch.autograd.grad([sigmas, colours], [encoded, *networks_of(field)], wanted)]


def fused(field, encoded, directions, wanted):
    from lerf_ros.field.radiance_triton import Radiance

    encoded = encoded.clone().requires_grad_()
    sigmas, colours = Radiance.apply(encoded, directions, LIMIT, *field._weights())
    return [sigmas, colours, *torch.autograd.grad([sigmas, colours], [encoded, *networks_of(field)], wanted)]


@needs_interpreter
@pytest.mark.parametrize(
    ("levels", "hidden", "rays", "samples"), [(16, 64, 7, 48), (16, 64, 30, 9), (10, 32, 5, 12), (5, 32, 1, 130)]
)
def test_agrees_with_the_plain_networks(levels, hidden, rays, samples, monkeypatch):
    field = field_of(levels, hidden)
    encoded, directions, wanted = inputs_of(field, rays, samples)
    found = fused(field, encoded, directions, wanted)
    for value, expected in zip(found, plain(field, encoded, directions, wanted, monkeypatch), strict=True):
        torch.testing.assert_close(value, expected, rtol=2e-4, atol=2e-4 * float(expected.detach().abs().max()))


@needs_interpreter
def test_an_overshooting_density_is_bounded_and_can_come_back(monkeypatch):
    field = field_of()
    field.density_network[-1].bias.data[0] = 40.0
    encoded, directions, wanted = inputs_of(field, 3, 10)
    found = fused(field, encoded, directions, wanted)
    torch.testing.assert_close(found[0], torch.full_like(found[0], LIMIT).exp())
    for value, expected in zip(found, plain(field, encoded, directions, wanted, monkeypatch), strict=True):
        torch.testing.assert_close(value, expected, rtol=2e-4, atol=2e-4 * float(expected.detach().abs().max()))


@needs_cuda
def test_bfloat16_rounds_as_the_plain_networks_do(monkeypatch):
    """Both differ from float32 by rounding; neither by more than twice as much as the other."""
    field, samples = field_of(), 48
    encoded, directions, wanted = inputs_of(field, 500, samples)
    exact = plain(field, encoded, directions, wanted, monkeypatch)
    field.precision = "bfloat16"
    rounded = plain(field, encoded, directions, wanted, monkeypatch)
    with torch.autocast("cuda", torch.bfloat16):
        found = fused(field, encoded.bfloat16(), directions, wanted)
    for value, other, expected in zip(found, rounded, exact, strict=True):
        errors = [(got.float() - expected).norm() / expected.norm() for got in (value, other)]
        assert errors[0] < 2 * errors[1] + 1e-3, errors


@needs_cuda
def test_the_field_takes_the_fused_networks(monkeypatch):
    field = field_of(precision="auto")
    x_unit = torch.rand(20, 48, 3, device=DEVICE)
    directions = torch.nn.functional.normalize(torch.randn(20, 3, device=DEVICE), dim=-1)
    sigmas, rgb = field.along_rays(x_unit, directions)
    monkeypatch.setattr("lerf_ros.field.radiance.runs_kernels", lambda device: False)
    expected_sigmas, expected_rgb = field.along_rays(x_unit, directions)
    torch.testing.assert_close(sigmas, expected_sigmas, rtol=0.05, atol=0.01)
    torch.testing.assert_close(rgb, expected_rgb, rtol=0.0, atol=0.01)
