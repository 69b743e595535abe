"""Places that single crops of the keyframes suggest, where the averaged map does not stand out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_host
from lerf_ros.mapping.surface import SemanticSurface
from lerf_ros.query.maxima import MaximaFinder, Region
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import relevancy_logit
from lerf_ros.query.votes import votes

_CROPS = 24  # best crops of a text, whose middles may be its place


def suggested(
    surface: SemanticSurface,
    encoder: Encoder,
    regions: Mapping[str, Sequence[Region]],
    finder: MaximaFinder,
    options: QueryOptions,
) -> dict[str, list[Region]]:
    """Beside the regions of each text (those without any are left alone): the place in the middle of one of its most
    relevant crops that most views vote for, unless one of the regions lies there already.

    The map may have learned too little of a place, or averaged it away; then a crop that shows it still knows. What
    comes back has no height of its own: a closer look has to confirm it.
    """
    result = {text: list(found) for text, found in regions.items()}
    texts = [text for text, found in regions.items() if found]
    crops = surface.keyframe_crops
    if not texts or crops is None:
        return result
    cosines = crops.similarity(encoder.encode_texts([*texts, *options.phrases(encoder.calibration)]))
    logits = relevancy_logit(cosines[:, : len(texts)], cosines[:, len(texts) :], encoder.calibration.k)
    logits = torch.where(torch.isfinite(cosines[:, : len(texts)]), logits, -torch.inf)
    best = logits.topk(min(_CROPS, len(logits)), dim=0).indices.T.flatten()
    x_world, scales = on_host(*crops.middles(best))
    asked = np.repeat(texts, len(best) // len(texts))
    known = np.flatnonzero(np.isfinite(x_world).all(axis=1))
    shares = np.full(len(best), -math.inf)
    if len(known):
        shares[known] = votes(surface, encoder, [(asked[i], x_world[i]) for i in known], options)
    for text in texts:
        own = np.flatnonzero((asked == text) & (shares > 0))
        if not len(own):
            continue
        i = own[np.argmax(shares[own])]
        position, scale, first = x_world[i], float(scales[i]), regions[text][0]
        if min(np.linalg.norm(region.covered - position, axis=1).min() for region in regions[text]) < scale / 4:
            continue
        suggestion = Region(
            position=position,
            normal=first.normal,  # of no meaning before the closer look
            view_direction=first.view_direction,
            covered=finder.around(position, scale / 2),
            height=-math.inf,
            relevancy=0.0,
            scale=scale,
            support=options.min_support,
            floor=first.floor,
        )
        result[text].append(suggestion)
    return result
