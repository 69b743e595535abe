import numpy as np
import pytest
import torch

from lerf_ros.geometry.contraction import SceneBounds, contract, uncontract


def test_closed_form_values():
    x = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.4, 0.0], [1.0, 0.0, 0.0], [0.0, 4.0, 0.0], [3.0, 0.0, -4.0]])
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.3, -0.4, 0.0], [1.0, 0.0, 0.0], [0.0, 1.75, 0.0], [1.08, 0.0, -1.44]])
    torch.testing.assert_close(contract(x), expected)


def test_inverse_inside_and_far_outside():
    x = torch.randn(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5.0
    torch.testing.assert_close(uncontract(contract(x)), x)


def test_gradient_is_finite_at_the_centre_and_correct_outside():
    x = torch.tensor([[0.0, 0.0, 0.0]], requires_grad=True)
    contract(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(1, 3))
    outside = torch.tensor([[1.5, -2.0, 0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contract, outside)


def test_infinity_stays_in_the_cube():
    bounds = SceneBounds(center=(0.0, 0.0, 0.0), radius=1.0)
    unit = bounds.to_unit(torch.tensor([[1e12, 0.0, 0.0], [0.0, 0.0, -1e18]], dtype=torch.float64))
    torch.testing.assert_close(unit, torch.tensor([[1.0, 0.5, 0.5], [0.5, 0.5, 0.0]]))
    assert bounds.to_world(torch.tensor([[1.0, 0.5, 0.5]])).isfinite().all()


def test_scene_far_from_the_map_origin_keeps_millimetres():
    """UTM coordinates: float32 alone resolves half a metre there."""
    center = np.array([691_234.0, 5_334_876.0, 520.0])
    bounds = SceneBounds(center=center, radius=4.0)
    x_world = torch.tensor(np.array([[0.001, 0.0, 0.0], [3.0, -1.0, 0.5], [30.0, 10.0, 0.0]]) + center)
    unit = bounds.to_unit(x_world)
    assert unit.dtype == torch.float32
    torch.testing.assert_close(unit[0], torch.tensor([0.5 + 0.001 / 16, 0.5, 0.5]))
    torch.testing.assert_close(bounds.to_world(unit), x_world, atol=1e-4, rtol=0)
    assert bounds.contains(x_world).tolist() == [True, True, False]


@pytest.mark.parametrize(("center", "radius"), [((0, 0), 1.0), ((0, 0, float("nan")), 1.0), ((0, 0, 0), 0.0)])
def test_bad_bounds_are_refused(center, radius):
    with pytest.raises(ValueError):
        SceneBounds(center=center, radius=radius)
