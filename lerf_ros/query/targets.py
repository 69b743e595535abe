"""From texts to 3D targets: relevancy at every surface point and scale, its maxima, and the pose of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.poses import quaternion_from_pose
from lerf_ros.mapping.surface import SemanticSurface
from lerf_ros.query.maxima import MaximaFinder, Region, Sweep, level
from lerf_ros.query.relevancy import scale_sweep
from lerf_ros.query.target_pose import extent, target_axes

CLOSER_LOOKS = 3  # best regions of the map that are looked at closely, beside all that may be targets
_SMALLEST_LOOK = 0.08  # m, radius of a closer look
_WORTH_A_LOOK = 0.6  # of the best region's height above the map's median
_LOOK_AROUND = 0.75  # radius of a closer look, as a part of the region's largest extent
# Two maxima are one place when they are nearer together than this part of the better one's scale, which is the size of
# the crop that both lie in, or nearer than that to what the better one covers.
_APART_FROM_PEAK, _APART_FROM_COVERED = 0.5, 0.25


class QueryError(ValueError):
    """The question itself cannot be answered; the message says why."""


@dataclass(frozen=True)
class QueryOptions:
    """How to answer.

    Attributes:
        max_targets: at most this many targets a text.
        min_relevancy: in [0, 1]; a target below it is not reported. None: the encoder's calibrated threshold.
        canonical_phrases: what relevancy is measured against. None: the encoder's.
        up_world: (3,) map-up, for the orientation of targets.
        scale_steps: scales tried, evenly spaced in log scale over the supervised range.
        min_support: a region of fewer surface points is noise, not a target.
        prominence: a second maximum counts as another target when the rank between the two dips below this share of
            its height above the map's median.
        closer_points: surface points of the closer look that every region gets; 0: none.
        closer_radius: m; a larger region is left as the map's own points show it.
    """

    max_targets: int = 5
    min_relevancy: float | None = None
    canonical_phrases: tuple[str, ...] | None = None
    up_world: tuple[float, float, float] = (0.0, 0.0, 1.0)
    scale_steps: int = 16
    min_support: int = 4
    prominence: float = 0.9
    closer_points: int = 1500
    closer_radius: float = 0.4


@dataclass(frozen=True)
class Target:
    """One place that answers a text.

    Attributes:
        position: (3,) m, map frame: the weighted centre of the region's core, snapped to its nearest surface point.
        quaternion_xyzw: orientation, see `target_pose.target_axes`.
        size: (3,) m, extents along the target's own axes, of what is more relevant than half way from the map's median
            to the target's peak.
        relevancy: [0, 1], at the region's peak, averaged over the neighbourhood of a surface point.
        scale: m, the physical crop size at which the region answers best.
        support: number of surface points of the region that are relevant by themselves, not by their neighbours.
    """

    position: NDArray[np.float64]
    quaternion_xyzw: NDArray[np.float64]
    size: NDArray[np.float64]
    relevancy: float
    scale: float
    support: int


@dataclass(frozen=True)
class Answer:
    """What the map says to one text; `found` is False when nothing is relevant enough, which is an answer too."""

    text: str
    targets: tuple[Target, ...]
    best_relevancy: float
    unknown_words: tuple[str, ...] = ()

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
        finder = MaximaFinder(surface.points, options.min_support, options.prominence)
        scales = scale_sweep(surface.points.scale_min, surface.points.scale_max, options.scale_steps)
        for text, sweep in zip(known, sweeps(surface, encoder, known, scales, options), strict=True):
            looked = _looks(surface, encoder, text, finder.regions(sweep), options)
            answers[text] = _answer(text, looked, options, _threshold(encoder, options))
    return [answers[text] for text in texts]


def sweeps(
    surface: SemanticSurface, encoder: Encoder, texts: Sequence[str], scales: Tensor, options: QueryOptions
) -> list[Sweep]:
    """How well each text fits the surface at the scales (S,) m, in one pass over it."""
    phrases, calibration = _phrases(encoder, options), encoder.calibration
    embeds = encoder.encode_texts([*texts, *phrases])
    scaled = calibration.k * surface.similarity(scales, embeds).float().permute(2, 0, 1)
    canonical = scaled[len(texts) :].amax(dim=0)
    ranks = scaled[: len(texts)] - calibration.contrast * canonical
    return [Sweep(scales, rank, (1 - calibration.contrast) * canonical) for rank in ranks]


def _looks(
    surface: SemanticSurface,
    encoder: Encoder,
    text: str,
    regions: Iterator[Region],
    options: QueryOptions,
) -> list[Region]:
    """The regions of the map that may answer a text, best first, each as a closer look shows it."""
    looked: list[Region] = []
    threshold = _threshold(encoder, options)
    worth_a_look = -math.inf
    for region in regions:
        if not looked:
            worth_a_look = level(region.height, region.floor.rank, _WORTH_A_LOOK)
        is_target = region.relevancy >= threshold and len(looked) < options.max_targets
        if not is_target and (len(looked) >= CLOSER_LOOKS or region.height < worth_a_look):
            break  # what is left is weaker still
        if _apart(region, looked):
            looked.append(_closer(surface, encoder, text, region, options))
    distinct: list[Region] = []
    for region in sorted(looked, key=lambda region: -region.height):
        if _apart(region, distinct):
            distinct.append(region)
    return distinct


def _apart(region: Region, better: Sequence[Region]) -> bool:
    """Whether a region is another place than all better ones: the slats of a chair are not five chairs."""
    return all(
        np.linalg.norm(region.position - other.position) > _APART_FROM_PEAK * other.scale
        and np.linalg.norm(region.position - other.covered, axis=1).min() > _APART_FROM_COVERED * other.scale
        for other in better
    )


def _closer(surface: SemanticSurface, encoder: Encoder, text: str, region: Region, options: QueryOptions) -> Region:
    """The best region of the surface around a region, on points so dense that small things and parts show."""
    radius = max(_SMALLEST_LOOK, _LOOK_AROUND * region.largest_extent)
    if options.closer_points == 0 or radius > options.closer_radius:
        return region
    closer = surface.closer(region.position, radius, options.closer_points)
    if closer is None or len(closer.points.x_world) <= options.min_support or not closer.points.has_language:
        return region
    scales = scale_sweep(closer.points.scale_min, closer.points.scale_max, options.scale_steps)
    sweep = sweeps(closer, encoder, [text], scales, options)[0]
    finder = MaximaFinder(closer.points, options.min_support, options.prominence)
    best = next(finder.regions(sweep, region.floor), region)
    return replace(best, support=region.support, covered=region.covered)  # how large it is, the whole map shows


def _answer(text: str, regions: list[Region], options: QueryOptions, threshold: float) -> Answer:
    best = regions[0].relevancy if regions else 0.0
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
    )


def _phrases(encoder: Encoder, options: QueryOptions) -> tuple[str, ...]:
    return options.canonical_phrases or encoder.calibration.canonical_phrases


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
