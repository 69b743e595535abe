import math

import pytest
import torch

from lerf_ros.keyframes.depth_completion import ScaleShiftFit, complete, fit_scale_shift

SHAPE = (48, 64)
SCALE, SHIFT = 0.3, 0.12  # 1/m


@pytest.fixture
def relative():
    torch.manual_seed(0)
    return torch.rand(SHAPE) * 4


def fit_of(scale, shift, std, centre, spread, patches, is_fitted=True):
    values = [torch.tensor(value, dtype=torch.float64) for value in (scale, shift, std, centre, spread, patches)]
    return ScaleShiftFit(*values, is_fitted=torch.tensor(is_fitted))


# The fit


def test_exactly_affine_data_give_scale_and_shift(relative):
    fit = fit_scale_shift(relative, SCALE * relative + SHIFT, torch.full(SHAPE, 1e-4))
    assert fit.is_fitted and fit.scale.shape == ()
    assert fit.scale.item() == pytest.approx(SCALE, rel=1e-5) and fit.shift.item() == pytest.approx(SHIFT, rel=1e-5)
    assert fit.std < 1e-3
    assert fit.centre.item() == pytest.approx(relative.mean().item(), rel=1e-3)
    assert fit.spread.item() == pytest.approx(relative.std().item(), rel=1e-3)
    assert fit.patches.item() == pytest.approx(relative.numel() / 256, rel=1e-3)


