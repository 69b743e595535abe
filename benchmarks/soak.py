"""Twenty minutes of a camera at 30 Hz: memory stays flat, callbacks come in time, training goes on, nothing leaks.

    python benchmarks/soak.py [--minutes 20] [--rate 30] [--room 4100] [--preset cpu]

A generated room, rendered once, is published again and again by the camera node, 640x480 with depth, over the shipped
Fast DDS profile; the node `lerf` maps it and saves the map, and now and then a question comes. Both are processes of
their own. The node is the real one with a timer more (`probed_node.py`), by which the lateness of callbacks is known
from inside: beside all other callbacks of the node, in the executor that serves them. What a thread that only sleeps
sees at the same time is the machine's own share.

The first quarter of the time is for filling buffers; bounds hold for the rest. The last line says whether they held,
and so does the exit status.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from lerf_ros.msg import Status
from lerf_ros.srv import Query
from measuring import ROOT, write_json
from node_process import PREFIX, BenchmarkError, origin_of, parser_of, prepare_environment, room_of, running_node
from probed_node import ALIVE, PERIOD
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_msgs.msg import Float32MultiArray

from lerf_ros.ros.client import SERVICE_QOS
from lerf_ros.world.nerfstudio_export import write_nerfstudio
from lerf_ros.world.room import Room

MEMORY_GROWTH = 0.05  # bounds: share of the memory after the warm-up, ...
LATE_MS = 100.0  # ... the latest callback, ...
ALIVE_MESSAGES = 1000  # ... messages of one type in the node's memory at the end, ...
LEAST_STEPS = 1  # ... training steps in every window
AUTOSAVE = 2.0  # min
WARM_UP = 0.25  # of the time
WINDOW = 30.0  # s
TOPICS = ("image", "camera_info", "depth", "pose")
CAMERA_NODE = PREFIX / "lib/lerf_ros/camera_node"
_PATIENCE = 120.0  # s, until the node is active


@dataclass
class Watched:
    """What was seen, each with s, monotonic."""

    statuses: list[tuple[float, Status]] = field(default_factory=list)
    late_ms: list[tuple[float, float]] = field(default_factory=list)
    idle_late_ms: list[tuple[float, float]] = field(default_factory=list)  # of a thread that only sleeps
    resident_mb: list[tuple[float, float]] = field(default_factory=list)
    answers_s: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Bound:
    """A row of the table: a figure and what it may be at most or must be at least; None: it is only told."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def holds(self) -> bool:
        return not (
            self.most is not None and self.value > self.most or self.least is not None and self.value < self.least
        )


class Watcher:
    """Listens in a thread of its own and asks a question every `every` s, one at a time."""

    def __init__(self, texts: Sequence[str], every: float) -> None:
        self.watched = Watched()
        self._texts, self._every = texts, every
        self._asked: float | None = None  # when the question that waits was asked
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node("soak", context=self._context)
        self._node.create_subscription(Status, "/lerf/status", self._on_status, 100)
        self._node.create_subscription(Float32MultiArray, "/lerf/lateness", self._on_lateness, 100)
        self._query = self._node.create_client(Query, "/lerf/query", qos_profile=SERVICE_QOS)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._spin, self._sleep)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.try_shutdown()
        for thread in self._threads:
            thread.join()

    @property
    def status(self) -> Status | None:
        """The latest."""
        return self.watched.statuses[-1][1] if self.watched.statuses else None

    def ask(self) -> None:
        """Asks the next question, if the last one was answered and it is time."""
        answers, now = self.watched.answers_s, time.monotonic()
        if self._asked is not None or (answers and now < answers[-1][0] + self._every):
            return
        self._asked = now
        future = self._query.call_async(Query.Request(text=self._texts[len(answers) % len(self._texts)]))
        future.add_done_callback(self._on_answer)

    def _on_answer(self, _: object) -> None:
        now = time.monotonic()
        assert self._asked is not None
        self.watched.answers_s.append((now, now - self._asked))
        self._asked = None

    def _on_status(self, status: Status) -> None:
        self.watched.statuses.append((time.monotonic(), status))

    def _on_lateness(self, message: Float32MultiArray) -> None:
        now = time.monotonic()
        self.watched.late_ms += [(now, late) for late in message.data]

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def _sleep(self) -> None:
        """How late the machine itself wakes who sleeps, at the node's period."""
        while self._context.ok():
            due = time.monotonic() + PERIOD
            time.sleep(PERIOD)
            now = time.monotonic()
            self.watched.idle_late_ms.append((now, 1e3 * (now - due)))


