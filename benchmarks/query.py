"""Latency of a question to a trained map, without ROS: from the text to its 3D targets, and to a relevancy picture.

    python benchmarks/query.py [--data FOLDER] [--steps 2000] [--questions 100]

Questions are asked one at a time: of a map that stands still, with texts that are new and with the same ones again; of
a map that changed before each of them, so that its surface is made anew; and while it trains, when a question that
comes as a step begins waits for that step, as in the node. The limit counts the matrix operations of one question
(median over a few, crops for closer looks included) over the matrix rate of the same run; table reads, sorting and
Python count nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from measuring import Machine, count_operations, provenance, synchronise, write_json
from scenes import EVERY_FRAME, build_encoder, in_fixed_volume, keyframe_each, load_frames, parser_of, train

from lerf_ros.evaluation.methods import SURFACE_POINTS, rendered_relevancy
from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.targets import QueryOptions, find_targets
from lerf_ros.world.kinds.catalogue import KINDS
from lerf_ros.world.materials import COLOURS, MATERIALS

_WARM_UP = 3  # questions, whose operations are counted
_COARSE_ONLY = QueryOptions(closer_points=0)


@dataclass(frozen=True)
class Row:
    """Latencies of one kind of question, ms; the targets are those of one H200 (p50, p99)."""

    name: str
    questions: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    worst_ms: float
    limit_ms: float | None
    targets_ms: tuple[float, ...] = ()


def phrases(encoder: Encoder, count: int) -> list[str]:
    """Different texts that the encoder knows: "red mug", ..."""
    every = (f"{colour} {kind}" for kind, colour in itertools.product(KINDS, (*COLOURS, *MATERIALS)))
    known = [text for text in every if not encoder.unknown_words(text)]
    return [known[i] for i in np.random.default_rng(0).permutation(len(known))[:count]]


def row(
    name: str,
    works: Sequence[Callable[[], Any]],
    device: torch.device,
    limit_ms: float | None = None,
    targets_ms: tuple[float, ...] = (),
    before: Callable[[], Any] = lambda: None,
) -> Row:
    """Times each piece of work by itself; `before` runs untimed."""
    milliseconds = []
    for work in works:
        before()
        synchronise(device)
        began = time.perf_counter()
        work()
        synchronise(device)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    p50, p90, p99 = (float(p) for p in np.percentile(milliseconds, [50, 90, 99]))
    return Row(name, len(works), p50, p90, p99, max(milliseconds), limit_ms, targets_ms)


def question_rows(online: OnlineMapper, texts: Sequence[str], machine: Machine, max_points: int) -> list[Row]:
    """Questions and their parts, those last that change the map. The first few of the texts only warm up."""
    mapper, encoder = online.mapper, online.encoder
    device = mapper.device

    def change() -> None:
        mapper.version += 1  # as a training step says it, without the step

    def rebuild(text: str) -> None:
        change()
        online.surface(max_points)

    def find(text: str, options: QueryOptions | None = None) -> None:
        find_targets(online.surface(max_points), encoder, [text], options)

    def step_and_find(text: str) -> None:
        online.advance()
        find(text)

    def limit(work: Callable[[str], Any]) -> float:
        counts = [count_operations(partial(work, text)) for text in warm]
        return machine.limit_ms(0, float(np.median(counts)))

    def timed(name: str, work: Callable[[str], Any], limit_ms: float | None, **more: Any) -> Row:
        return row(name, [partial(work, text) for text in texts], device, limit_ms, **more)

    warm, texts = texts[:_WARM_UP], texts[_WARM_UP:]
    made = limit(rebuild)
    new, known = limit(find), limit(find)  # the second time, the crops of their closer looks are encoded
    coarse = limit(lambda text: find(text, _COARSE_ONLY))
    rows = [
        timed("the map stands still, new texts", find, new),
        timed("the same texts again", find, known),
        timed("the map changed, same texts", find, made + known, before=change),
        timed("part: surface made anew", lambda text: online.surface(max_points), made, before=change),
        timed("part: text encoding", lambda text: encoder.encode_texts([f"{text} {text}"]), None),
        timed("part: coarse pass, known texts", lambda text: find(text, _COARSE_ONLY), coarse),
    ]
    for text in warm:
        step_and_find(text)
    return [
        *rows,
        timed("part: a training step", lambda text: online.advance(), None),
        timed("training: a step, then the question", step_and_find, made + known, targets_ms=(30.0, 100.0)),
    ]


def picture_row(
    online: OnlineMapper, frames: Sequence[Frame], texts: Sequence[str], machine: Machine, stride: int
) -> Row:
    """Relevancy of one text in whole views; the first one warms up."""

    def picture(frame: Frame, text: str) -> None:
        rendered_relevancy(online, frame.camera, frame.T_world_camera, [text], stride)

    works = [partial(picture, frame, text) for frame, text in zip(itertools.cycle(frames), texts)]
    operations = count_operations(works[0])
    name = f"relevancy picture {frames[0].camera.width}x{frames[0].camera.height}, stride {stride}"
    return row(name, works[1:], online.mapper.device, machine.limit_ms(0, operations), (50.0,))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "query", frames=50)
    parser.add_argument("--encoder", default="mini", help="mini, or a model of open_clip with random weights")
    parser.add_argument("--steps", type=int, default=2000, help="of training, before the questions")
    parser.add_argument("--questions", type=int, default=100, help="of each kind")
    parser.add_argument("--points", type=int, default=SURFACE_POINTS, help="of the surface")
    parser.add_argument("--pictures", type=int, default=20)
    parser.add_argument("--stride", type=int, default=1, help="of the relevancy pictures")
    options = parser.parse_args(arguments)
    device, origin = options.device, provenance(options.device)
    machine, encoder = Machine.measured(device), build_encoder(options.encoder, device)
    frames = load_frames(options.data, options.frames)
    config = in_fixed_volume(PRESETS[options.preset], frames).override(EVERY_FRAME)
    online = train(keyframe_each(OnlineMapper(config, encoder, device), frames), options.steps)
    texts = phrases(encoder, options.questions + _WARM_UP)
    rows = question_rows(online, texts, machine, options.points)
    p50 = {r.name: r.p50_ms for r in rows}
    rows.append(picture_row(online, frames, texts[: options.pictures + 1], machine, options.stride))

    origin |= {"preset": options.preset, "data": options.data.rstrip("/").rpartition("/")[2], "encoder": encoder.name}
    origin |= {"keyframes": online.mapper.keyframes, "trained_steps": options.steps, "points": options.points}
    origin |= {"matrix_rate_tflop_s": round(machine.matrix_rate / 1e12, 2)}
    write_json(options.json, "query", origin, machine.bandwidth, rows)
    print(", ".join(f"{name} {value}" for name, value in origin.items()), machine, sep="\n")
    print(f"\n{'ms':42}{'asked':>6}{'p50':>10}{'p90':>10}{'p99':>10}{'worst':>10}{'limit':>10}  target (p50 / p99)")
    for r in rows:
        limit = "" if r.limit_ms is None else f"{r.limit_ms:.3f}"
        spread = f"{r.p50_ms:10.2f}{r.p90_ms:10.2f}{r.p99_ms:10.2f}{r.worst_ms:10.2f}"
        print(f"{r.name:42}{r.questions:6}{spread}{limit:>10}  {' / '.join(f'{t:.0f}' for t in r.targets_ms)}")
    looks = p50["the same texts again"] - p50["part: coarse pass, known texts"]
    print(f"closer looks (the same texts again, less the coarse pass): {looks:.2f} ms")


if __name__ == "__main__":
    main()
