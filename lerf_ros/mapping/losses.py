"""Loss terms of the map, one function per term. R rays, S samples, D embedding size; all terms are scalars.

Those on depth and on the shape of the weights are means of what `render.composite` gives per ray."""

from __future__ import annotations

import torch
from torch import Tensor

from lerf_ros.mapping.decoding import LanguageFeatures
from lerf_ros.render.composite import is_measured
from lerf_ros.render.resampling import Histogram

_CHARBONNIER_EPSILON = 1e-3
LEAST_DENSE_VARIANCE = 0.01


def colour_loss(rgb: Tensor, target: Tensor) -> Tensor:
    """Charbonnier loss of mip-NeRF 360, mean of sqrt((rgb - target)^2 + eps^2); rgb, target (R, 3) in [0, 1].

    Nearly L1: specular highlights and small pose errors of a real recording pull less than with squares.
    """
    return torch.hypot(rgb - target, rgb.new_full((), _CHARBONNIER_EPSILON)).mean()


def measured_count(t_measured: Tensor) -> Tensor:
    """How many rays have a measured distance t_measured (R,); at least 1, to divide by."""
    return is_measured(t_measured).sum().clamp_min(1)


def interlevel_loss(t_edges: Tensor, weights: Tensor, histogram: Histogram) -> Tensor:
    """mip-NeRF 360's proposal loss (Barron et al. 2022, eq. 13): a proposal shall bound the field from above.

    sum_i max(0, w_i - bound_i)^2 / w_i, mean over rays, where bound_i sums the proposal's weights of all its bins that
    overlap interval i. The field is a constant here, so only the proposal learns; too much weight costs it nothing in
    this term, but its weights sum to at most one.

    Args:
        t_edges: (R, S + 1) m.
        weights: (R, S).
        histogram: of the same rays; its edges span the same stretch.
    """
    w, t = weights.detach(), t_edges.detach()
    bins = histogram.weights.shape[1]
    cdf = torch.nn.functional.pad(histogram.weights.cumsum(dim=1), (1, 0))
    edges = histogram.t_edges.contiguous()
    first = (torch.searchsorted(edges, t[:, :-1].contiguous(), right=True) - 1).clamp(0, bins - 1)
    last = torch.searchsorted(edges, t[:, 1:].contiguous()).clamp(1, bins)
    bound = cdf.gather(1, last) - cdf.gather(1, first)
    return ((w - bound).clamp_min(0).square() / (w + 1e-7)).sum(dim=1).mean()


def language_losses(
    features: LanguageFeatures, scale: Tensor, targets: Tensor, dense: Tensor | None, known: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`language_loss` of the embeddings of rays, and `dino_loss` of their dense features: in a few launches where our
    kernels run.

    Args:
        features: of R rays.
        scale: as for their `embed`.
        targets: (R, D), as for `language_loss`.
        dense, known: (R, D_dino) and (R,), as for `dino_loss`; or None, both: the second term is zero.
    """
    if features.weights is None and features.field.is_fused:
        from lerf_ros.mapping.losses_triton import LanguageLosses  # not everywhere installed

        outputs, dino = features.field.decode(features.features, scale, dense is not None)
        return LanguageLosses.apply(outputs, targets, dino, dense, known)
    language = language_loss(features.embed(scale), targets)
    dino = None if dense is None else features.dino()
    if dino is None or dense is None or known is None:
        return language, torch.zeros_like(language)
    return language, dino_loss(dino, dense, known)


def language_loss(embeds: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cos over the rays with a target; embeds, targets (R, D) unit, a target of zeros: none.

    LERF's code sums a Huber loss of threshold 1.25 over D on unit vectors, which is |e - e'|^2 / 2 = 1 - cos.
    """
    supervised = targets.any(dim=-1).sum()
    return (supervised - (embeds * targets).sum()) / supervised.clamp_min(1)  # the cosine with zeros is zero


def dino_loss(features: Tensor, targets: Tensor, known: Tensor) -> Tensor:
    """Share of the targets' variance that is not explained: sum |f - f'|^2 / sum |f' - mean f'|^2 over known rays.

    1 for features that are everywhere the mean, 0 for perfect ones, whatever their number of dimensions, length and
    common offset; LERF's code sums squares over 384 dimensions, which dwarfs its language loss. Rays that all see much
    the same (a bare wall) say little: their variance counts as at least 1 % of unit features' squared length.

    Args:
        features: (R, D).
        targets: (R, D), of about unit length.
        known: (R,) bool, rays with a target.
    """
    count = known.sum().clamp_min(1)
    weights = known[:, None].float()
    mean = (targets * weights).sum(dim=0) / count
    spread = ((targets - mean).square() * weights).sum()
    error = ((features - targets).square() * weights).sum()
    return error / spread.maximum(LEAST_DENSE_VARIANCE * count)
