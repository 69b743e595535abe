"""A closer look at places of the map: on points so dense that small things and parts show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_device
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
    looked_at = iter(places)
    for closer in surface.closer(centres, radii, options.closer_points):
        of_closer = [(text, number) for text, number, _ in itertools.islice(looked_at, len(closer.places))]
        before = [(text, regions[text][number]) for text, number in of_closer]
        for (text, number), region in zip(of_closer, _best(closer, encoder, before, options), strict=True):
            result[text][number] = region
    return result


def _best(
    closer: Closer, encoder: Encoder, regions: Sequence[tuple[str, Region]], options: QueryOptions
) -> list[Region]:
    """The best region of each place that the closer look shows, or the one that it was, where it shows none."""
    points, places = closer.surface.points, closer.places
    texts = list(dict.fromkeys(text for text, _ in regions))
    finder = MaximaFinder(points, options.min_support, options.prominence, places)
    scales = scale_sweep(points.scale_min, points.scale_max, options.scale_steps, places)
    number = np.zeros(len(places), np.int64)
    number[: len(regions)] = [texts.index(text) for text, _ in regions]
    own_text = places.each(on_device(number, scales.device))
    heights = finder.heights(sweep_of_places(closer.surface, encoder, texts, own_text, scales, options))
    best = []  # the places beyond those of the regions are empty
    for (_, region), within in zip(regions, places.slices()):
        found = next(finder.regions(heights, region.floor, within), None)
        if found is not None:  # how large it is, the whole map shows
            region = replace(found, support=region.support, covered=region.covered)
        best.append(region)
    return best
