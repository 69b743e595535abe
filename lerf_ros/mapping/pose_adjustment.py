"""Poses of keyframes adjusted in a background thread (see `keyframes.bundle_adjustment`), while the map is trained."""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lerf_ros.geometry.poses import Pose, rotation_angle
from lerf_ros.keyframes.adjustment_run import Adjustment, AdjustmentOptions, AdjustmentRun
from lerf_ros.keyframes.bundle_adjustment import BundleAdjustment
from lerf_ros.mapping.config import RefinementConfig
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.selection import motion

_LOG = logging.getLogger(__name__)

_MIN_MOVE = 0.003  # of the motion that makes a keyframe: some 0.4 pixels; keyframes that would move by less stay
_LARGE_MOVE = 0.05  # as above: the median move after which the map has much to learn anew
_MAX_TASKS = 2  # that wait for the thread, each with a copy of an image
_QUIET = 5.0  # s without a new keyframe, after which those since the last adjustment are adjusted, however few
_MAX_ERRORS = 10  # after which the thread gives up
_END_TIMEOUT = 1.0  # s; a piece of work takes up to 0.2 s
_LOCK_INTERVAL = 5e-4  # s, after which the thread hands Python's lock over


@dataclass(frozen=True)
class PoseUpdate:
    """What `PoseAdjustment.update` has changed in the store.

    Attributes:
        moved: slots whose pose is another one by now.
        depths: m by slot, about how far away is what keyframes show.
        is_large: whether they moved so far that the map has much to learn anew.
        refined, keyframes: how many differ from their given pose, of how many.
        translation, rotation: median difference of those from their given poses, m and rad.
        before_px, after_px: median reprojection errors at given and at adjusted poses.
    """

    moved: tuple[int, ...]
    depths: Mapping[int, float]
    is_large: bool
    refined: int
    keyframes: int
    translation: float
    rotation: float
    before_px: float
    after_px: float

    def __str__(self) -> str:
        if not self.refined:
            return "poses of all keyframes are the given ones again: their errors are not beyond chance"
        moves = f"median {1e3 * self.translation:.0f} mm, {np.degrees(self.rotation):.1f} degrees"
        errors = f"reprojection error {self.before_px:.1f} -> {self.after_px:.1f} px"
        return f"poses of {self.refined} of {self.keyframes} keyframes refined: {moves}; {errors}"


