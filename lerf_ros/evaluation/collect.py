"""Works through rooms and variants, in one process or several, and writes each result the moment it is there."""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from lerf_ros.evaluation import records
from lerf_ros.evaluation.ablations import VARIANTS
from lerf_ros.evaluation.exam import Exam
from lerf_ros.evaluation.records import RunSettings
from lerf_ros.evaluation.runner import evaluate_room
from lerf_ros.evaluation.variants import Variant
from lerf_ros.features.encoder import Encoder, load_encoder
from lerf_ros.query.warm_up import warm_up
from lerf_ros.world.room import Room

_SPEAK_EVERY = 10.0  # seconds, where the line cannot be rewritten
DONE = "done"


@dataclass(frozen=True)
class Task:
    """A room and the variants, by name, that are to map it."""

    seed: int
    variants: tuple[str, ...]


Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """What all tasks of a run have in common.

    Attributes:
        encoder: (model, pretrained), see `load_encoder`.
        results: file that gets a line for each result.
        pictures: folder for sheets of relevancy views, of the variant "default" only; or None.
    """

    settings: RunSettings
    encoder: tuple[str, str]
    results: Path
    pictures: Path | None = None


Work = Callable[[Task, Job, Say], None]


def pending(
    seeds: Sequence[int],
    variants: Sequence[str],
    settings: RunSettings,
    known: Container[tuple[int, str, str]],
) -> list[Task]:
    """What is still to be done: all rooms in all variants, but for the `known` (seed, variant, fingerprint)."""
    tasks = []
    for number, seed in enumerate(seeds):
        chosen = [VARIANTS[name] for name in variants if number < (VARIANTS[name].rooms or len(seeds))]
        missing = [v for v in chosen if (seed, v.name, settings.fingerprint(v)) not in known]
        if missing:
            tasks.append(Task(seed, tuple(variant.name for variant in missing)))
    return tasks


def run_file(out: Path) -> Path:
    """A new name in `out`/rooms, later in the alphabet than those of earlier runs."""
    return out / "rooms" / f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"


def evaluate(task: Task, job: Job, say: Say) -> None:
    """Evaluates one room in all its variants; says `DONE` after each that is written."""
    settings, encoder = job.settings, _encoder(*job.encoder, job.settings.device)
    say(f"room {task.seed}: furnishing and filming it")
    exam = Exam(Room(task.seed, settings.width, settings.height, settings.frames), settings.views)
    _ = exam.frames, exam.held_out  # before the clock runs
    for name in task.variants:
        _compile_kernels(VARIANTS[name], exam, settings, encoder, say)

        def tell(text: str, name: str = name) -> None:
            say(f"room {task.seed}, {name}: {text}")

        pictures = job.pictures if name == "default" else None
        records.append(job.results, evaluate_room(exam, VARIANTS[name], settings, encoder, tell, pictures))
        say(DONE)


_WARM: set[str] = set()  # fingerprints of the variants whose kernels this process has compiled


def _compile_kernels(variant: Variant, exam: Exam, settings: RunSettings, encoder: Encoder, say: Say) -> None:
    """Compiles what the variant's maps run, once in a process, so that it does not count as training time."""
    fingerprint = settings.fingerprint(variant)
    if fingerprint not in _WARM:
        say(f"room {exam.room.seed}, {variant.name}: compiling kernels")
        (first,) = variant.frames(exam.frames[:1], np.random.default_rng(0))
        warm_up(settings.config(variant), encoder, torch.device(settings.device), depth=first.depth_z is not None)
        _WARM.add(fingerprint)


@lru_cache(maxsize=1)
def _encoder(model: str, pretrained: str, device: str) -> Encoder:
    return load_encoder(model, pretrained, device)


def collect(tasks: Sequence[Task], job: Job, work: Work = evaluate, stream: TextIO = sys.stdout) -> None:
    """Does all tasks, `settings.jobs` at a time, with a line that says how far it is.

    Raises:
        Whatever a task raised, once the others that had begun are done; KeyboardInterrupt at once.
    """
    progress = Progress(sum(len(task.variants) for task in tasks), stream)
    if job.settings.jobs == 1:
        for task in tasks:
            work(task, job, progress.hear)
        progress.end()
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # read by the processes when they start
    context = multiprocessing.get_context("spawn")
    messages = context.Queue()
    begun = messages, context.Value("i", 0), job.settings.device
    with ProcessPoolExecutor(job.settings.jobs, context, _begin, begun) as pool:
        futures = [pool.submit(_task, work, task, job) for task in tasks]
        try:
            while not all(future.done() for future in futures):
                _hear(messages, progress)
                _raise_first(futures)
        except KeyboardInterrupt:  # what is written stays; what has begun would take minutes
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    while not messages.empty():
        progress.hear(messages.get())
    _raise_first(futures)
    progress.end()


class Progress:
    """A bar of what is done, how long the rest will take, and what was said last.

    On a terminal in one line that is rewritten; elsewhere a line for each result, and at most every ten seconds.
    """

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total, self._done, self._stream = total, 0, stream
        self._began = self._spoke = time.monotonic()

    def hear(self, text: str) -> None:
        done = text == DONE
        self._done += done
        if self._stream.isatty():
            print(f"\r\033[K{self.line('' if done else text)}", end="", file=self._stream, flush=True)
        elif done or time.monotonic() - self._spoke >= _SPEAK_EVERY:
            self._spoke = time.monotonic()
            print(self.line("" if done else text), file=self._stream, flush=True)

    def line(self, text: str) -> str:
        share = self._done / max(self._total, 1)
        bar = f"[{'#' * int(20 * share):<20}] {self._done} of {self._total} maps"
        if 0 < self._done < self._total:
            left = (time.monotonic() - self._began) * (1 - share) / share
            bar += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
        return f"{bar}  {text}".rstrip()

    def end(self) -> None:
        if self._stream.isatty():
            print(file=self._stream)


_MESSAGES: Any = None  # of a process of the pool: the way to the progress line


def _begin(messages: Any, begun: Any, device: str) -> None:
    """Readies a process of the pool; "cuda" is the next GPU in turn.

    Args:
        begun: a shared counter of the processes so far.
    """
    global _MESSAGES
    _MESSAGES = messages
    torch.set_num_threads(1)
    with begun.get_lock():
        turn, begun.value = begun.value, begun.value + 1
    if device == "cuda":
        torch.cuda.set_device(turn % torch.cuda.device_count())
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _task(work: Work, task: Task, job: Job) -> None:
    work(task, job, _MESSAGES.put)


def _hear(messages: Any, progress: Progress) -> None:
    try:
        progress.hear(messages.get(timeout=0.5))
    except queue.Empty:
        pass


def _raise_first(futures: Sequence[Future[None]]) -> None:
    for future in futures:
        if future.done():
            future.result()
