"""From the first image to a right answer, over real ROS topics and services, with the node in a process of its own.

    python benchmarks/end_to_end.py [--room 4100] [--frames 80] [--rate 5] [--questions 100] [--colours-only]

A generated room is published in real time. From its first image on, a client asks for the things that the published
images have shown well so far ("object" questions), a few at a time and in turn, and is quiet after each answer for as
long as that took, so that the node also gets to train. Answers are judged by the truth about the room. After the walk,
each new text is asked alone: at a steady pace, and then as fast as the answers come; ~/status says how fast the map is
trained meanwhile, and without questions before and after.

The node is started and configured before the first image, which on a GPU includes a rehearsal that compiles; what is
left to capture at the first keyframe and first question counts.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lerf_ros.msg import Status
from measuring import write_json
from node_process import (
    BenchmarkError,
    NodeProcess,
    origin_of,
    parser_of,
    prepare_environment,
    room_of,
    running_node,
)
from query import phrases
from robot import Robot, frame_messages
from scenes import without_depth

from lerf_ros.evaluation.localization import judge
from lerf_ros.features.encoder import load_encoder
from lerf_ros.ros.answer_words import is_answer
from lerf_ros.ros.client import LerfClient
from lerf_ros.ros.messages import answer_from_response
from lerf_ros.world.room import WELL_VISIBLE, Room
from lerf_ros.world.truth import TruthQuery

AT_ONCE = 4  # questions that are asked together during the walk
STATUS_RATE = 10.0  # Hz: the step counter is read between two messages of ~/status
FIRST_TARGET_S, COLOURS_FIRST_TARGET_S = 10.0, 3.0  # targets, on one H200
QUERY_MS, TRAINING_SHARE = (30.0, 100.0), 0.9
_LEAST_PAUSE = 0.1  # s, after every answer during the walk
_POLL = 0.02  # s


@dataclass(frozen=True)
class Walk:
    """Seconds are counted from the first image, unless said otherwise; None: it did not happen.

    Attributes:
        started_s, configured_s: from the start of the process to its first status, and from then on until configured.
        first_correct_s: until the first right answer came, to the question `first_text`.
        half_correct_s: until half of the questions whose things were seen by then had a right answer as their last one:
            `half_right` of `half_seen`.
        end_right, end_seen: all questions, asked at the end of the walk.
        published, taken, dropped, keyframes: frames, when the walk had ended and all was asked.
        late_ms: the most that a frame was published behind its time.
        keyframe_p50_ms, keyframe_worst_ms: from the publication of an image until ~/status tells of the keyframe;
            `keyframes_timed` of them, those before the first dropped frame, since the status does not name the frame.
        progress: after every answer: s, questions right, questions seen.
    """

    name: str
    started_s: float
    configured_s: float
    first_correct_s: float | None
    first_text: str
    half_correct_s: float | None
    half_right: int
    half_seen: int
    end_right: int
    end_seen: int
    published: int
    taken: int
    dropped: int
    keyframes: int
    late_ms: float
    keyframes_timed: int
    keyframe_p50_ms: float | None
    keyframe_worst_ms: float | None
    progress: tuple[tuple[float, int, int], ...]


@dataclass(frozen=True)
class Asked:
    """Questions one at a time: round trips of the client, ms, and training steps/s meanwhile and while all is quiet."""

    name: str
    questions: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    steps_per_s: float
    quiet_steps_per_s: float
    share: float | None  # of the training that there is without questions; None: there is none
    targets_ms: tuple[float, ...] = ()
    target_share: float | None = None


class Asker:
    """Asks for what was seen so far, and keeps the last verdict on every question."""

    def __init__(
        self, client: LerfClient, node: NodeProcess, robot: Robot, seen_from: Sequence[tuple[TruthQuery, int]]
    ) -> None:
        self._client, self._node, self._robot, self._seen_from = client, node, robot, seen_from
        self._asked: Counter[str] = Counter()
        self._right: dict[str, bool] = {}
        self.first: tuple[float, str] | None = None  # s from the first image, the text
        self.half: tuple[float, int, int] | None = None  # s from the first image, questions right, questions seen
        self.progress: list[tuple[float, int, int]] = []
        self.answers = 0
        self.refusal = "nothing of the room was seen, so nothing was asked"  # the last one

    @property
    def seen(self) -> list[TruthQuery]:
        """Questions whose thing is well visible in what was published."""
        return [query for query, frame in self._seen_from if frame < len(self._robot.published)]

    def ask_while(self, condition: Callable[[], bool]) -> None:
        """The questions that were asked least, again and again; as long a pause as the answers took."""
        while condition():
            check(self._node, self._robot)
            took = self._ask(sorted(self.seen, key=lambda query: self._asked[query.text])[:AT_ONCE])
            time.sleep(max(took, _LEAST_PAUSE))

    def ask_everything(self) -> tuple[int, int]:
        """Each question that there is by now, once -> how many are right, of how many."""
        queries = self.seen
        for first in range(0, len(queries), AT_ONCE):
            check(self._node, self._robot)
            self._ask(queries[first : first + AT_ONCE])
        return sum(self._right[query.text] for query in queries), len(queries)

    def _ask(self, queries: Sequence[TruthQuery]) -> float:
        """Seconds that the answers took."""
        began = time.monotonic()
        responses = self._client.query_all([query.text for query in queries], max_targets=1) if queries else []
        took, now = time.monotonic() - began, time.monotonic() - self._robot.published[0]
        for query, response in zip(queries, responses):
            right = response.success and judge(query, answer_from_response(query.text, response)).correct
            self._asked[query.text] += 1
            self._right[query.text] = right
            if is_answer(response):
                self.answers += 1
            else:
                self.refusal = response.message
            if right and self.first is None:
                self.first = (now, query.text)
        if queries:
            self._note(now)
        return took

    def _note(self, now: float) -> None:
        right, seen = sum(self._right.values()), len(self.seen)
        self.progress.append((round(now, 3), right, seen))
        if self.half is None and 2 * right >= seen:
            self.half = (now, right, seen)


def well_visible(room: Room, index: int) -> set[int]:
    """Instance ids of what a frame of the walk shows well, as `Room.sightings` counts it."""
    small = room.camera.scaled(160 / room.camera.width)
    ids, counts = np.unique(room.scene.masks(small, room.trajectory[index])[1], return_counts=True)
    return {int(i) for i, count in zip(ids, counts) if count >= WELL_VISIBLE * small.width * small.height}


def questions_of(room: Room) -> list[tuple[TruthQuery, int]]:
    """The "object" questions, each with the first frame that shows one of its things well."""
    visible = [well_visible(room, index) for index in range(len(room))]
    queries = [query for query in room.queries() if query.category == "object"]
    return [(query, next(i for i, ids in enumerate(visible) if ids & set(query.instance_ids))) for query in queries]


def check(node: NodeProcess, robot: Robot) -> None:
    """
    Raises:
        BenchmarkError: the node has ended, or its mapper has failed.
    """
    node.check()
    if robot.statuses and robot.status.state == "error":
        raise node.failure(f"the mapper failed: {robot.status.message}")


def wait_for(condition: Callable[[], bool], seconds: float, node: NodeProcess, robot: Robot) -> bool:
    """Whether a condition is met within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        check(node, robot)
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def bring_up(client: LerfClient, node: NodeProcess, robot: Robot, patience: float) -> tuple[float, float]:
    """Until the node listens to the camera: s until its first status, and s that it took to be configured."""
    began = time.monotonic()
    if not wait_for(lambda: bool(robot.statuses), patience, node, robot):
        raise node.failure(f"no status of the node within {patience:g} s")
    started = time.monotonic()
    if not client.change_state("configure"):
        raise node.failure("the node could not be configured")
    configured = time.monotonic()
    if not client.change_state("activate") or not wait_for(lambda: robot.heard, patience, node, robot):
        raise node.failure("the node does not listen to the camera")
    return started - began, configured - started


