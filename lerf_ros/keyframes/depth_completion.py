"""Stereo depth completed by a learned prior: its scale and shift are fitted to the stereo depth, variances weigh both.

Multi-view stereo measures inverse depth q (1/m) where an image has texture; `depth_prior` predicts it everywhere, up to
scale and shift. A pixel counts as unknown when its inverse depth or variance is not finite, or its inverse depth not
positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FIT_STEPS = 10  # of each loss; the fixed number avoids synchronising with the GPU
_MIN_ABSOLUTE = 0.1  # standard deviations: bounds the weights 1 / |u| of least absolute deviations
_TUKEY = 4.685  # standard deviations: 95 % efficiency for Gaussian errors (Holland & Welsch 1977)
_MAD_TO_STD = 1.4826  # of a Gaussian
_MIN_STD = 1e-3  # of the median inverse depth: bounds the weights when the data are exactly affine
_MIN_PIXELS = 1024
_MIN_INLIERS = 0.5  # fraction of the pixels with stereo
_MIN_SPREAD = 1e-5  # standard deviation of the prediction / its mean: below, float32 cannot tell pixels apart
_MIN_EXPLAINED = 0.5  # fraction of the variance of the stereo inverse depth that the fit explains
_CORRELATED_PIXELS = 256  # errors of a network are smooth: a patch of this many pixels counts as one independent error
_STD_INFLATION = 2.0  # residuals are known only where there is texture, the prior is used where there is none
_MIN_RELATIVE_STD = 0.05  # of the prior's inverse depth, however well it fits
_GATE = 3.0  # standard deviations of the difference beyond which stereo and prior contradict each other


@dataclass(frozen=True)
class ScaleShiftFit:
    """Inverse depth as an affine function of a prediction: q = scale * relative + shift. All are tensors () float64.

    Attributes:
        scale, shift: 1/m; NaN when not fitted.
        std: robust standard deviation of the residuals of the fit, 1/m, without the share of the stereo noise.
        centre, spread: weighted mean and standard deviation of the predictions that were fitted.
        patches: how many independent errors the fit is taken to have averaged.
        is_fitted: bool; False: there is no usable fit, and `complete` leaves the stereo depth as it is.
    """

    scale: Tensor
    shift: Tensor
    std: Tensor
    centre: Tensor
    spread: Tensor
    patches: Tensor
    is_fitted: Tensor

    def apply(self, relative: Tensor) -> tuple[Tensor, Tensor]:
        """The prior: inverse depth (1/m) and its variance (1/m^2), float64, of predictions of any shape.

        The variance is that of a new observation in linear regression (Montgomery et al., "Introduction to linear
        regression analysis", section 2.5), which grows outside the range of the fitted predictions,

            (2 std)^2 (1 + (1 + z^2) / patches),  z = (relative - centre) / spread,

        and is (0.05 q)^2 at least. The factor 2 is a safety margin: the prior serves where there is no texture, and
        residuals are known only where there is.
        """
        relative = relative.double()
        inverse_depth = self.scale * relative + self.shift
        leverage = (1 + ((relative - self.centre) / self.spread).square()) / self.patches
        variance = (_STD_INFLATION * self.std).square() * (1 + leverage)
        return inverse_depth, variance.maximum((_MIN_RELATIVE_STD * inverse_depth).square())


def fit_scale_shift(relative: Tensor, inverse_depth: Tensor, variance: Tensor) -> ScaleShiftFit:
    """Fits q = scale * relative + shift to stereo depth, robustly. Does not synchronise with the GPU.

    Iteratively reweighted least squares for residuals e ~ N(0, variance + std^2), where ``std`` is the error of the
    prediction itself. With u = e / sqrt(variance + std^2), each step solves in closed form

        min sum w (q - scale * relative - shift)^2,  w = psi(u) / (u (variance + std^2)).

    Half of the steps minimise absolute deviations, psi(u) / u = 1 / |u|, which many outliers do not move; the others
    Tukey's biweight, psi(u) / u = (1 - (u / 4.685)^2)^2, which gives outliers no weight (Yohai 1987).
    Each step estimates std^2 = median((1.4826 e)^2 - variance): then |u| has the median of a Gaussian, 1 / 1.4826.

    Args:
        relative: (H, W) prediction, see `depth_prior.DepthPrior.predict`.
        inverse_depth: (H, W) of stereo, 1/m; NaN: unknown.
        variance: (H, W) of ``inverse_depth``, 1/m^2; infinite: unknown.

    Returns:
        The fit. Not fitted when fewer than 1024 pixels are known, when less than half of them are inliers, when the
        prediction is constant, when it falls with inverse depth, or when it explains less than half of the variance of
        ``inverse_depth`` that is not noise of stereo.

    Raises:
        ValueError: the shapes differ, or there are no pixels.
    """
    _check_shapes(relative, inverse_depth, variance)
    known = _known(inverse_depth, variance) & relative.isfinite()
    count = known.sum()
    r, q, v = (torch.where(known, values, 0).double() for values in (relative, inverse_depth, variance))
    floor = _MIN_STD * known_median(q, known)
    weights = known.double()  # v is not known to matter before std is: all pixels weigh the same
    for step in range(2 * _FIT_STEPS):
        total = weights.sum()
        centre, mean = (weights * r).sum() / total, (weights * q).sum() / total
        spread = ((weights * (r - centre).square()).sum() / total).sqrt()
        scale = (weights * (r - centre) * (q - mean)).sum() / total / spread.square()
        shift = mean - scale * centre
        error = q - scale * r - shift
        std = known_median((_MAD_TO_STD * error).square() - v, known).clamp(min=0).sqrt().maximum(floor)
        u = (error.square() / (v + std.square())).sqrt()
        absolute, tukey = 1 / u.clamp(min=_MIN_ABSOLUTE), (1 - (u / _TUKEY).square()).relu().square()
        robust = known * (absolute if step < _FIT_STEPS else tukey)
        weights = robust / (v + std.square())
    explained = (scale * spread).square()
    is_fitted = (
        (count >= _MIN_PIXELS)
        & ((robust > 0).sum() >= _MIN_INLIERS * count)
        & (spread > _MIN_SPREAD * centre.abs())
        & (scale > 0)
        & (explained >= _MIN_EXPLAINED * (explained + std.square()))
    )
    nan = torch.full_like(scale, torch.nan)
    return ScaleShiftFit(
        scale=torch.where(is_fitted, scale, nan),
        shift=torch.where(is_fitted, shift, nan),
        std=torch.where(is_fitted, std, nan),
        centre=torch.where(is_fitted, centre, nan),
        spread=torch.where(is_fitted, spread, nan),
        patches=robust.sum() / _CORRELATED_PIXELS,
        is_fitted=is_fitted,
    )


def complete(inverse_depth: Tensor, variance: Tensor, relative: Tensor, fit: ScaleShiftFit) -> tuple[Tensor, Tensor]:
    """Stereo depth completed by the prior. Does not synchronise with the GPU.

    Pixels without stereo take the prior and its variance p (`ScaleShiftFit.apply`). Pixels with both take the product
    of the two Gaussians, which is the update of a Kalman filter with the gain K (Maybeck 1979, section 1.5):

        K = v / (v + p),  q = q_stereo + K (q_prior - q_stereo),  variance = (1 - K) v = v p / (v + p).

    The prior does not overrule a measurement: where both contradict each other, (q_prior - q_stereo)^2 > 9 (v + p),
    stereo stays as it is. A prior that is not positive is not used: without stereo, such pixels stay unknown.

    Args:
        inverse_depth: (H, W) of stereo, 1/m; NaN: unknown.
        variance: (H, W) of ``inverse_depth``, 1/m^2; infinite: unknown.
        relative: (H, W) prediction, see `depth_prior.DepthPrior.predict`.
        fit: of this prediction to this stereo depth.

    Returns:
        Inverse depth (H, W), 1/m, and its variance (H, W), 1/m^2, of the dtype of ``inverse_depth``; NaN and infinite
        where it is unknown.

    Raises:
        ValueError: the shapes differ, or there are no pixels.
    """
    _check_shapes(relative, inverse_depth, variance)
    q, v = inverse_depth.double(), variance.double()
    prior, p = fit.apply(relative)
    has_stereo = _known(q, v)
    has_prior = fit.is_fitted & _known(prior, p)
    gain = v / (v + p)
    agree = has_stereo & has_prior & ((prior - q).square() <= _GATE**2 * (v + p))
    fused, fused_variance = q + gain * (prior - q), (1 - gain) * v
    q = torch.where(agree, fused, torch.where(has_stereo, q, torch.where(has_prior, prior, torch.nan)))
    v = torch.where(agree, fused_variance, torch.where(has_stereo, v, torch.where(has_prior, p, torch.inf)))
    return q.to(inverse_depth.dtype), v.to(inverse_depth.dtype)


def known_median(values: Tensor, known: Tensor) -> Tensor:
    """Median () of the known values, the lower one of two; infinite without any. `nanmedian` waits for the GPU."""
    ordered = torch.where(known, values, torch.inf).flatten().sort().values
    middle = ((known.sum() - 1) // 2).clamp(min=0)
    return ordered.gather(0, middle[None])[0]


def _known(inverse_depth: Tensor, variance: Tensor) -> Tensor:
    return inverse_depth.isfinite() & (inverse_depth > 0) & variance.isfinite() & (variance >= 0)


def _check_shapes(relative: Tensor, inverse_depth: Tensor, variance: Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in (relative, inverse_depth, variance)]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise ValueError(f"prediction, inverse depth and variance must be (H, W) of one size above 0, got {shapes}")