class PoseAdjustment:
    """Adjusts the poses of a store's keyframes jointly, in a thread of its own.

    The thread has copies of images and poses and knows neither the store nor the map. The thread that owns the store
    calls `update` often: it hands over keyframes one by one and takes results. A result counts for those keyframes that
    are still in their slots and whose given pose is still the same. Poses are exactly the given ones where they need no
    adjustment, also after an earlier one that saw fewer keyframes found otherwise.

    An adjustment begins when `refinement.every_keyframes` have come or have been moved since the last one, or when none
    has come for some seconds. OpenCV, numpy and Numba release Python's global lock in most of its work; beyond that,
    the thread works for `refinement.time_share` of the time at most.

    The thread starts with the first keyframe and ends with this object. What fails in it is logged and counted in
    `errors`; poses then stay as they are.
    """

    def __init__(self, config: RefinementConfig, store: KeyframeStore) -> None:
        self._store = store
        self._waiting = dict.fromkeys(range(len(store)), True)  # slots to hand over; False: only their given pose
        options = AdjustmentOptions(translation=config.translation, rotation=config.rotation)
        bundle = BundleAdjustment(store.camera.width, store.camera.height, options)
        # A loaded map is not adjusted before all of its keyframes are there: a part may say less than all did.
        self._thread = _AdjustmentThread(bundle, config.every_keyframes, len(store), config.time_share)
        self._finalizer = weakref.finalize(self, self._thread.end)

    @property
    def is_busy(self) -> bool:
        """Whether keyframes have come, or have been moved, that no adjustment has seen yet."""
        return not self._thread.has_ended and (bool(self._waiting) or self._thread.is_busy)

    @property
    def errors(self) -> int:
        """Pieces of work that failed."""
        return self._thread.errors

    def add_keyframe(self, slot: int) -> None:
        """Takes in the keyframe that the store has in a slot by now."""
        self._waiting[slot] = True

    def move(self, slots: Sequence[int]) -> None:
        """Keyframes have other given poses by now."""
        for slot in slots:
            self._waiting.setdefault(slot, False)

    def update(self, wait: bool = False) -> PoseUpdate | None:
        """Hands over keyframes and brings the store's poses up to date with the latest result; None: nothing changed.

        Args:
            wait: until all keyframes that are there have been adjusted.
        """
        while self._waiting and not self._thread.has_ended and (wait or self._thread.has_room):
            self._hand_over(next(iter(self._waiting)))
        if wait:
            self._thread.wait()
        found = self._thread.take()
        return self._apply(found) if found is not None else None

    def close(self) -> None:
        """Ends the thread."""
        self._finalizer()

    def _hand_over(self, slot: int) -> None:
        store, with_image = self._store, self._waiting.pop(slot)
        given = store.given_poses[slot].copy()
        if not with_image:
            self._thread.put(partial(self._thread.move, slot, given))
            return
        keyframe = _NewKeyframe(
            slot,
            store.generations[slot],
            store.images[slot].cpu().numpy().copy(),
            given,
            store.host_poses[slot].copy(),
            store.intrinsics[slot].cpu().double().numpy(),
        )
        self._thread.put(partial(self._thread.add, keyframe))

    def _is_same(self, slot: int, generation: int, given: Pose) -> bool:
        """Whether the store still has a keyframe, given at the same pose."""
        return self._store.generations[slot] == generation and np.array_equal(self._store.given_poses[slot], given)

    def _apply(self, found: _Found) -> PoseUpdate | None:
        store, adjustment = self._store, found.adjustment
        moves: dict[int, float] = {}
        valid = {
            slot for slot, given in found.given.items() if self._is_same(slot, adjustment.generations[slot], given)
        }
        for slot in sorted(valid):
            given, present = found.given[slot], store.host_poses[slot]
            pose = adjustment.poses.get(slot, given)
            move = float(motion(pose, present[None], store.config)[0])
            if move > _MIN_MOVE or (pose is given and not np.array_equal(given, present)):
                moves[slot] = move
        if not moves:
            return None
        store.refine(list(moves), np.stack([adjustment.poses.get(slot, found.given[slot]) for slot in moves]))
        poses, given_poses, refined = store.host_poses, store.given_poses, store.refined_slots
        shifts = np.linalg.norm((poses - given_poses)[refined, :3, 3], axis=1)
        angles = [rotation_angle(poses[slot, :3, :3], given_poses[slot, :3, :3]) for slot in refined]
        return PoseUpdate(
            tuple(moves),
            {slot: depth for slot, depth in adjustment.depths.items() if slot in valid},
            bool(np.median(list(moves.values())) > _LARGE_MOVE),
            len(refined),
            len(store),
            float(np.median(shifts)) if len(refined) else 0.0,
            float(np.median(angles)) if len(refined) else 0.0,
            adjustment.before_px,
            adjustment.after_px,
        )


class _NewKeyframe(NamedTuple):
    """A copy of a keyframe: image (H, W, 3) RGB, poses T_world_camera (4, 4) as given and as refined so far, intrinsics
    (4,) in pixels."""

    slot: int
    generation: int
    image: NDArray[np.uint8]
    given: Pose
    current: Pose
    intrinsics: NDArray[np.float64]


class _Found(NamedTuple):
    """A result, and the given poses (4, 4) that it is of, by slot."""

    adjustment: Adjustment
    given: dict[int, Pose]


