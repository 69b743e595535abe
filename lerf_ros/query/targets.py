"""From texts to 3D targets: relevancy at every surface point and scale, its maxima, and the pose of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.poses import quaternion_from_pose
from lerf_ros.mapping.surface import MapState, SemanticSurface, SurfacePoints
from lerf_ros.query.closer_look import look_closer
from lerf_ros.query.maxima import MaximaFinder, Region, level
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import scale_sweep
from lerf_ros.query.smoothing import Smoother
from lerf_ros.query.suggestions import suggested
from lerf_ros.query.sweep import sweeps
from lerf_ros.query.target_pose import extent, target_axes
from lerf_ros.query.votes import Votes

CLOSER_LOOKS = 3  # best regions of the map that are looked at closely, beside all that may be targets
_VOTE = 0.5  # of a target's relevancy is the vote of the views
_WORTH_A_LOOK = 0.6  # of the best region's height above the map's median
# Two maxima are one place when they are nearer together than this part of the better one's scale, which is the size of
# the crop that both lie in, or nearer than that to what the better one covers.
_APART_FROM_PEAK, _APART_FROM_COVERED = 0.5, 0.25


class QueryError(ValueError):
    """The question itself cannot be answered; the message says why."""


@dataclass(frozen=True)
class Target:
    """One place that answers a text.

    Attributes:
        position: (3,) m, map frame: the weighted centre of the region's core, snapped to its nearest surface point.
        quaternion_xyzw: orientation, see `target_pose.target_axes`.
        size: (3,) m, extents along the target's own axes, of what is more relevant than half way from the map's median
            to the target's peak.
        relevancy: [0, 1], at the region's peak, averaged over the neighbourhood of a surface point, and for a half
            what the single views say there, see `votes`.
        scale: m, the physical crop size at which the region answers best.
        support: number of surface points of the region that are relevant by themselves, not by their neighbours.
        covariance: (3, 3) m^2, map frame: covariance of the position of that surface point. It states how well the
            point is known, not how likely it is that the point belongs to what the text names.
    """

    position: NDArray[np.float64]
    quaternion_xyzw: NDArray[np.float64]
    size: NDArray[np.float64]
    relevancy: float
    scale: float
    support: int
    covariance: NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What the map says to one text; `found` is False when nothing is relevant enough, which is an answer too.

    Attributes:
        best_relevancy: [0, 1], of the best region, also when it is below the threshold; 0 where there is no region.
        map_state: of the map that was queried; None: unknown.
    """

    text: str
    targets: tuple[Target, ...]
    best_relevancy: float
    unknown_words: tuple[str, ...] = ()
    map_state: MapState | None = None

    @property
    def found(self) -> bool:
        return bool(self.targets)


def find_targets(
    surface: SemanticSurface, encoder: Encoder, texts: Sequence[str], options: QueryOptions | None = None
) -> list[Answer]:
    """Answers texts, all in one pass over the surface.

    Args:
        surface: points of the map and their similarity to texts at any scale.
        encoder: encodes the texts; its calibration gives k, canonical phrases and the threshold.
        texts: any phrases; one with words outside the encoder's vocabulary is answered with those words and no target.
    Returns:
        One answer a text, in order; targets best first.
    Raises:
        QueryError: a text is empty, or options are out of range.
    """
    options = options or QueryOptions()
    _check(texts, encoder, options)
    unknown = {text: tuple(encoder.unknown_words(text)) for text in texts}
    known = list(dict.fromkeys(text for text in texts if not unknown[text]))
    answers = {text: Answer(text, (), 0.0, unknown[text]) for text in texts}
    if known and surface.points.has_language:
        threshold = _threshold(encoder, options)
        finder, smoother, scales = _prepared(
            surface.points, options.min_support, options.prominence, options.scale_steps
        )
        ranked = sweeps(surface, encoder, known, scales, options)
        regions = {
            text: _candidates(finder.regions(finder.heights(smoother(sweep))), options, threshold)
            for text, sweep in zip(known, ranked, strict=True)
        }
        votes = _votes(surface, encoder, regions, options)
        suggestions = regions if votes is None else suggested(votes, regions, finder, options)
        looked = look_closer(surface, encoder, suggestions, options)
        for text, voted in (looked if votes is None else _voted(votes, looked)).items():
            confirmed = _confirmed(voted, len(regions[text]))
            answers[text] = _answer(text, _distinct(confirmed), options, threshold)
    return [answers[text] for text in texts]


def prepare(surface: SemanticSurface, options: QueryOptions) -> None:
    """Does beforehand what the first question to a surface would wait for."""
    if surface.points.has_language:
        finder, _, _ = _prepared(surface.points, options.min_support, options.prominence, options.scale_steps)
        finder.prepare()


