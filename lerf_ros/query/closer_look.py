"""A closer look at places of the map: on points so dense that small things and parts show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_host
from lerf_ros.mapping.surface import Closer, SemanticSurface
from lerf_ros.query.maxima import MaximaFinder, Region
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import scale_sweep
from lerf_ros.query.sweep import sweep_of_places

_SMALLEST_LOOK = 0.08  # m, radius of a closer look
_LOOK_AROUND = 0.75  # radius of a closer look, as a part of the region's largest extent


def look_closer(
    surface: SemanticSurface, encoder: Encoder, regions: Mapping[str, Sequence[Region]], options: QueryOptions
) -> dict[str, list[Region]]:
    """The regions of each text as a closer look shows them, all texts and places together: the best maximum of the
    surface around each. A region stays as it is where it is too large or there is no more to see."""
    result = {text: list(found) for text, found in regions.items()}
    places = [
        (text, number, radius)
        for text, found in regions.items()
        for number, region in enumerate(found)
        if (radius := max(_SMALLEST_LOOK, _LOOK_AROUND * region.largest_extent)) <= options.closer_radius
    ]
    if not places or options.closer_points == 0:
        return result
    centres = torch.from_numpy(np.stack([regions[text][number].position for text, number, _ in places]))
    radii = torch.tensor([radius for _, _, radius in places])
    for closer in surface.closer(centres, radii, options.closer_points):
        for place, region in _best(closer, encoder, [(t, regions[t][n]) for t, n, _ in places], options).items():
            text, number, _ = places[place]
            result[text][number] = region
    return result


def _best(
    closer: Closer, encoder: Encoder, places: Sequence[tuple[str, Region]], options: QueryOptions
) -> dict[int, Region]:
    """The best region of each place that the closer look shows."""
    points, place = closer.surface.points, closer.place
    if len(place) <= options.min_support or not points.has_language:
        return {}
    numbers, sizes = (values.tolist() for values in np.unique(on_host(place)[0], return_counts=True))
    texts = list(dict.fromkeys(places[number][0] for number in numbers))
    text_of_place = torch.tensor([texts.index(text) if text in texts else 0 for text, _ in places])
    scales = scale_sweep(points.scale_min, points.scale_max, options.scale_steps, place)
    own_text = text_of_place.to(place.device)[place]
    finder = MaximaFinder(points, options.min_support, options.prominence, sizes)
    heights = finder.heights(sweep_of_places(closer.surface, encoder, texts, own_text, scales, options))
    best, start = {}, 0
    for number, size in zip(numbers, sizes, strict=True):
        within, start = slice(start, start + size), start + size
        region = places[number][1]
        found = next(finder.regions(heights, region.floor, within), None) if size > options.min_support else None
        if found is not None:  # how large it is, the whole map shows
            best[number] = replace(found, support=region.support, covered=region.covered)
    return best
