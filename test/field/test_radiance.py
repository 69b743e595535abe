import math

import numpy as np
import pytest
import torch
from scipy.special import sph_harm_y

from lerf_ros.field.directions import spherical_harmonics_4
from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.networks import compute_dtype
from lerf_ros.field.radiance import ExposureCompensation, RadianceField, TruncatedExp

GRID = HashGridConfig(levels=4, features=2, log2_table=12, min_resolution=8, max_resolution=64)


def random_directions(count):
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_spherical_harmonics_agree_with_scipy():
    directions = torch.nn.functional.normalize(random_directions(50).double(), dim=-1)
    x, y, z = directions.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    columns = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            complex_value = sph_harm_y(degree, abs(order), polar, azimuth)  # Condon-Shortley phase included
            if order == 0:
                columns.append(complex_value.real)
            else:
                columns.append(math.sqrt(2) * (complex_value.imag if order < 0 else complex_value.real))
    torch.testing.assert_close(spherical_harmonics_4(directions), torch.from_numpy(np.stack(columns, axis=-1)))


def test_truncated_exp():
    x = torch.tensor([-3.0, 0.0, 2.0, 200.0], requires_grad=True)
    y = TruncatedExp.apply(x)
    torch.testing.assert_close(y[:3], x[:3].exp())
    y.sum().backward()
    torch.testing.assert_close(x.grad[:3], x[:3].detach().exp())
    assert y[3].isfinite() and x.grad[3] > 0  # too dense can be undone


def test_an_untrained_field_has_its_initial_density_and_no_colour_preference():
    torch.manual_seed(0)
    field = RadianceField(GRID, initial_density=0.3)
    sigmas, geometry = field.density(torch.rand(100, 3))
    assert sigmas.shape == (100,) and geometry.shape == (100, 15)
    assert sigmas.mean().item() == pytest.approx(0.3, rel=0.5)
    rgb = field.colour(geometry, random_directions(100))
    assert rgb.shape == (100, 3) and rgb.min() > 0.2 and rgb.max() < 0.8


def test_directions_per_ray_and_per_point_are_the_same():
    torch.manual_seed(0)
    field = RadianceField(GRID)
    _, geometry = field.density(torch.rand(5 * 7, 3))
    directions = random_directions(5)
    per_point = field.colour(geometry, directions.repeat_interleave(7, dim=0))
    torch.testing.assert_close(field.colour(geometry, directions), per_point)


def test_a_field_learns_density_and_view_dependent_colour():
    """Dense in a ball and empty outside; its colour depends on where it is seen from."""
    torch.manual_seed(0)
    field = RadianceField(GRID, hidden=32)
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2)
    for _ in range(300):
        x_unit, directions = torch.rand(1024, 3), torch.nn.functional.normalize(torch.randn(1024, 3), dim=-1)
        inside = (x_unit - 0.5).norm(dim=-1) < 0.25
        sigmas, geometry = field.density(x_unit)
        rgb = field.colour(geometry, directions)
        loss = (sigmas.log() - torch.where(inside, math.log(50.0), math.log(0.02))).square().mean()
        loss = loss + 30 * (rgb - 0.5 - 0.4 * directions).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        sigmas, geometry = field.density(torch.tensor([[0.5, 0.5, 0.5], [0.1, 0.9, 0.1]]))
        rgb = field.colour(geometry, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]]))
    assert sigmas[0] > 10 and sigmas[1] < 0.1
    torch.testing.assert_close(rgb, torch.tensor([[0.9, 0.5, 0.5], [0.5, 0.5, 0.1]]), atol=0.08, rtol=0)


def test_exposure_compensation():
    exposure = ExposureCompensation(3)
    rgb, slots = torch.rand(4, 3), torch.tensor([0, 2, 1, 2])
    torch.testing.assert_close(exposure(rgb, slots), rgb)
    with torch.no_grad():
        exposure.log_gains[2] = torch.tensor([math.log(2.0), 0.0, math.log(0.5)])
    torch.testing.assert_close(exposure(rgb, slots)[1], rgb[1] * torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close(exposure(rgb, slots)[0], rgb[0])
    exposure.reset(2)
    torch.testing.assert_close(exposure(rgb, slots), rgb)


def test_precision_without_a_suitable_gpu(caplog):
    compute_dtype.cache_clear()
    assert compute_dtype("auto", torch.device("cpu")) == torch.float32
    assert not caplog.records
    assert compute_dtype("bfloat16", torch.device("cpu")) == torch.float32
    assert "using float32" in caplog.text
    with pytest.raises(ValueError, match="auto, float32, bfloat16"):
        compute_dtype("half", torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_bfloat16_on_the_gpu_stays_close_to_float32():
    torch.manual_seed(0)
    x_unit, directions = torch.rand(500, 3, device="cuda"), random_directions(500).cuda()
    results = {}
    field = RadianceField(GRID).cuda()
    for precision in ("float32", "bfloat16"):
        field.precision = precision
        sigmas, geometry = field.density(x_unit)
        results[precision] = sigmas, field.colour(geometry, directions)
    assert results["bfloat16"][0].dtype == torch.float32
    torch.testing.assert_close(results["bfloat16"], results["float32"], atol=0.02, rtol=0.02)
