"""Places that single crops of the keyframes suggest, where the averaged map does not stand out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from lerf_ros.host import on_host
from lerf_ros.query.maxima import MaximaFinder, Region
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.votes import Votes

_CROPS = 24  # best crops of a text, whose middles may be its place


def suggested(
    votes: Votes,
    regions: Mapping[str, Sequence[Region]],
    finder: MaximaFinder,
    options: QueryOptions,
) -> dict[str, list[Region]]:
    """Beside the regions of each text (texts that are not voted on are left alone): the place in the middle of one of
    its most relevant crops that most views vote for, unless one of the regions lies there already.

    The map may have learned too little of a place, or averaged it away; then a crop that shows it still knows. What
    comes back has no height of its own: a closer look has to confirm it.
    """
    result = {text: list(found) for text, found in regions.items()}
    of_texts = zip(*on_host(*votes.places(_CROPS)), strict=True)
    for text, (x_world, sizes, shares) in zip(votes.texts, of_texts, strict=True):
        i = int(np.argmax(np.nan_to_num(shares)))
        position, scale, first = x_world[i], float(sizes[i]), regions[text][0]
        if not shares[i] > 0:
            continue
        if min(region.distance(position) for region in regions[text]) < scale / 4:
            continue
        suggestion = Region(
            position=position,
            covariance=first.covariance,  # this and the next two have no meaning before the closer look
            normal=first.normal,
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
