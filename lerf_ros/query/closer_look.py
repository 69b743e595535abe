"""A closer look at places of the map: on points so dense that small things and parts show."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lerf_ros.features.encoder import Encoder, RelevancyCalibration
from lerf_ros.mapping.surface import Closer, SemanticSurface
from lerf_ros.query.maxima import MaximaFinder, Region
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import scale_sweep
from lerf_ros.query.smoothing import Smoothed, Smoother
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
    places, calibration = closer.places, encoder.calibration
    texts = list(dict.fromkeys(text for text, _ in regions))
    embeds = encoder.encode_texts([*texts, *options.phrases(calibration)])
    number = torch.zeros(len(places), dtype=torch.int64)
    number[: len(regions)] = torch.tensor([texts.index(text) for text, _ in regions])
    key = len(texts), options.scale_steps, calibration
    asked = partial(_asked, closer, len(texts), options.scale_steps, calibration)
    near, smoothed = closer.calls(key, asked, embeds, number)
    finder = MaximaFinder(closer.surface.points, near, options.min_support, options.prominence)
    heights = finder.heights(smoothed)
    best = []  # the places beyond those of the regions are empty
    for (_, region), within in zip(regions, places.slices()):
        found = next(finder.regions(heights, region.floor, within), None)
        if found is not None:  # how large it is, the whole map shows
            region = replace(found, support=region.support, covered=region.covered)
        best.append(region)
    return best


def _asked(
    closer: Closer, texts: int, scale_steps: int, calibration: RelevancyCalibration, embeds: Tensor, number: Tensor
) -> tuple[Neighbourhood, Smoothed]:
    """How well all points fit the texts, of which each place has its own: numbers (L,) int64."""
    points, places = closer.surface.points, closer.places
    near = Neighbourhood(points.x_world, places=places)
    scales = scale_sweep(points.scale_min, points.scale_max, scale_steps, places)
    sweep = sweep_of_places(closer.surface, embeds, texts, places.each(number), scales, calibration)
    return near, Smoother(points, near)(sweep)
