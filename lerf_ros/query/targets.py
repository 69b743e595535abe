"""From texts to 3D targets: relevancy at every surface point and scale, its maxima, and the pose of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.poses import quaternion_from_pose
from lerf_ros.mapping.surface import SemanticSurface, SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.relevancy import relevancy_logit, scale_sweep, supervised
from lerf_ros.query.target_pose import extent, target_axes

REGION_LEVEL = 0.6  # of the height of a maximum above the map's median; what is lower does not belong to its region


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
        prominence: a second maximum counts as another target when the logit between the two dips below this share of
            its height above the map's median.
    """

    max_targets: int = 5
    min_relevancy: float | None = None
    canonical_phrases: tuple[str, ...] | None = None
    up_world: tuple[float, float, float] = (0.0, 0.0, 1.0)
    scale_steps: int = 16
    min_support: int = 4
    prominence: float = 0.9


@dataclass(frozen=True)
class Target:
    """One place that answers a text.

    Attributes:
        position: (3,) m, map frame: the relevancy-weighted centre of the region, snapped to its nearest surface point.
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
    if known and bool((surface.points.scale_min <= surface.points.scale_max).any()):
        finder = _MaximaFinder(surface.points, options, _threshold(encoder, options))
        scales = scale_sweep(surface.points.scale_min, surface.points.scale_max, options.scale_steps)
        for text, logits in zip(known, logit_sweep(surface, encoder, known, scales, options), strict=True):
            answers[text] = finder.answer(text, scales, logits)
    return [answers[text] for text in texts]


def logit_sweep(
    surface: SemanticSurface, encoder: Encoder, texts: Sequence[str], scales: Tensor, options: QueryOptions
) -> Tensor:
    """Relevancy logits (T, S, N) of T texts at S scales and N surface points."""
    phrases = _phrases(encoder, options)
    embeds = encoder.encode_texts([*texts, *phrases])
    similarity = surface.similarity(scales, embeds).float()
    logits = relevancy_logit(similarity[..., : len(texts)], similarity[..., len(texts) :], encoder.calibration.k)
    return logits.permute(2, 0, 1)


class _MaximaFinder:
    """Maxima of relevancy on one set of surface points. All values are logits, smoothed over the surface."""

    def __init__(self, points: SurfacePoints, options: QueryOptions, threshold: float) -> None:
        self._points = points
        self._options = options
        self._threshold = threshold
        self._neighbourhood = Neighbourhood(points.x_world)
        self._x_world = points.x_world.detach().cpu().double().numpy()
        self._normals = points.normals.detach().cpu().double().numpy()
        self._view_directions = points.view_directions.detach().cpu().double().numpy()

    def answer(self, text: str, scales: Tensor, logits: Tensor) -> Answer:
        """Answers one text from its logits (S, N)."""
        values = self._smoothed(scales, logits)
        own = logits.cpu().numpy()
        peak = values.max(axis=0)
        floor = float(np.median(peak[np.isfinite(peak)]))
        targets: list[Target] = []
        best = 0.0
        candidate = np.isfinite(peak) & (self._neighbourhood.counts >= self._options.min_support)  # known and not stray
        claimed = np.zeros(peak.shape, bool)  # by a maximum that was looked at
        while len(targets) < self._options.max_targets and (candidate & ~claimed).any():
            seed = int(np.argmax(np.where(candidate & ~claimed, peak, -np.inf)))
            if peak[seed] < floor:
                break  # below the map's median nothing stands out
            ridge = self._neighbourhood.component(seed, peak >= _level(peak[seed], floor, self._options.prominence))
            region, scale_index = self._region(seed, values, floor)
            # A region that only smoothing has made is a stray value.
            support = int((own[scale_index, region] >= values[scale_index, region].min()).sum())
            if not claimed[ridge].any() and support >= self._options.min_support:
                target = self._target(region, values[scale_index], float(scales[scale_index]), support)
                best = max(best, target.relevancy)
                if target.relevancy < self._threshold:
                    break  # what is left is weaker still
                targets.append(target)
            claimed[region] = claimed[ridge] = True
        return Answer(text, tuple(targets), best)

    def _smoothed(self, scales: Tensor, logits: Tensor) -> NDArray[np.float32]:
        """Logits (S, N) averaged over each neighbourhood; -inf where a point was never trained at a scale: it neither
        answers there nor counts for its neighbours."""
        valid = supervised(scales, self._points.scale_min, self._points.scale_max).float()
        share = self._neighbourhood.smooth(valid).clamp_min(1e-6)
        smoothed = self._neighbourhood.smooth(logits * valid) / share
        return torch.where(valid > 0, smoothed, -torch.inf).cpu().numpy()

    def _region(self, seed: int, values: NDArray[np.float32], floor: float) -> tuple[NDArray[np.int64], int]:
        """Grows the region of a maximum, at the scale at which that region as a whole answers best."""
        region = self._grow(seed, values[int(np.argmax(values[:, seed]))], floor)
        known = values[:, region]
        scale_index = int(np.argmax(np.where(np.isfinite(known), known, floor).mean(axis=1)))
        seed = int(region[np.argmax(values[scale_index, region])])
        return self._grow(seed, values[scale_index], floor), scale_index

    def _grow(self, seed: int, values: NDArray[np.float32], floor: float) -> NDArray[np.int64]:
        return self._neighbourhood.component(seed, values >= _level(values[seed], floor, REGION_LEVEL))

    def _target(self, region: NDArray[np.int64], values: NDArray[np.float32], scale: float, support: int) -> Target:
        weights = values[region] - values[region].min() + 1e-6
        points = self._x_world[region]
        centre = np.average(points, axis=0, weights=weights)
        nearest = region[int(np.argmin(np.linalg.norm(points - centre, axis=1)))]
        axes = target_axes(self._normals[nearest], self._view_directions[nearest], np.asarray(self._options.up_world))
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = axes, self._x_world[nearest]
        position, quaternion = quaternion_from_pose(pose)
        peak = float(expit(values[region].max()))
        seed = int(region[np.argmax(values[region])])
        half_height = _level(peak, float(np.median(expit(values))), 0.5)
        covered = self._neighbourhood.component(seed, expit(values) >= half_height)
        return Target(
            position=np.asarray(position, np.float64),
            quaternion_xyzw=np.asarray(quaternion, np.float64),
            size=extent(self._x_world[covered], axes),
            relevancy=peak,
            scale=scale,
            support=support,
        )


def _level(peak: float, floor: float, share: float) -> float:
    """The height that lies `share` of the way from the floor to the peak."""
    return floor + share * (peak - floor)


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
