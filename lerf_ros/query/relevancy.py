"""LERF's relevancy score (Kerr et al., ICCV 2023, section 3.5)."""

from __future__ import annotations

import torch
from torch import Tensor

from lerf_ros.geometry.neighbours import Places


def relevancy(similarity: Tensor, canonical_similarity: Tensor, k: float) -> Tensor:
    r"""How much more an embedding looks like the text than like any canonical phrase.

    .. math:: \min_i \frac{\exp(k\, e \cdot q)}{\exp(k\, e \cdot q) + \exp(k\, e \cdot c_i)}
              = \operatorname{sigmoid}\bigl(k\,(e \cdot q - \max_i e \cdot c_i)\bigr)

    The right-hand side is the same number: the logistic function is monotonic, so the minimum is at the largest
    canonical similarity.

    Args:
        similarity: (..., T) cosines e.q of embeddings with T texts.
        canonical_similarity: (..., C) cosines e.c_i with C >= 1 canonical phrases.
        k: inverse temperature; belongs to the encoder.
    Returns:
        (..., T) in [0, 1]; 0.5 means "as much as the best canonical phrase".
    """
    return torch.sigmoid(relevancy_logit(similarity, canonical_similarity, k))


def relevancy_logit(similarity: Tensor, canonical_similarity: Tensor, k: float) -> Tensor:
    """The argument of the logistic function in `relevancy`: it does not saturate."""
    if canonical_similarity.shape[-1] == 0:
        raise ValueError("relevancy needs at least one canonical phrase")
    return k * (similarity - canonical_similarity.amax(dim=-1, keepdim=True))


def scale_sweep(scale_min: Tensor, scale_max: Tensor, steps: int, places: Places | None = None) -> Tensor:
    """Scales in m, evenly spaced in log scale over everything that supervision has seen, smallest first.

    Args:
        scale_min, scale_max: (N,) m, the supervised range of each surface point; empty (min > max) where no crop has
            been encoded.
        places: where the points lie; None: all are in one.

    Returns:
        (steps,), or with places (steps, N), for each point those of its place. Without any supervision: all 1.
    """
    known = scale_min <= scale_max
    low = torch.where(known, scale_min, torch.inf).log()
    high = torch.where(known, scale_max, 0.0).log()
    if places is None:
        low, high = low.amin(), high.amax()
    else:
        low, high = (places.each(of_place) for of_place in (places.rows(low).amin(1), places.rows(high).amax(1)))
    low, high = torch.where(low <= high, low, 0.0), torch.where(low <= high, high, 0.0)
    share = torch.linspace(0.0, 1.0, steps, device=scale_min.device)
    return torch.lerp(low, high, share if places is None else share[:, None]).exp()


def supervised(scales: Tensor, scale_min: Tensor, scale_max: Tensor) -> Tensor:
    """(S, N) True where a point was trained at about that scale, of (S,) or (S, N): the sweep's nearest step to its
    range always counts.

    A network asked outside the range it was trained on answers with an extrapolation.
    """
    step = half_step(scales)
    scales = scales if scales.ndim == 2 else scales[:, None]
    return (scale_min <= scale_max) & (scales * step >= scale_min) & (scales <= scale_max * step)


def half_step(scales: Tensor) -> Tensor:
    """Factor () or (N,) between scales (S,) or (S, N) of a sweep and half way to the next."""
    return (scales[-1] / scales[0]) ** (0.5 / max(len(scales) - 1, 1))