def test_gaussian_noise_gives_the_weighted_least_squares_solution_and_its_residual(relative):
    """Against the normal equations solved by torch.linalg, with weights 1 / (variance + true variance of the prior)."""
    variance = torch.where(torch.rand(SHAPE) < 0.5, 0.02**2, 0.1**2)
    noise = torch.randn(SHAPE) * (variance + 0.05**2).sqrt()
    inverse_depth = SCALE * relative + 1.0 + noise
    fit = fit_scale_shift(relative, inverse_depth, variance)
    root = (variance + 0.05**2).rsqrt().flatten().double()
    design = torch.stack([relative.flatten().double(), torch.ones(relative.numel(), dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(design * root[:, None], (inverse_depth.flatten().double() * root)[:, None]).solution
    assert fit.scale.item() == pytest.approx(solution[0].item(), abs=1e-3)  # its standard error is 0.001
    assert fit.shift.item() == pytest.approx(solution[1].item(), abs=2e-3)
    assert fit.std.item() == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("fraction", [0.2, 0.35])
def test_outliers_do_not_move_the_fit(relative, fraction, one_sided):
    inverse_depth = SCALE * relative + SHIFT
    outliers = torch.rand(SHAPE) < fraction
    wrong = 2 + torch.rand(SHAPE) if one_sided else 0.05 + 3 * torch.rand(SHAPE)
    fit = fit_scale_shift(relative, torch.where(outliers, wrong, inverse_depth), torch.full(SHAPE, 0.01**2))
    assert fit.is_fitted
    assert fit.scale.item() == pytest.approx(SCALE, rel=0.02) and fit.shift.item() == pytest.approx(SHIFT, abs=0.01)
    assert fit.std < 0.02


def test_unknown_pixels_do_not_count(relative):
    inverse_depth, variance = SCALE * relative + SHIFT, torch.full(SHAPE, 1e-4)
    expected = fit_scale_shift(relative[:, :32], inverse_depth[:, :32], variance[:, :32])
    relative[:6, 32:], relative[6:12, 32:] = torch.nan, torch.inf
    inverse_depth[12:18, 32:], inverse_depth[18:24, 32:], inverse_depth[24:30, 32:] = torch.nan, -1.0, 0.0
    variance[30:36, 32:], variance[36:42, 32:], variance[42:, 32:] = torch.inf, torch.nan, -1.0
    fit = fit_scale_shift(relative, inverse_depth, variance)
    for name in ("scale", "shift", "std", "centre", "spread", "patches"):
        torch.testing.assert_close(getattr(fit, name), getattr(expected, name))


def test_stereo_without_any_noise_has_no_infinite_weight(relative):
    fit = fit_scale_shift(relative, SCALE * relative + SHIFT, torch.zeros(SHAPE))
    assert fit.is_fitted and fit.scale.item() == pytest.approx(SCALE, rel=1e-5)


def refused():
    torch.manual_seed(1)
    relative = torch.rand(SHAPE) * 4
    affine, variance = SCALE * relative + SHIFT, torch.full(SHAPE, 1e-4)
    few = torch.full(SHAPE, torch.nan)
    few[:16, :63] = affine[:16, :63]  # 1008 pixels
    mixture = torch.where(torch.rand(SHAPE) < 0.6, 0.1 + 5 * torch.rand(SHAPE), affine)
    return {
        "nothing known": (relative, torch.full(SHAPE, torch.nan), torch.full(SHAPE, torch.inf)),
        "too few pixels": (relative, few, variance),
        "constant prediction": (torch.full(SHAPE, 2.0), affine, variance),
        "nearly constant prediction": (2 + 1e-6 * relative, affine, variance),
        "zero prediction": (torch.zeros(SHAPE), affine, variance),
        "one wall": (relative, torch.full(SHAPE, 0.5), variance),
        "falls with inverse depth": (relative, 2 - SCALE * relative, variance),
        "unrelated": (relative, 0.1 + torch.rand(SHAPE), variance),
        "mostly outliers": (relative, mixture, variance),
        "no prediction": (torch.full(SHAPE, torch.nan), affine, variance),
    }


@pytest.mark.parametrize("case", refused())
def test_degenerate_data_are_not_fitted_and_leave_stereo_as_it_is(case):
    relative, inverse_depth, variance = refused()[case]
    fit = fit_scale_shift(relative, inverse_depth, variance)
    assert not fit.is_fitted and fit.scale.isnan() and fit.shift.isnan() and fit.std.isnan()
    completed, completed_variance = complete(inverse_depth, variance, relative, fit)
    torch.testing.assert_close(completed, inverse_depth, equal_nan=True)
    known = inverse_depth.isfinite()
    torch.testing.assert_close(completed_variance[known], variance[known])
    assert completed_variance[~known].isinf().all()


def test_shapes_must_agree():
    for shapes in [((4, 5), (4, 5), (4, 6)), ((4, 5), (5, 4), (4, 5)), ((1, 4, 5),) * 3, ((0, 5),) * 3]:
        relative, inverse_depth, variance = (torch.ones(shape) for shape in shapes)
        with pytest.raises(ValueError, match=r"must be \(H, W\) of one size"):
            fit_scale_shift(relative, inverse_depth, variance)
        with pytest.raises(ValueError, match=r"must be \(H, W\) of one size"):
            complete(inverse_depth, variance, relative, fit_of(1.0, 0.0, 0.1, 0.5, 0.2, 4.0))


# The prior's variance


def test_variance_of_the_prior_is_that_of_a_new_observation_doubled_in_std_and_bounded_below():
    fit = fit_of(2.0, 0.5, std=0.1, centre=1.0, spread=0.5, patches=8.0)
    inverse_depth, variance = fit.apply(torch.tensor([1.0, 2.5, 100.0, -1.0]))
    torch.testing.assert_close(inverse_depth, torch.tensor([2.5, 5.5, 200.5, -1.5], dtype=torch.float64))
    regression = [0.04 * (1 + 1 / 8), 0.04 * (1 + 10 / 8), 0.04 * (1 + (1 + 198**2) / 8), 0.04 * (1 + 17 / 8)]
    assert variance.tolist() == pytest.approx([max(a, (0.05 * q) ** 2) for a, q in zip(regression, inverse_depth)])
    exact = fit_of(2.0, 0.5, std=0.0, centre=1.0, spread=0.5, patches=8.0)
    assert exact.apply(torch.tensor([1.0]))[1].item() == pytest.approx((0.05 * 2.5) ** 2)


# The fusion


def test_both_known_give_the_product_of_two_gaussians(relative):
    """Against the product on a fine grid, normalised numerically."""
    fit = fit_of(SCALE, SHIFT, std=0.05, centre=2.0, spread=1.0, patches=12.0)
    prior, p = fit.apply(relative)
    v = torch.where(torch.rand(SHAPE) < 0.5, 0.02**2, 0.2**2)
    stereo = (prior + 0.5 * torch.randn(SHAPE).clamp(-2, 2) * (v + p).sqrt()).float().clamp(min=0.01)
    fused, variance = complete(stereo, v, relative, fit)
    assert fused.dtype == variance.dtype == torch.float32
    x = torch.linspace(-2, 5, 70001, dtype=torch.float64)
    for row, column in [(0, 0), (7, 13), (31, 40), (47, 63)]:
        density = torch.exp(
            -0.5 * (x - stereo[row, column]).square() / v[row, column]
            - 0.5 * (x - prior[row, column]).square() / p[row, column]
        )
        mean = (density * x).sum() / density.sum()
        spread = (density * (x - mean).square()).sum() / density.sum()
        assert fused[row, column].item() == pytest.approx(mean.item(), abs=1e-5)
        assert variance[row, column].item() == pytest.approx(spread.item(), rel=1e-4)
    assert (variance < v).all() and (variance < p).all()


def test_each_kind_of_pixel():
    """Prior: q = 0.3 * 2 + 0.1 = 0.7, variance (2 * 0.1)^2 (1 + 1 / 10) = 0.044."""
    fit = fit_of(0.3, 0.1, std=0.1, centre=2.0, spread=1.0, patches=10.0)
    nan, inf, v = torch.nan, torch.inf, 0.044
    cases = [  # stereo, variance, prediction -> inverse depth, variance
        ((0.6, v, 2.0), (0.65, v / 2)),  # both
        ((nan, inf, 2.0), (0.7, v)),  # the prior only
        ((0.6, inf, 2.0), (0.7, v)),
        ((-0.1, v, 2.0), (0.7, v)),
        ((0.6, nan, 2.0), (0.7, v)),
        ((0.6, v, nan), (0.6, v)),  # stereo only
        ((0.6, v, inf), (0.6, v)),
        ((0.6, v, -5.0), (0.6, v)),  # a negative prior
        ((0.6, 0.0, 2.0), (0.6, 0.0)),  # exact stereo
        ((2.0, 0.0001, 2.0), (2.0, 0.0001)),  # contradiction: 1.3 is more than 3 sqrt(0.0441)
        ((2.0, 0.5, 2.0), (0.7 + 1.3 * v / (v + 0.5), 0.5 * v / (v + 0.5))),  # the same difference, vague stereo
        ((nan, inf, nan), (nan, inf)),  # neither
        ((nan, inf, -5.0), (nan, inf)),
    ]
    stereo, variance, relative = torch.tensor([case for case, _ in cases]).T[:, None]
    expected = torch.tensor([result for _, result in cases]).T[:, None]
    found = complete(stereo, variance, relative, fit)
    torch.testing.assert_close(torch.stack(found), expected, equal_nan=True, rtol=1e-5, atol=1e-7)


def test_a_room_with_a_blank_wall_is_completed_within_its_own_variance():
    """Stereo knows a textured floor and a box, the prior errs smoothly. The wall's error is within twice its std."""
    torch.manual_seed(3)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 120), torch.linspace(0, 1, 160), indexing="ij")
    truth = torch.where(rows > 0.5, 0.2 + 0.8 * rows, torch.where(columns > 0.7, 0.8, 0.35 + 0.1 * columns))
    bumps = torch.nn.functional.interpolate(torch.randn(1, 1, 6, 8), (120, 160), mode="bicubic")[0, 0]
    relative = (truth - 0.1) / 0.4 + 0.05 * bumps
    blank = (rows < 0.5) & (columns < 0.7)
    variance = torch.where(blank, torch.inf, 0.01**2)
    stereo = torch.where(blank, torch.nan, truth + 0.01 * torch.randn(120, 160))
    fit = fit_scale_shift(relative, stereo, variance)
    inverse_depth, variance = complete(stereo, variance, relative, fit)
    assert fit.is_fitted and inverse_depth.isfinite().all()
    error = (inverse_depth - truth).abs()
    assert (error[blank] < 2 * variance[blank].sqrt()).float().mean() > 0.95
    assert error[blank].median() < 0.04
    assert math.sqrt(error[~blank].square().mean()) < 0.01