@lru_cache(maxsize=1)  # a map is asked more often than it changes
def _prepared(
    points: SurfacePoints, min_support: int, prominence: float, scale_steps: int
) -> tuple[MaximaFinder, Smoother, Tensor]:
    """What finds maxima on all points, what smooths over them, and the scales (S,) m that they are asked at."""
    near = Neighbourhood(points.x_world)
    finder = MaximaFinder(points, near, min_support, prominence)
    return finder, Smoother(points, near), scale_sweep(points.scale_min, points.scale_max, scale_steps)


def _candidates(regions: Iterator[Region], options: QueryOptions, threshold: float) -> list[Region]:
    """The regions of the map that may answer a text, best first: each is worth a closer look."""
    candidates: list[Region] = []
    worth_a_look = -math.inf
    for region in regions:
        if not candidates:
            worth_a_look = level(region.height, region.floor.rank, _WORTH_A_LOOK)
        is_target = region.relevancy >= threshold and len(candidates) < options.max_targets
        if not is_target and (len(candidates) >= CLOSER_LOOKS or region.height < worth_a_look):
            break  # what is left is weaker still
        if _apart(region, candidates):
            candidates.append(region)
    return candidates


def _confirmed(looked: Sequence[Region], regions: int) -> list[Region]:
    """Without those suggestions, which come after the regions of the map, that a closer look has not shown to stand out
    as the best region does."""
    own, suggestions = list(looked[:regions]), looked[regions:]
    best = max(own, key=lambda region: region.height, default=None)
    if best is None:
        return []
    worth = level(best.height, best.floor.rank, _WORTH_A_LOOK)
    return own + [region for region in suggestions if region.height >= worth]


def _votes(
    surface: SemanticSurface, encoder: Encoder, regions: Mapping[str, Sequence[Region]], options: QueryOptions
) -> Votes | None:
    """On the texts that have regions; None where there are none, or views cannot be asked."""
    texts = [text for text, found in regions.items() if found]
    return Votes(surface.keyframe_crops, encoder, texts, options) if texts and surface.keyframe_crops else None


def _voted(votes: Votes, regions: Mapping[str, Sequence[Region]]) -> dict[str, list[Region]]:
    """The regions with what the single views say about each in their relevancy."""
    every = [(number, text, region) for number, text in enumerate(votes.texts) for region in regions[text]]
    numbers = torch.tensor([number for number, _, _ in every])
    shares = votes.shares(numbers, torch.from_numpy(np.stack([region.position for _, _, region in every]))).tolist()
    result: dict[str, list[Region]] = {text: [] for text in regions}
    for (_, text, region), share in zip(every, shares, strict=True):
        if math.isfinite(share):
            region = replace(region, relevancy=level(share, region.relevancy, _VOTE))
        result[text].append(region)
    return result


def _distinct(regions: Sequence[Region]) -> list[Region]:
    """Different places, best first."""
    distinct: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.height):
        if _apart(region, distinct):
            distinct.append(region)
    return distinct


def _apart(region: Region, better: Sequence[Region]) -> bool:
    """Whether a region is another place than all better ones: the slats of a chair are not five chairs."""
    return all(
        math.dist(region.position, other.position) > _APART_FROM_PEAK * other.scale
        and other.distance(region.position) > _APART_FROM_COVERED * other.scale
        for other in better
    )


def _answer(text: str, regions: list[Region], options: QueryOptions, threshold: float) -> Answer:
    best = max((region.relevancy for region in regions), default=0.0)
    found = [region for region in regions if region.relevancy >= threshold][: options.max_targets]
    return Answer(text, tuple(_target(region, options) for region in found), best)


def _target(region: Region, options: QueryOptions) -> Target:
    axes = target_axes(region.normal, region.view_direction, np.asarray(options.up_world))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = axes, region.position
    position, quaternion = quaternion_from_pose(pose)
    return Target(
        position=np.asarray(position, np.float64),
        quaternion_xyzw=np.asarray(quaternion, np.float64),
        size=extent(region.covered, axes),
        relevancy=region.relevancy,
        scale=region.scale,
        support=region.support,
        covariance=np.asarray(region.covariance, np.float64),
    )


def _threshold(encoder: Encoder, options: QueryOptions) -> float:
    return encoder.calibration.found_threshold if options.min_relevancy is None else options.min_relevancy


def _check(texts: Sequence[str], encoder: Encoder, options: QueryOptions) -> None:
    if any(not text.strip() for text in texts):
        raise QueryError("the text is empty: say what to look for, for instance 'a red mug'")
    if options.max_targets < 1:
        raise QueryError(f"max_targets must be at least 1, got {options.max_targets}")
    if options.min_relevancy is not None and not 0.0 <= options.min_relevancy <= 1.0:
        raise QueryError(f"min_relevancy must be in [0, 1], got {options.min_relevancy}")
    for phrase in options.canonical_phrases or ():
        if not phrase.strip():
            raise QueryError("canonical_phrases holds an empty phrase")
        if unknown := encoder.unknown_words(phrase):
            raise QueryError(
                f"canonical phrase '{phrase}' has words that encoder '{encoder.name}' does not know: {unknown}"
            )