def measure_walk(
    options: argparse.Namespace,
    frames: Sequence[dict[str, Any]],
    asker: Asker,
    robot: Robot,
    start_up: tuple[float, float],
    node: NodeProcess,
) -> Walk:
    """Publishes frames and asks meanwhile, then goes on until half is right or the limit is reached."""
    robot.start(frames, options.rate)
    wait_for(lambda: bool(robot.published), options.patience, node, robot)
    asker.ask_while(lambda: robot.walks)
    end_right, end_seen = asker.ask_everything()
    until = robot.published[0] + options.limit
    asker.ask_while(lambda: asker.half is None and time.monotonic() < until)
    if not asker.answers:
        raise node.failure(f"the node never answered: {asker.refusal}")
    status, keyframe_ms = robot.status, [1e3 * seconds for seconds in robot.keyframe_seconds()]
    first_s, first_text = asker.first or (None, "")
    half_s, half_right, half_seen = asker.half or (None, 0, 0)
    return Walk(
        name="walk",
        started_s=start_up[0],
        configured_s=start_up[1],
        first_correct_s=first_s,
        first_text=first_text,
        half_correct_s=half_s,
        half_right=half_right,
        half_seen=half_seen,
        end_right=end_right,
        end_seen=end_seen,
        published=len(robot.published),
        taken=status.frames_received,
        dropped=sum(status.drop_counts),
        keyframes=status.keyframes,
        late_ms=1e3 * robot.late,
        keyframes_timed=len(keyframe_ms),
        keyframe_p50_ms=float(np.median(keyframe_ms)) if keyframe_ms else None,
        keyframe_worst_ms=max(keyframe_ms, default=None),
        progress=tuple(asker.progress),
    )


