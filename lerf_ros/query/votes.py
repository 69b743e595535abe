"""A vote of the views: what the keyframes that see a place say about a text, each by its own crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.surface import SemanticSurface
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import relevancy

_PLACES = 64  # asked together


def votes(
    surface: SemanticSurface,
    encoder: Encoder,
    places: Sequence[tuple[str, NDArray[np.float64]]],
    options: QueryOptions,
) -> list[float] | None:
    """The share of the views that find a text at a place.

    One view: relevancy of each of its crops, interpolated between crops of one size; the best size counts. All views
    that see the place: the mean. Averaged embeddings blur what single views are sure of; this does not.

    Args:
        places: texts, and (3,) m, map frame.

    Returns:
        In [0, 1] for each place, NaN where no view with encoded crops sees it; None where views cannot be asked.
    """
    if surface.keyframe_crops is None:
        return None
    phrases = encoder.encode_texts(options.phrases(encoder.calibration))
    shares: list[float] = []
    for start in range(0, len(places), _PLACES):
        texts, positions = zip(*places[start : start + _PLACES], strict=True)
        own = encoder.encode_texts(texts)[:, None]
        crops = surface.keyframe_crops.at(
            torch.from_numpy(np.stack(positions)), torch.cat([own, phrases.expand(len(texts), -1, -1)], dim=1)
        )
        of_crop = relevancy(crops.similarity[..., :1], crops.similarity[..., 1:], encoder.calibration.k)[..., 0]
        of_size = (crops.weights * of_crop).sum(dim=-1)
        of_view = torch.where(crops.encoded, of_size, 0.0).amax(dim=-1)
        sums, counts = (of_view.new_zeros(len(texts)) for _ in range(2))
        sums.index_add_(0, crops.point, of_view)
        counts.index_add_(0, crops.point, torch.ones_like(of_view))
        shares += (sums / counts).tolist()
    return shares