class _AdjustmentThread:
    """A thread and its `BundleAdjustment`, which does one bounded piece of work after another."""

    def __init__(self, bundle: BundleAdjustment, every: int, first: int, time_share: float) -> None:
        self._bundle, self._every, self._time_share = bundle, every, time_share
        self._due = max(every, first)  # new keyframes, for the next adjustment
        self._new = 0  # keyframes that no adjustment has seen at their given pose
        self._current: AdjustmentRun | None = None
        self._wake = threading.Condition()
        self._tasks: deque[Callable[[], None]] = deque()
        self._found: _Found | None = None
        self._worked = -np.inf  # time.monotonic(), when the latest piece of work ended
        self._is_idle, self._is_awaited, self._is_ending = True, False, False
        self._thread: threading.Thread | None = None
        self.errors = 0

    # -- for the owner -------------------------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether another task may be put."""
        return len(self._tasks) < _MAX_TASKS

    @property
    def has_ended(self) -> bool:
        """Whether nothing is done any more."""
        return self._is_ending

    @property
    def is_busy(self) -> bool:
        """Whether there is a result to take, or one will come."""
        with self._wake:
            return not self._is_idle or self._new > 0 or self._found is not None

    def put(self, task: Callable[[], None]) -> None:
        """Gives a piece of work to the thread, which starts with the first one."""
        with self._wake:
            self._tasks.append(task)
            self._is_idle = False
            self._wake.notify_all()
            if self._thread is None and not self._is_ending:
                self._thread = threading.Thread(target=self._work, name="lerf_pose_adjustment", daemon=True)
                self._thread.start()

    def take(self) -> _Found | None:
        """The latest result, once."""
        with self._wake:
            found, self._found = self._found, None
            return found

    def wait(self) -> None:
        """Returns when nothing is left to do."""
        with self._wake:
            if self._thread is None:
                return
            self._is_awaited, self._is_idle = True, False
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._is_idle or self._is_ending)
            self._is_awaited = False

    def end(self) -> None:
        """Ends the thread after the present piece of work. Python calls it at its exit, too, and when an owner is
        collected as garbage, in any thread."""
        with self._wake:
            self._is_ending = True
            self._tasks.clear()
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_END_TIMEOUT)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def add(self, keyframe: _NewKeyframe) -> None:
        """Takes in a keyframe, in place of a former one in its slot."""
        slot, generation, image, given, current, intrinsics = keyframe
        self._bundle.add(slot, generation, image, given, intrinsics, current)
        self._new += 1

    def move(self, slot: int, given: Pose) -> None:
        """Takes another given pose of a keyframe."""
        with suppress(KeyError):  # it could not be added
            self._bundle.move(slot, given)
            self._new += 1

    def _work(self) -> None:
        # The mapper hands Python's lock over at each call of torch, and would wait 5 ms to get it back.
        sys.setswitchinterval(_LOCK_INTERVAL)
        # BLAS has one limit for the whole process; its threads, which wait actively for each other, would take the
        # processor cores that training needs, and be slower than one thread where these are busy.
        with threadpool_limits(1, user_api="blas"):
            self._work_until_the_end()

    def _work_until_the_end(self) -> None:
        while (piece := self._next_piece()) is not None:
            begun = time.thread_time()
            try:
                piece()
            except Exception:
                self._note_error()
            del piece  # may hold an image
            self._worked = time.monotonic()
            self._rest(time.thread_time() - begun)

    def _next_piece(self) -> Callable[[], object] | None:
        """Waits for the next piece of work; None: the thread is to end."""
        with self._wake:
            while not self._is_ending:
                if self._current is not None:
                    return self._step
                if self._bundle.pending:
                    return self._bundle.match_next
                if self._new >= self._due:
                    return self._start
                if self._tasks:
                    return self._tasks.popleft()
                quiet = time.monotonic() - self._worked
                if self._new and (self._is_awaited or quiet >= _QUIET):
                    return self._start
                self._is_idle = True
                self._wake.notify_all()
                self._wake.wait(_QUIET - quiet if self._new else None)
        return None

    def _rest(self, worked: float) -> None:
        """Leaves the processor to others; worked: s of processor time."""
        with self._wake:
            self._wake.wait_for(lambda: self._is_ending or self._is_awaited, worked * (1.0 / self._time_share - 1.0))

    def _start(self) -> None:
        self._new, self._due = 0, self._every
        self._current = self._bundle.start()

    def _step(self) -> None:
        run, self._current = self._current, None
        assert run is not None
        if not run.step():
            self._current = run
            return
        adjustment = self._bundle.finish(run)
        with self._wake:
            self._found = _Found(adjustment, {slot: keyframe.given for slot, keyframe in run.keyframes.items()})

    def _note_error(self) -> None:
        self.errors += 1
        if self.errors >= _MAX_ERRORS:
            _LOG.exception("poses are not refined any more, after %d errors; the latest:", self.errors)
            with self._wake:
                self._is_ending = True
                self._wake.notify_all()
        else:
            _LOG.warning("a piece of the refinement of poses failed and was left out", exc_info=True)