def ask_in_turn(client: LerfClient, node: NodeProcess, texts: Sequence[str], period: float) -> list[float]:
    """Round trips, ms, of questions that begin `period` s after each other, or once the last one is answered. Returns
    when the next one would begin."""
    milliseconds = []
    for text in texts:
        began = time.perf_counter()
        response = client.query(text)
        took = time.perf_counter() - began
        if not is_answer(response):
            raise node.failure(f"'{text}' was not answered: {response.message}")
        milliseconds.append(1e3 * took)
        time.sleep(max(0.0, period - took))
    return milliseconds


def measure_questions(
    options: argparse.Namespace, client: LerfClient, node: NodeProcess, robot: Robot, texts: Sequence[str]
) -> list[Asked]:
    """One question at a time, at a pace and without pauses; each compared with quiet before and after it."""

    def speed_of(work: Callable[[], Any]) -> float:
        """Training steps/s during some work."""
        began = time.monotonic()
        work()
        ended = time.monotonic()
        if not wait_for(lambda: robot.statuses[-1][0] > ended, options.patience, node, robot):
            raise node.failure(f"no status of the node within {options.patience:g} s")
        return robot.steps_per_second(began, ended)

    def asked(name: str, texts: Sequence[str], period: float, **targets: Any) -> Asked:
        milliseconds: list[float] = []
        before = speed_of(lambda: time.sleep(options.quiet))
        meanwhile = speed_of(lambda: milliseconds.extend(ask_in_turn(client, node, texts, period)))
        after = speed_of(lambda: time.sleep(options.quiet))
        p50, p90, p99 = (float(p) for p in np.percentile(milliseconds, [50, 90, 99]))
        quiet = (before + after) / 2
        share = meanwhile / quiet if quiet else None
        return Asked(name, len(texts), p50, p90, p99, max(milliseconds), meanwhile, quiet, share, **targets)

    half = len(texts) // 2
    targets = {"targets_ms": QUERY_MS, "target_share": TRAINING_SHARE}
    return [
        asked(f"one every {options.every:g} s", texts[:half], options.every, **targets),
        asked("one after the other", texts[half:], 0.0, targets_ms=QUERY_MS),
    ]


def measure(options: argparse.Namespace, room: Room, texts: Sequence[str]) -> tuple[Walk, list[Asked], Status]:
    """Everything, and the last status."""
    seen_from = questions_of(room)
    if not seen_from:
        raise BenchmarkError(f"{room.name} shows nothing that could be asked for in {len(room)} frames")
    seen = [room[index] for index in range(len(room))]  # rendered before anything is timed
    frames = [frame_messages(frame) for frame in (without_depth(seen) if options.colours_only else seen)]
    parameters = [f"device:={options.device}", f"preset:={options.preset}", f"status.rate:={STATUS_RATE}"]
    parameters.append("training.idle_steps:=0")  # speeds are those of a node that goes on learning
    with (
        tempfile.TemporaryDirectory() as folder,
        Robot(depth=not options.colours_only) as robot,
        LerfClient(timeout=options.patience) as client,
        running_node(Path(folder) / "node.log", [*parameters, *options.parameter]) as node,
    ):
        start_up = bring_up(client, node, robot, options.patience)
        asker = Asker(client, node, robot, seen_from)
        walk = measure_walk(options, frames, asker, robot, start_up, node)
        # What crops are left is encoded between training steps: then the speed would change by itself.
        wait_for(lambda: robot.status.pyramid_progress == 1, options.settle, node, robot)
        status = robot.status
        return walk, measure_questions(options, client, node, robot, texts), status


