"""Depth of keyframes from the views around them, where no depth camera has measured it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.captured import CapturedCalls
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose
from lerf_ros.host import on_device, on_host
from lerf_ros.keyframes.depth_completion import complete, fit_scale_shift, known_median
from lerf_ros.keyframes.depth_prior import DepthPrior
from lerf_ros.keyframes.plane_sweep import plane_projections
from lerf_ros.keyframes.stereo import WITNESSES, confirmed, enlarged, match, plane_spacing
from lerf_ros.keyframes.view_selection import BEST_ANGLE, source_scores
from lerf_ros.mapping.config import DepthConfig, KeyframeConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.selection import motion

_LEAST_MISSING = 0.1  # of a depth camera's pixels: fewer are not worth the time
_LEAST_SCORE = 0.01  # of a source view, out of 1; with less it says nothing
_NEAREST_PLANE = 0.25  # of the typical depth of a keyframe: planes from infinity to there suffice
_LEAST_GAIN = 0.25  # of the sum of the scores of a keyframe's sources, for which it is matched again
_FIRST = 100.0  # added to the gain of a keyframe that was never matched: it comes first
_ENOUGH_SCORE = 0.5  # of that sum: with less, better views are waited for while there is other work
_ENOUGH_CONFIRMED = 0.2  # of the pixels: from then on their median is the depth that views are chosen for
_WITNESSES = 6  # keyframes at most that are asked whether they agree
_AT_ONCE = 8  # keyframes at most whose depth is confirmed with one wait for the device
_FEW_VIEWS = 3  # keyframes, from which on they could have depth
_BETWEEN_MOTION = 0.3  # of the motion that makes a keyframe, between two frames that are kept
_SURE = 10.0  # standard deviations between an inverse depth and zero, or what is found is no use
_NEAREST = 0.01  # m
_LUMA = (0.299, 0.587, 0.114)


class StereoWork(NamedTuple):
    """One unit: depth of some keyframes is confirmed, after the first of them has been matched, if `matches`. Urgent:
    that one has no depth before, and can be matched well."""

    slots: tuple[int, ...]
    matches: bool
    urgent: bool


class _Found(NamedTuple):
    """What is known of K keyframes by stereo: the share of the pixels (K,), and their median depth (K,) m."""

    share: Tensor
    depth_z: Tensor


class StereoDepth:
    """Matches the keyframes of a store with each other and with frames between them, and writes their depth.

    A keyframe is matched when there are views that suit it (see `view_selection`), and again when there are much better
    ones. What it finds counts where other keyframes, matched by themselves, find the same; so each match also confirms
    depth of the keyframes around it.

    Where a learned prior is given, it completes what stereo confirms, see `depth_completion`.

    Views are numbered: first the slots of the store, then the places for frames between keyframes.

    Memory: the grey images and inverse depths of all slots at the resolution of stereo, 0.4 MB a slot at 320 x 240.
    """

    def __init__(
        self, config: DepthConfig, keyframe: KeyframeConfig, store: KeyframeStore, prior: DepthPrior | None = None
    ) -> None:
        self._config, self._keyframe, self._store, self._prior = config, keyframe, store, prior
        camera, device, K = store.camera, store.images.device, store.config.capacity
        self._camera = _stereo_camera(config, camera)
        h, w, views = self._camera.height, self._camera.width, K + config.between
        self._greys = torch.zeros(views, h, w, dtype=torch.uint8, device=device)
        self._luma = torch.tensor(_LUMA, device=device)
        self._inverse_depths = torch.full((K, h, w), torch.nan, device=device)
        self._spacings = np.zeros(K)  # 1/m, see `plane_spacing`
        self._poses = np.tile(np.eye(4), (views, 1, 1))
        self._known = np.zeros(views, bool)  # views that there are
        self._depths = np.full(K, np.nan)  # m, about how far away is what a keyframe shows
        self._scores = np.zeros((K, views))
        self._matched_with = np.zeros((K, views), bool)
        self._replaced_scores = np.zeros(K)  # sum, of views that were matched with and are not there any more
        self._is_matched = np.zeros(K, bool)
        self._needs_match = np.zeros(K, bool)
        self._has_inverse_depth = np.zeros(K, bool)
        self._has_confirmed = np.zeros(K, bool)
        self._unconfirmed: dict[int, None] = {}  # slots, in the order in which they are to be confirmed
        self._found = _Found(*torch.zeros(2, K, device=device))
        self._captured = CapturedCalls(device)
        self._next_between = 0
        self._next_work: StereoWork | None = None
        self._has_changed = True  # since that was found
        for slot in range(len(store)):  # of a map that was loaded
            self._enter(slot)
        self._rate(np.flatnonzero(self._known[:K]))

    def add_keyframe(self, slot: int) -> None:
        """Takes in the keyframe that the store has in a slot by now."""
        self._enter(slot)
        self._rate_view(slot)
        self._rate(np.array([slot]))

    def add_between(self, frame: Frame) -> None:
        """Takes in a frame that did not become a keyframe, if it differs from those that are there; the oldest makes
        room."""
        if not self._config.between or not len(self._store):
            return
        if motion(frame.T_world_camera, self._poses[self._known], self._keyframe).min() < _BETWEEN_MOTION:
            return
        view = self._store.config.capacity + self._next_between
        self._next_between = (self._next_between + 1) % self._config.between
        image = on_device(np.ascontiguousarray(frame.image), self._greys.device)
        self._enter_view(view, image, frame.T_world_camera)
        self._rate_view(view)

    def move(self, slots: Sequence[int]) -> None:
        """Keyframes have other poses by now: they are matched again, and those that were matched with them."""
        slots = list(slots)
        self._poses[slots] = self._store.host_poses[slots]
        stale = self._matched_with[:, slots].any(axis=1) | np.isin(np.arange(len(self._is_matched)), slots)
        self._matched_with[stale] = self._is_matched[stale] = False
        self._replaced_scores[stale] = 0
        self._rate(np.flatnonzero(self._known[: len(self._depths)]))

    def adjust(self, slots: Sequence[int], depths: Mapping[int, float]) -> None:
        """As `move`, after an adjustment of poses. Frames between keyframes go: their poses were not adjusted. What was
        matched before and not confirmed counts as not matched.

        Args:
            depths: m by slot, about how far away is what keyframes show.
        """
        between = slice(len(self._depths), None)
        self._known[between] = self._matched_with[:, between] = False
        self._scores[:, between] = 0.0
        self._has_inverse_depth[[slot for slot in depths if np.isnan(self._depths[slot])]] = False
        self._depths[list(depths)] = list(depths.values())
        self.move(slots)

    @property
    def next_work(self) -> StereoWork | None:
        """What pays most: to match a keyframe that never was, then one that has much better views by now, then to
        confirm depth anew. None: there is nothing to do."""
        if self._has_changed:
            self._next_work, self._has_changed = self._find_work(), False
        return self._next_work

    def _find_work(self) -> StereoWork | None:
        gains = self._gains()
        slot = int(np.argmax(gains))
        if gains[slot] > 0:
            return StereoWork((slot,), matches=True, urgent=bool(gains[slot] >= _FIRST + _ENOUGH_SCORE))
        slots = tuple(islice(self._unconfirmed, _AT_ONCE))
        return StereoWork(slots, matches=False, urgent=False) if slots else None

    @torch.no_grad()
    def do(self, work: StereoWork) -> list[int]:
        """Matches a keyframe with the views that suit it best, if that is the work, and writes the depth that the
        keyframes around each slot confirm to the store. Returns the slots of which a good part is known now and was not
        before."""
        self._has_changed = True
        if work.matches:
            self._match(work.slots[0])
            self._unconfirmed.update(dict.fromkeys(self._witnesses(work.slots[0])))
        for slot in work.slots:
            self._unconfirmed.pop(slot, None)
        return self._confirm([slot for slot in work.slots if self._is_matched[slot]])

    @property
    def lacks_baseline(self) -> bool:
        """Whether there are some keyframes without depth, all that can be matched has been, and none has got any."""
        slots = self._needs_match & self._known[: len(self._depths)]
        return bool(slots.sum() >= _FEW_VIEWS and not self._has_confirmed.any() and self.next_work is None)

    def _match(self, slot: int) -> None:
        best = np.argsort(-self._scores[slot], kind="stable")[: self._config.sources]
        sources = best[self._scores[slot, best] > _LEAST_SCORE]
        projections = self._projections(np.linalg.inv(self._poses[sources]) @ self._poses[slot])
        pixel = plane_spacing(projections, *self._greys.shape[1:])
        enough = 1 / (_NEAREST_PLANE * self._about_depth(slot)) / (self._config.planes - 1)
        reference, others = self._greys[slot].float() / 255, self._greys[sources].float() / 255
        projections = on_device(projections, reference.device)
        self._inverse_depths[slot] = match(reference, others, projections, min(pixel, enough), self._config.planes)
        self._spacings[slot] = pixel
        self._has_inverse_depth[slot] = self._is_matched[slot] = True
        self._matched_with[slot] = False
        self._matched_with[slot, sources] = True
        self._replaced_scores[slot] = 0

    def _enter(self, slot: int) -> None:
        store = self._store
        self._enter_view(slot, store.images[slot], store.host_poses[slot])
        self._matched_with[slot] = self._is_matched[slot] = self._has_confirmed[slot] = False
        self._replaced_scores[slot] = 0
        self._unconfirmed.pop(slot, None)
        depth_z = store.depth_z[slot].float()
        missing = float(depth_z.isnan().float().mean())
        self._needs_match[slot] = missing > _LEAST_MISSING
        self._has_inverse_depth[slot] = missing < 1
        self._depths[slot] = np.nan
        if missing < 1:  # a depth camera measured, or the map was loaded
            small = F.interpolate(depth_z[None, None], size=self._greys.shape[1:], mode="nearest-exact")[0, 0]
            self._inverse_depths[slot], self._spacings[slot] = 1 / small, 0.0  # as if without noise
            self._depths[slot] = float(depth_z.nanmedian())

    def _enter_view(self, view: int, image: Tensor, T_world_camera: Pose) -> None:
        """Takes in an image (H, W, 3), in place of the one that the view had."""
        grey = (image.float() @ self._luma)[None, None]
        self._greys[view] = F.interpolate(grey, size=self._greys.shape[1:], mode="area")[0, 0].round().to(torch.uint8)
        self._poses[view], self._known[view] = T_world_camera, True
        self._replaced_scores += self._matched_with[:, view] * self._scores[:, view]
        self._matched_with[:, view] = False

    def _rate(self, slots: NDArray[np.int64]) -> None:
        """How well all views suit some keyframes."""
        self._has_changed = True
        if len(slots):
            views = np.flatnonzero(self._known)
            self._scores[slots] = 0
            self._scores[np.ix_(slots, views)] = self._score(slots, views)
            self._scores[slots, slots] = 0

    def _rate_view(self, view: int) -> None:
        """How well a view suits all keyframes."""
        self._has_changed = True
        slots = np.flatnonzero(self._known[: len(self._depths)])
        slots = slots[slots != view]
        if len(slots):
            self._scores[slots, view] = self._score(slots, np.array([view]))[:, 0]

    def _score(self, slots: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.float64]:
        depths = np.array([self._about_depth(slot) for slot in slots])
        return source_scores(self._camera, self._poses[slots], depths, self._poses[views])

    def _about_depth(self, slot: int) -> float:
        """m: of the keyframe, else of the nearest one that knows it, else such that the median of the baselines to the
        views next to it would be the best: farther ones may show other places."""
        if np.isfinite(self._depths[slot]):
            return float(self._depths[slot])
        known = np.flatnonzero(np.isfinite(self._depths))
        if len(known):
            return float(self._depths[known[np.argmin(motion(self._poses[slot], self._poses[known], self._keyframe))]])
        others = self._known.copy()
        others[slot] = False
        baselines = np.linalg.norm(self._poses[others, :3, 3] - self._poses[slot, :3, 3], axis=-1)
        nearest = np.sort(baselines)[:_FEW_VIEWS]
        return max(float(np.median(nearest) / np.tan(BEST_ANGLE)), _NEAREST) if len(nearest) else _NEAREST

    def _gains(self) -> NDArray[np.float64]:
        """(K,) in the sum of the scores of a keyframe's sources, were it matched now; 0 where that is not worth it."""
        slots = np.flatnonzero(self._needs_match & self._known[: len(self._depths)])
        useful = np.where(self._scores[slots] > _LEAST_SCORE, self._scores[slots], 0.0)
        best = -np.partition(-useful, self._config.sources - 1, axis=1)[:, : self._config.sources].sum(axis=1)
        present = (useful * self._matched_with[slots]).sum(axis=1) + self._replaced_scores[slots]
        gains = best - present
        again = np.where(gains > _LEAST_GAIN * present, gains, 0.0)
        first = np.where(gains > 0, gains + _FIRST, 0.0)
        every = np.zeros(len(self._depths))
        every[slots] = np.where(self._has_inverse_depth[slots], again, first)
        return every

    def _witnesses(self, slot: int) -> list[int]:
        """Keyframes that know an inverse depth of their own and suit another one best."""
        scores = np.where(self._has_inverse_depth, self._scores[slot, : len(self._depths)], 0.0)
        order = np.argsort(-scores, kind="stable")[:_WITNESSES]
        return [int(other) for other in order if scores[other] > _LEAST_SCORE]

    def _confirm(self, slots: Sequence[int]) -> list[int]:
        """Of keyframes that have been matched; returns as `do`."""
        others = {slot: self._witnesses(slot) for slot in slots}
        asked = [slot for slot in slots if len(others[slot]) >= WITNESSES]
        if not asked:
            return []
        self._write_confirmed(asked, others)
        share, median = on_host(*self._found)
        known = [slot for slot in asked if share[slot] > _ENOUGH_CONFIRMED]
        first = [slot for slot in known if not self._has_confirmed[slot]]
        self._depths[known], self._has_confirmed[known] = median[known], True
        is_rated_anew = self._known[: len(self._depths)] & np.isnan(self._depths)
        is_rated_anew[known] = True
        self._rate(np.flatnonzero(is_rated_anew))
        return first

    def _write_confirmed(self, slots: Sequence[int], others: Mapping[int, list[int]]) -> None:
        """Writes to the store what other keyframes confirm of the depth that matching has found."""
        if self._greys.is_cuda and len(slots) > 1:  # captured for one and for as many as there may be
            slots = [*slots, *[slots[-1]] * (_AT_ONCE - len(slots))]
        views = np.array([[slot, *others[slot], *[slot] * (_WITNESSES - len(others[slot]))] for slot in slots])
        is_other = np.arange(views.shape[1]) <= np.array([[len(others[slot])] for slot in slots])
        spacings = np.where(is_other, self._spacings[views], np.nan)  # of the rest, which have no say
        T_others_slot = np.linalg.inv(self._poses[views[:, 1:]]) @ self._poses[views[:, :1]]
        inputs = (
            torch.from_numpy(views),
            torch.from_numpy(spacings).float(),
            self._projections(T_others_slot),
            self._projections(np.linalg.inv(T_others_slot)),
        )
        write = partial(_write_confirmed, self._store, self._inverse_depths, self._found, self._prior)
        if self._prior is None:
            self._captured("confirm", write, *inputs)
        else:  # which waits for the device
            write(*(on_device(each, self._greys.device) for each in inputs))

    def _projections(self, T_others_view: NDArray[np.float64]) -> Tensor:
        """(..., 3, 4) float32 of `plane_projections` for (..., 4, 4); on the host."""
        K, T = self._camera.matrix(), torch.from_numpy(T_others_view)
        return plane_projections(K, K[None], T.flatten(0, -3)).view(*T.shape[:-2], 3, 4).float()


