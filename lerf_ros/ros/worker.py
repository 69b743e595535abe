"""The one thread that owns the map. Knows no ROS; everything else talks to it through a mailbox and futures."""

from __future__ import annotations

import functools
import gc
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lerf_ros.mapping.frame import Frame
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import Answer, find_targets, prepare
from lerf_ros.ros.autosave import AutoSave
from lerf_ros.ros.drops import DropCounter, DroppedFrame, DropReason
from lerf_ros.ros.pace import UNLIMITED, Limits, Pace

if TYPE_CHECKING:  # the worker only calls it
    from lerf_ros.mapping.keyframes import KeyframePoses
    from lerf_ros.mapping.mapper import Mapper
    from lerf_ros.mapping.online import OnlineMapper
    from lerf_ros.mapping.training import StepStats

T = TypeVar("T")

_LOSS_PERIOD = 0.5  # s
_EXPECTING = 5.0  # s after a question, the next one is expected
_STALE = 0.7  # of `max_age`: a surface as old as this is made anew before the next question
_UPKEEP = 0.1  # of the time may go into that


class WorkerStopped(RuntimeError):
    """The worker ended before it came to this request; the text says why."""


@dataclass(frozen=True)
class WorkerStatistics:
    """What the worker has done so far; replaced as a whole, so that any thread may read it."""

    frames_taken: int = 0
    steps: int = 0
    loss: float = float("nan")
    steps_skipped: int = 0  # their loss was not finite
    keyframes: int = 0
    keyframe_capacity: int = 0
    units: str = ""  # of the map's lengths; empty: there is no map
    pyramid_progress: float = 0.0
    encoding: bool = False  # something waits to be encoded
    refining: bool = False  # poses of keyframes are still to be adjusted
    refined_keyframes: int = 0  # whose pose is not the given one
    steps_since_news: int = 0  # a new keyframe or a correction
    outside_share: float = 0.0  # of what was measured, beyond the mapped volume
    lacks_baseline: bool = False  # no depth is found: the camera has hardly moved sideways
    prequential_psnr_db: float = float("nan")
    prequential_depth_error: float = float("nan")


@dataclass(frozen=True, eq=False)
class _Question:
    text: str
    options: QueryOptions
    future: Future[Answer]