def soak(options: argparse.Namespace, room: Room, folder: Path) -> tuple[Watched, dict[str, int], float]:
    """What was seen, the messages alive at the end, and when (s, monotonic) the node had become active."""
    write_nerfstudio(room, folder / "room")
    texts = [query.text for query in room.present_queries(options.questions)] if options.questions else []
    remapped = [f"~/{topic}:=/lerf/{topic}" for topic in TOPICS]
    camera_parameters = [f"source:={folder / 'room'}", f"rate:={options.rate}", "loop:=true"]
    parameters = [
        "autostart:=true",
        "training.idle_steps:=0",
        f"device:={options.device}",
        f"preset:={options.preset}",
        f"map.path:={folder / 'map'}",
        f"map.autosave:={AUTOSAVE}",
        "map.save_on_shutdown:=true",
        *options.parameter,
    ]
    node_command, camera_command = [sys.executable, str(ROOT / "benchmarks/probed_node.py")], [CAMERA_NODE]
    log = folder / "node.log"
    with (
        Watcher(texts, options.every) as watcher,
        running_node(log, parameters, node_command) as node,
        running_node(folder / "camera.log", camera_parameters, camera_command, remapped) as camera,
    ):
        deadline = time.monotonic() + _PATIENCE
        while watcher.status is None or watcher.status.keyframes == 0:
            node.check()
            camera.check()
            if time.monotonic() > deadline:
                raise node.failure(f"no keyframe within {_PATIENCE:g} s: {watcher.status}")
            time.sleep(0.1)
        began = time.monotonic()
        while time.monotonic() < began + 60 * options.minutes:
            node.check()
            camera.check()
            watcher.watched.resident_mb.append((time.monotonic(), resident_mb(node.pid)))
            if texts:
                watcher.ask()
            time.sleep(1.0)
    alive = [line for line in log.read_text().splitlines() if line.startswith(ALIVE)]
    return watcher.watched, json.loads(alive[-1].removeprefix(ALIVE)), began


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def bounds_of(watched: Watched, alive: dict[str, int], began: float, seconds: float) -> list[Bound]:
    """The table, from what was seen after the warm-up."""
    warm = began + WARM_UP * seconds
    memory = np.array([mb for at, mb in watched.resident_mb if at >= warm])
    late, idle_late = (
        np.array([ms for at, ms in sights if at >= warm]) for sights in (watched.late_ms, watched.idle_late_ms)
    )
    statuses = [(at, status) for at, status in watched.statuses if at >= warm]
    first, last = statuses[0], statuses[-1]
    settled = float(np.median(memory[: max(1, len(memory) // 10)]))
    span = last[0] - first[0]
    handled = [status.frames_received + sum(status.drop_counts) for _, status in (first, last)]
    answers = [answer for at, answer in watched.answers_s if at >= warm]
    most = max(alive, key=lambda kind: alive[kind], default="")
    return [
        Bound("time after the warm-up", span / 60, "min"),
        Bound("memory after the warm-up", settled, "MB"),
        Bound("... its growth from there, at most", 100 * (memory.max() / settled - 1), "%", most=100 * MEMORY_GROWTH),
        Bound("callbacks: late, median", float(np.median(late)), "ms"),
        Bound("callbacks: late, 99.9 %", float(np.percentile(late, 99.9)), "ms"),
        Bound("callbacks: late, worst", float(late.max()), "ms", most=LATE_MS),
        Bound("callbacks watched", len(late), ""),
        Bound("a thread that only sleeps: late, worst", float(idle_late.max()), "ms"),
        Bound(f"training steps, fewest in {WINDOW:g} s", fewest_steps(statuses), "", least=LEAST_STEPS),
        Bound("training steps", (last[1].steps - first[1].steps) / span, "1/s"),
        Bound("frames that arrived", (handled[1] - handled[0]) / span, "1/s"),
        Bound("frames that were taken", (last[1].frames_received - first[1].frames_received) / span, "1/s"),
        Bound("keyframes", last[1].keyframes, ""),
        Bound("questions answered", len(answers), ""),
        Bound("... the longest", max(answers, default=0.0), "s"),
        Bound(f"messages alive of one type ({most})", alive.get(most, 0), "", most=ALIVE_MESSAGES),
    ]


def fewest_steps(statuses: Sequence[tuple[float, Status]]) -> int:
    """In any `WINDOW`."""
    times = np.array([at for at, _ in statuses])
    steps = np.array([status.steps for _, status in statuses])
    ends = np.searchsorted(times, times + WINDOW)
    whole = ends < len(times)
    return int((steps[ends[whole]] - steps[whole]).min()) if whole.any() else int(steps[-1] - steps[0])


def print_table(bounds: Sequence[Bound]) -> None:
    print(f"\n{'':46}{'figure':>12}  {'':5}{'bound':>10}")
    for row in bounds:
        limit = f"<= {row.most:g}" if row.most is not None else f">= {row.least:g}" if row.least is not None else ""
        print(f"{row.name:46}{row.value:12.1f}  {row.unit:5}{limit:>10}{'' if row.holds else '  BROKEN'}")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, "soak", rate=30.0)
    parser.add_argument("--minutes", type=float, default=20.0, help="after the first keyframe")
    parser.add_argument("--questions", type=int, default=3, help="different ones, asked in turn; 0: none")
    parser.add_argument("--every", type=float, default=20.0, help="s from an answer to the next question")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every bound held, 1 when one was broken or a process failed."""
    options = options_of(arguments)
    prepare_environment(options.domain)
    room = room_of(options)
    try:
        with tempfile.TemporaryDirectory() as folder:
            watched, alive, began = soak(options, room, Path(folder))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    bounds = bounds_of(watched, alive, began, 60 * options.minutes)
    origin = origin_of(options, room) | {"minutes": options.minutes}
    write_json(options.json, "soak", origin, None, bounds)
    print(", ".join(f"{name} {value}" for name, value in origin.items()))
    print_table(bounds)
    broken = [row.name for row in bounds if not row.holds]
    print(f"broken: {'; '.join(broken)}" if broken else "every bound held")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