def print_table(walk: Walk, rows: Sequence[Asked], first_target_s: float) -> None:
    def seconds(value: float | None) -> str:
        return "not" if value is None else f"{value:.2f}"

    print(f"\n{'s':64}{'':>10}  target")
    print(f"{'process started, to its first status':64}{walk.started_s:10.2f}")
    print(f"{'configured':64}{walk.configured_s:10.2f}")
    first = f"first image to first correct target ({walk.first_text or 'none'})"
    print(f"{first:64}{seconds(walk.first_correct_s):>10}  {first_target_s:.0f}")
    right = f"{walk.half_right} of {walk.half_seen}" if walk.half_seen else "none"
    half = f"first image to half of what was seen by then ({right})"
    print(f"{half:64}{seconds(walk.half_correct_s):>10}")
    print(f"right at the end of the walk: {walk.end_right} of {walk.end_seen}")
    frames = (
        f"{walk.published} published (at most {walk.late_ms:.0f} ms late), {walk.taken} taken, {walk.dropped} dropped"
    )
    print(f"frames: {frames}, {walk.keyframes} keyframes")
    if walk.keyframe_p50_ms is not None:
        spread = f"p50 {walk.keyframe_p50_ms:.1f} ms, worst {walk.keyframe_worst_ms:.1f} ms"
        print(f"image to keyframe: {spread} ({walk.keyframes_timed} keyframes, until a frame was dropped)")
    head = f"{'asked':>6}{'p50':>10}{'p90':>10}{'p99':>10}{'worst':>10}{'steps/s':>10}{'quiet':>10}{'share':>8}"
    print(f"\n{'questions while training, ms':30}{head}  target (p50 / p99, share)")
    for r in rows:
        spread = f"{r.p50_ms:10.1f}{r.p90_ms:10.1f}{r.p99_ms:10.1f}{r.worst_ms:10.1f}"
        share = "" if r.share is None else f"{r.share:.1%}"
        training = f"{r.steps_per_s:10.1f}{r.quiet_steps_per_s:10.1f}{share:>8}"
        targets = " / ".join(f"{t:.0f}" for t in r.targets_ms) + (f", {r.target_share:.0%}" if r.target_share else "")
        print(f"{r.name:30}{r.questions:6}{spread}{training}  {targets}")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of(__doc__, "end_to_end", rate=5.0)
    parser.add_argument("--colours-only", action="store_true", help="the camera publishes no depth")
    parser.add_argument("--limit", type=float, default=60.0, help="s from the first image, until half must be right")
    parser.add_argument("--settle", type=float, default=60.0, help="s at most, after the walk, to encode what is left")
    parser.add_argument("--questions", type=int, default=100, help="one at a time, at each pace")
    parser.add_argument("--every", type=float, default=1.0, help="s between questions that come at a steady pace")
    parser.add_argument("--quiet", type=float, default=10.0, help="s of training without questions, before and after")
    parser.add_argument("--patience", type=float, default=120.0, help="s, for every answer of the node")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything was measured, 1 when the node failed."""
    options = options_of(arguments)
    prepare_environment(options.domain)
    texts = phrases(load_encoder("mini", device="cpu"), 2 * options.questions)
    room = room_of(options)
    try:
        walk, rows, status = measure(options, room, texts)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    origin = origin_of(options, room) | {"asked_at_once": AT_ONCE, "colours_only": options.colours_only}
    origin |= {"crops_encoded": round(status.pyramid_progress, 3), "steps_before_questions": status.steps}
    write_json(options.json, "end_to_end", origin, None, [walk, *rows])
    print(", ".join(f"{name} {value}" for name, value in origin.items()))
    print_table(walk, rows, COLOURS_FIRST_TARGET_S if options.colours_only else FIRST_TARGET_S)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