class MapWorker:
    """Builds an `OnlineMapper` in its own thread and runs it there: frames in, training, questions, anything else.

    Frames go through a mailbox of one per camera: a newer frame replaces an older one that was not taken yet, which is
    counted as overrun; cameras take turns. A frame is built when it is taken, in the worker's thread. Requests are
    answered between two units of work; questions that wait together are answered together. Without work, or as long
    as the limits want it, the thread sleeps; whatever comes wakes it.

    Args:
        build: makes the map; runs in the worker's thread (loading a model takes seconds).
        drops: where replaced and refused frames are counted.
        on_frame: called in the worker's thread after a frame was taken; must return at once.
        max_points: surface points at which questions are answered.
        max_age: s, that they may be behind the map while it is trained.
        threads: CPU threads of PyTorch; 0 leaves its own choice.
        limits: of training; see `limit`.
        autosave: when the map is saved without being asked; None: never.

    Attributes:
        statistics: what was done so far.
        keyframes: where the keyframes are; None: there are none.
        error: what ended the worker.
    """

    def __init__(
        self,
        build: Callable[[], OnlineMapper],
        drops: DropCounter,
        on_frame: Callable[[], None] = lambda: None,
        max_points: int = 20_000,
        max_age: float = 0.0,
        threads: int = 0,
        limits: Limits = UNLIMITED,
        autosave: AutoSave | None = None,
    ) -> None:
        self.statistics = WorkerStatistics()
        self.keyframes: KeyframePoses | None = None
        self.error: Exception | None = None
        self._build = build
        self._drops = drops
        self._on_frame = on_frame
        self._max_points, self._max_age = max_points, max_age
        self._threads = threads
        self._pace = Pace(limits)
        self._autosave = autosave
        self._noted: tuple[Mapper, int] | None = None  # the map, and version of the keyframes, of `keyframes`
        self._wake = threading.Condition()
        self._frames: dict[str, Callable[[], Frame]] = {}  # by camera, the one that waits longest first
        self._questions: list[_Question] = []
        self._requests: deque[tuple[Callable[[OnlineMapper], Any], Future[Any]]] = deque()
        self._running = False  # ingests and trains
        self._stopping = False
        self._loss_due = -math.inf
        self._asked, self._asked_with = -math.inf, QueryOptions()
        self._kept_up, self._upkeep_seconds = -math.inf, 0.0
        self._loaded: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="lerf_worker", daemon=True)

    # -- for the other threads -----------------------------------------------------------------------------------------

    def start(self) -> Future[None]:
        """Starts the thread. The future is done when the map is built, or holds what went wrong."""
        self._thread.start()
        return self._loaded

    def resume(self) -> None:
        """Frames are taken and the map is trained."""
        with self._wake:
            self._running = True
            self._wake.notify()

    def pause(self) -> None:
        """Nothing is taken or trained; requests are still answered. A frame that waits is forgotten."""
        with self._wake:
            self._running = False
            self._frames.clear()

    def answer_at(self, max_points: int, max_age: float) -> None:
        """Other surface points from the next question on."""
        self._max_points, self._max_age = max_points, max_age

    def limit(self, limits: Limits) -> None:
        """Other limits, from now on."""
        with self._wake:
            self._pace.limits = limits
            self._wake.notify()

    @property
    def idle(self) -> bool:
        """Whether there is nothing new to be learnt: everything is encoded, and was trained on for long enough; and no
        pose is still to be adjusted."""
        enough, statistics = self._pace.limits.idle_steps, self.statistics
        return 0 < enough <= statistics.steps_since_news and not (statistics.encoding or statistics.refining)

    def offer(self, build: Callable[[], Frame], camera: str = "") -> None:
        """Leaves a frame in the mailbox of a camera: what builds it, or raises DroppedFrame or ValueError."""
        with self._wake:
            if camera in self._frames:
                self._drops.add(DropReason.OVERRUN, "a newer frame came before this one could be taken")
            self._frames[camera] = build  # keeps its turn
            self._wake.notify()

    def ask(self, text: str, options: QueryOptions) -> Future[Answer]:
        """Where is this? The future holds the answer, or ValueError when the question cannot be answered."""
        question = _Question(text, options, Future())
        return self._enqueue(lambda: self._questions.append(question), question.future)

    def request(self, function: Callable[[OnlineMapper], T]) -> Future[T]:
        """Runs a function in the worker's thread; what it raises goes into the future and harms nobody else."""
        future: Future[T] = Future()
        return self._enqueue(lambda: self._requests.append((function, future)), future)

    def finish(self) -> Future[None]:
        """Asks the thread to end after the present unit of work; waiting requests fail with `WorkerStopped`. The future
        is done when that has happened."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        return self._ended

    def stop(self, timeout: float) -> bool:
        """As `finish`, and waits.

        Returns:
            Whether it has ended.
        """
        self.finish()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _enqueue(self, append: Callable[[], None], future: Future[T]) -> Future[T]:
        with self._wake:
            if self._stopping or self.error is not None:
                future.set_exception(self._stopped())
            else:
                append()
                self._wake.notify()
        return future

    # -- in the worker's thread ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        try:
            online = self._build()
        except Exception as error:
            self._end(error)
            self._loaded.set_exception(error)
            return
        _spare_the_collector()
        self._note(online)
        if self._autosave is not None:
            self._autosave.begin(online, time.monotonic())
        self._loaded.set_result(None)
        try:
            while self._work(online):
                pass
            if self._autosave is not None:
                self._autosave.end(online, time.monotonic())
        except Exception as error:
            self._end(error)
        else:
            self._end(None)

    def _work(self, online: OnlineMapper) -> bool:
        """One round: waits for something to do and does it. False: stop."""
        with self._wake:
            while not self._called and (rest := min(self._rest(), self._save_in())) > 0:
                self._wake.wait(rest if math.isfinite(rest) else None)
            if self._stopping:
                return False
            questions, self._questions = self._questions, []
            requests, self._requests = self._requests, deque()
            running = self._running
            if not running:
                self._frames.clear()
            build = self._frames.pop(next(iter(self._frames))) if self._frames else None
        for function, future in requests:
            _resolve(future, functools.partial(function, online))
        self._answer(online, questions)
        if build is not None:
            self._take(online, build)
            self._note(online)
            self._on_frame()
        if running and self._rest() == 0:  # also after a frame: fast ones must not keep the map from learning
            self._advance(online)
            self._keep_up(online)
        if self._save_in() == 0 and self._autosave is not None:
            self._autosave.save(online, time.monotonic())
        self._note(online)
        return True

    @property
    def _called(self) -> bool:
        """Whether somebody else wants something."""
        return bool(self._stopping or self._questions or self._requests or (self._running and self._frames))

    def _rest(self) -> float:
        """s until there is training or encoding to do; infinite: not before somebody calls."""
        if not self._running or self.statistics.keyframes == 0 or self.idle:
            return math.inf
        return self._pace.rest(time.monotonic(), self.statistics.encoding)

    def _save_in(self) -> float:
        """s until the map is to be saved without being asked."""
        return self._autosave.rest(time.monotonic()) if self._autosave is not None else math.inf

    def _advance(self, online: OnlineMapper) -> None:
        """One unit of work."""
        began = time.monotonic()
        step = online.advance(may_step=self._pace.may_step(began))
        if self._pace.limits.time_share < 1:
            online.settle()  # what is queued is the device's time, too
        self._pace.note(began, time.monotonic(), stepped=step is not None)
        self._read_loss(step)

    def _read_loss(self, step: StepStats | None) -> None:
        """Now and then: reading a number waits for the GPU."""
        if step is not None and time.monotonic() >= self._loss_due:
            self._loss_due = time.monotonic() + _LOSS_PERIOD
            self.statistics = replace(self.statistics, loss=float(step.loss), steps_skipped=int(step.skipped))

    def _keep_up(self, online: OnlineMapper) -> None:
        """While questions come, makes the surface anew before it is too old, so that none of them waits for that."""
        now = time.monotonic()
        expecting = now < self._asked + _EXPECTING and self._max_age > 0
        if not expecting or self._upkeep_seconds > _UPKEEP * (now - self._kept_up):
            return
        if online.mapper.surface_age >= _STALE * self._max_age:
            prepare(online.surface(self._max_points), self._asked_with)
            self._kept_up = time.monotonic()
            self._upkeep_seconds = self._kept_up - now

    def _take(self, online: OnlineMapper, build: Callable[[], Frame]) -> None:
        try:
            decision = online.ingest(build())
        except DroppedFrame as drop:
            self._drops.add(drop.reason, str(drop))
            return
        except ValueError as error:
            self._drops.add(DropReason.REJECTED, str(error))
            return
        self.statistics = replace(self.statistics, frames_taken=self.statistics.frames_taken + 1)
        if decision.prequential is not None:
            self.statistics = replace(
                self.statistics,
                prequential_psnr_db=float(decision.prequential.psnr),
                prequential_depth_error=float(decision.prequential.depth_error),
            )

    def _answer(self, online: OnlineMapper, questions: list[_Question]) -> None:
        """Questions with the same options share one pass over the surface."""
        groups: dict[QueryOptions, list[_Question]] = {}
        for question in questions:
            groups.setdefault(question.options, []).append(question)
        for options, group in groups.items():
            self._asked, self._asked_with = time.monotonic(), options
            try:
                answers = self._find(online, [question.text for question in group], options)
            except ValueError:  # one of them is at fault: the others need not suffer
                for question in group:
                    _resolve(question.future, functools.partial(self._find_one, online, question))
            except Exception as error:
                for question in group:
                    question.future.set_exception(error)
            else:
                for question, answer in zip(group, answers, strict=True):
                    question.future.set_result(answer)

    def _find(self, online: OnlineMapper, texts: list[str], options: QueryOptions) -> list[Answer]:
        surface = online.surface(self._max_points, self._max_age)
        state = surface.state(online.mapper.steps, online.mapper.keyframes)
        answers = find_targets(surface, online.encoder, texts, options)
        return [replace(answer, map_state=state) for answer in answers]

    def _find_one(self, online: OnlineMapper, question: _Question) -> Answer:
        return self._find(online, [question.text], question.options)[0]

    def _note(self, online: OnlineMapper) -> None:
        present = online.mapper, online.mapper.keyframes_version
        if present != self._noted:
            store = online.mapper.store
            self.keyframes, self._noted = store.by_stamp if store is not None else None, present
            self.statistics = replace(self.statistics, refined_keyframes=store.refined if store is not None else 0)
        self.statistics = replace(
            self.statistics,
            steps=online.mapper.steps,
            keyframes=online.mapper.keyframes,
            keyframe_capacity=online.mapper.config.keyframe.capacity,
            units=online.mapper.config.scene.units,
            outside_share=online.mapper.outside_share,
            lacks_baseline=online.mapper.lacks_baseline,
            pyramid_progress=online.pyramid_progress,
            encoding=online.encoding,
            refining=online.mapper.is_refining,
            steps_since_news=online.mapper.steps_since_news,
        )

    def _end(self, error: Exception | None) -> None:
        gc.unfreeze()  # the map and the encoder may go
        with self._wake:
            self.error = error
            self._stopping = True
            waiting = [question.future for question in self._questions] + [future for _, future in self._requests]
        for future in waiting:
            future.set_exception(self._stopped())
        self._ended.set_result(None)

    def _stopped(self) -> WorkerStopped:
        return WorkerStopped(f"the mapper stopped: {self.error}" if self.error else "the mapper is stopping")


def _spare_the_collector() -> None:
    """Takes all that there is by now, modules and the encoder above all, out of the garbage collector's sight: a full
    collection walks over it for a quarter of a second, and holds up every thread meanwhile."""
    gc.collect()
    gc.freeze()


def _resolve(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
