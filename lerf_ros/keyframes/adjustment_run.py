"""One adjustment of all keyframe poses, in pieces of bounded time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.poses import Pose
from lerf_ros.keyframes.keypoints import Keypoints
from lerf_ros.keyframes.levenberg_marquardt import LevenbergMarquardt, PosePrior
from lerf_ros.keyframes.matching import MIN_MATCHES, PairMatches, PosedKeypoints, match
from lerf_ros.keyframes.pose_graph import PoseGraphResult, RelativeConstraint, optimise_pose_graph
from lerf_ros.keyframes.reprojection import (
    CHI2_99,
    Cameras,
    Points,
    observed_depths,
    refined_points,
    reprojection_errors,
    track_losses,
    triangulate,
)
from lerf_ros.keyframes.tracks import Tracks, build_tracks

HELD_OUT = 4  # every n-th track decides whether the poses of the others are better than the given ones
_SIGNIFICANT = 3.09  # standard deviations: 0.1 %, one-sided
_PRIOR_ROUNDS = 2  # pose graphs, each with the spread of the given poses about the one before
_MAD_TO_SIGMA = 1.4826  # of a normal distribution
_GRAPH_ACCURACY = 1.0 / 3.0  # of the given poses' deviations is left after the pose graph


@dataclass(frozen=True)
class AdjustmentOptions:
    """How keyframes are matched and how far their given poses are trusted."""

    translation: float = 0.03  # m per axis, standard deviation of the error of a given position, and ...
    rotation: float = 0.03  # rad per axis, ... of a given orientation
    log_focal: float = 0.0  # standard deviation of the logarithm of the common focal length; 0: it is known
    neighbours: int = 6  # keyframes that a new one is matched with: those that it shares most with
    min_overlap: float = 0.1  # of the images, predicted from the poses, to be matched
    keypoints: int = 1000  # per image at most


class Keyframe(NamedTuple):
    """A keyframe: what is known of its image, where it was given, T_world_camera (4, 4), and where an adjustment found
    it last; intrinsics (4,): fx, fy, cx, cy in pixels; its generation tells it from others in the same slot."""

    generation: int
    keypoints: Keypoints
    given: Pose
    current: Pose
    intrinsics: NDArray[np.float64]


@dataclass(frozen=True)
class Adjustment:
    """What an adjustment found.

    Attributes:
        needed: whether the adjusted poses explain held-out tracks better than the given ones, beyond chance.
        poses: T_world_camera (4, 4) by slot, of the keyframes that move: none where it is not needed.
        generations: of all keyframes that took part, by slot.
        undetermined: slots that too few observations agree with; they stay where they were given.
        before_px, after_px: median length of reprojection errors at given and at adjusted poses, points being optimal.
        evidence: mean decrease of the held-out tracks' loss, in its standard deviations.
        focal_scale: of the common focal length.
        depths: m by slot, median of the points that a keyframe observes; not of undetermined ones.
        tracks, observations: that were adjusted.
    """

    needed: bool
    poses: Mapping[int, Pose]
    generations: Mapping[int, int]
    undetermined: tuple[int, ...]
    before_px: float
    after_px: float
    evidence: float
    focal_scale: float
    depths: Mapping[int, float]
    tracks: int
    observations: int


@dataclass
class AdjustmentRun:
    """An adjustment of a snapshot of keyframes. It shares nothing that changes, so any thread may drive it.

    Args:
        keyframes: by slot.
        matches: by pair of slots.

    Attributes:
        result: when `step` has returned True.
        adjusted: the poses found, by slot, whether they are needed or not: the next adjustment starts with them.
        rematched: pairs whose matches contradicted the others, with what was found near the adjusted poses.
    """

    keyframes: Mapping[int, Keyframe]
    matches: Mapping[tuple[int, int], PairMatches | None]
    options: AdjustmentOptions
    result: Adjustment | None = None
    adjusted: dict[int, Pose] = field(default_factory=dict)
    rematched: dict[tuple[int, int], PairMatches | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._slots = sorted(self.keyframes)
        self._given = np.array([self.keyframes[slot].given for slot in self._slots]).reshape(-1, 4, 4)
        self._work = self._pieces()

    def step(self) -> bool:
        """Does the next piece of work, some ten milliseconds; returns whether `result` is there."""
        if self.result is None:
            next(self._work, None)
        return self.result is not None

    def _pieces(self) -> Iterator[None]:
        options, number = self.options, {slot: i for i, slot in enumerate(self._slots)}
        pairs = {(number[a], number[b]): found for (a, b), found in self.matches.items() if found is not None}
        frames = [self.keyframes[slot] for slot in self._slots]
        trust = options.translation, options.rotation
        graph = self._graph(pairs, np.array([frame.current for frame in frames]).reshape(-1, 4, 4), trust)
        contradicting = [pair for pair, agrees in zip(pairs, graph.consistent) if not agrees]
        yield
        for a, b in contradicting:
            posed = [PosedKeypoints(frames[i].keypoints, graph.T_world_camera[i], frames[i].intrinsics) for i in (a, b)]
            accuracy = _GRAPH_ACCURACY * options.translation, _GRAPH_ACCURACY * options.rotation
            found = match(posed[0], posed[1], *accuracy)
            self.rematched[self._slots[a], self._slots[b]] = found
            del pairs[a, b]
            if found is not None:
                pairs[a, b] = found
            yield
        for _ in range(_PRIOR_ROUNDS):
            graph = self._graph(pairs, graph.T_world_camera, self._spread(graph.T_world_camera))
            yield
        agreeing = {pair: pairs[pair].indices for pair, agrees in zip(list(pairs), graph.consistent) if agrees}
        tracks = _well_observed(build_tracks([frame.keypoints for frame in frames], agreeing), len(frames))
        intrinsics = np.array([frame.intrinsics for frame in frames]).reshape(-1, 4)
        start = Cameras(graph.T_world_camera, intrinsics, 0.0)
        if len(tracks.lengths) < 2 * HELD_OUT:
            self._finish(tracks, start, 1.0, -np.inf)
            return
        prior = PosePrior(self._given, *self._spread(graph.T_world_camera), options.log_focal)
        held_out = tracks.track % HELD_OUT == 0
        solver = LevenbergMarquardt(tracks.subset(~held_out), start, prior)
        while not solver.step():
            yield
        evidence = self._evidence(tracks.subset(held_out), solver.cameras, solver.sigma)
        if evidence > _SIGNIFICANT:
            solver = LevenbergMarquardt(tracks, solver.cameras, prior, solver.sigma)
            while not solver.step():
                yield
        self._finish(tracks, solver.cameras, solver.sigma, evidence)

    def _graph(
        self, pairs: Mapping[tuple[int, int], PairMatches], start: NDArray[np.float64], spread: tuple[float, float]
    ) -> PoseGraphResult:
        constraints = [RelativeConstraint(a, b, found.T_b_a, found.information) for (a, b), found in pairs.items()]
        return optimise_pose_graph(self._given, start, constraints, *spread)

    def _spread(self, poses: NDArray[np.float64]) -> tuple[float, float]:
        """Robust standard deviations per axis, m and rad, of given poses from better ones (N, 4, 4): at most those of
        the options, at least a tenth of them. Where given poses are better than the options say, they hold the
        directions that images leave open (a pan against a sideways movement before a wall) more firmly."""
        deviation = (
            PosePrior(self._given, self.options.translation, self.options.rotation)
            .deviation(Cameras(poses, np.ones((len(poses), 4)), 0.0))[:-1]
            .reshape(-1, 2, 3)
        )
        if len(deviation) == 0:
            return self.options.translation, self.options.rotation
        factors = np.clip(_MAD_TO_SIGMA * np.median(np.abs(deviation), axis=(0, 2)), 0.1, 1.0)
        return self.options.translation * float(factors[0]), self.options.rotation * float(factors[1])

    def _given_cameras(self, cameras: Cameras) -> Cameras:
        return Cameras(self._given, cameras.intrinsics, 0.0)

    def _evidence(self, tracks: Tracks, adjusted: Cameras, sigma: float) -> float:
        """Mean of the decrease of the loss of tracks that the poses have not been adjusted to, over its standard error.

        Poses that were right are worse after an adjustment, by its errors, for tracks that took no part in it.
        """
        losses = [
            track_losses(tracks, _errors(tracks, cameras, sigma), sigma)
            for cameras in (self._given_cameras(adjusted), adjusted)
        ]
        gain = losses[0] - losses[1]
        return float(gain.mean() / max(gain.std() / np.sqrt(len(gain)), np.finfo(np.float64).tiny))

    def _finish(self, tracks: Tracks, cameras: Cameras, sigma: float, evidence: float) -> None:
        """Sets the result."""
        before = after = np.empty((0, 2))
        count, depths = np.zeros(len(self._slots), np.int64), np.zeros(0)
        if len(tracks.lengths):
            before = _errors(tracks, self._given_cameras(cameras), sigma)
            points = _best_points(tracks, cameras, sigma)
            after, depths = reprojection_errors(tracks, cameras, points), observed_depths(tracks, cameras, points)
            inlier = (after**2).sum(axis=1) <= CHI2_99 * (sigma * tracks.noise) ** 2
            count = np.bincount(tracks.image[inlier], minlength=len(self._slots))
        determined, needed = count >= MIN_MATCHES, evidence > _SIGNIFICANT
        found = {slot: cameras.T_world_camera[i] for i, slot in enumerate(self._slots) if determined[i]}
        self.adjusted, number = dict(found), {slot: i for i, slot in enumerate(self._slots)}
        self.result = Adjustment(
            needed,
            found if needed else {},
            {slot: self.keyframes[slot].generation for slot in self._slots},
            tuple(slot for slot in self._slots if slot not in found),
            _median_length(before),
            _median_length(after),
            evidence,
            float(np.exp(cameras.log_focal)),
            {slot: float(np.median(depths[tracks.image == number[slot]])) for slot in found},
            len(tracks.lengths),
            len(tracks.uv),
        )


def _well_observed(tracks: Tracks, images: int) -> Tracks:
    """Without the observations of images that have fewer than `MIN_MATCHES`."""
    while len(tracks.uv):
        enough = np.bincount(tracks.image, minlength=images)[tracks.image] >= MIN_MATCHES
        if enough.all():
            break
        tracks = tracks.subset(enough)
    return tracks


def _errors(tracks: Tracks, cameras: Cameras, sigma: float) -> NDArray[np.float64]:
    """Reprojection errors (O, 2) of the best points for these cameras, pixels."""
    return reprojection_errors(tracks, cameras, _best_points(tracks, cameras, sigma))


def _best_points(tracks: Tracks, cameras: Cameras, sigma: float) -> Points:
    return refined_points(tracks, cameras, triangulate(tracks, cameras), sigma)


def _median_length(errors: NDArray[np.float64]) -> float:
    return float(np.median(np.linalg.norm(errors, axis=1))) if len(errors) else 0.0