def _write_confirmed(
    store: KeyframeStore,
    inverse_depths: Tensor,
    found: _Found,
    prior: DepthPrior | None,
    views: Tensor,
    spacings: Tensor,
    to_others: Tensor,
    from_others: Tensor,
) -> None:
    """Of each of B keyframes: writes what V others confirm of its depth to the store, and how much it is to `found`.

    Args:
        inverse_depths: (K, h, w) 1/m.
        views: (B, 1 + V) slots of the keyframe, and of the others.
        spacings: (B, 1 + V) 1/m, as for `stereo.confirmed`.
        to_others, from_others: (B, V, 3, 4), see `plane_projections`.
    """
    for slots, spacing, to, back in zip(views, spacings, to_others, from_others, strict=True):
        matched = inverse_depths[slots]
        inverse_depth, variance = confirmed(matched[0], spacing[0], matched[1:], spacing[1:], to, back)
        if prior is not None:
            relative = prior.predict(store.colours(int(slots[0])), (matched.shape[1], matched.shape[2]))
            fit = fit_scale_shift(relative, inverse_depth, variance)
            inverse_depth, variance = complete(inverse_depth, variance, relative, fit)
        sigma = variance.sqrt()
        is_sure = inverse_depth > _SURE * sigma
        found.share[slots[:1]] = is_sure.float().mean()
        found.depth_z[slots[:1]] = 1 / known_median(inverse_depth, is_sure)
        size = store.camera.height, store.camera.width
        q = enlarged(inverse_depth, *size)
        sigma = F.interpolate(sigma[None, None], size=size, mode="nearest-exact")[0, 0]
        depth_z = torch.where(q > _SURE * sigma, 1 / q, torch.nan)
        store.write_stereo(slots[:1], depth_z, sigma * depth_z.square())


def stereo_bytes(config: DepthConfig, store: KeyframeStore) -> int:
    """Device memory that the `StereoDepth` of a store keeps."""
    camera = _stereo_camera(config, store.camera)
    return camera.width * camera.height * (store.config.capacity * 5 + config.between)


def _stereo_camera(config: DepthConfig, camera: Camera) -> Camera:
    """The camera of the keyframes at the resolution at which they are matched."""
    rows = min(config.rows, camera.height)
    return camera.resized(max(1, round(camera.width * rows / camera.height)), rows)
