"""Maps a room, asks everything, and judges the answers: one `RoomResult` for a room and a variant."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lerf_ros.evaluation import records
from lerf_ros.evaluation.exam import Exam, HeldOutView, PixelBox
from lerf_ros.evaluation.fidelity import feature_fidelity
from lerf_ros.evaluation.heldout import evaluate_views
from lerf_ros.evaluation.localization import in_confidence_ellipsoid, judge
from lerf_ros.evaluation.methods import METHODS, Method
from lerf_ros.evaluation.pacing import drive
from lerf_ros.evaluation.records import AnswerRecord, QueryRecord, RoomResult, RunSettings
from lerf_ros.evaluation.sheet import write_sheet
from lerf_ros.evaluation.variants import Variant
from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.targets import Answer
from lerf_ros.world.truth import TruthQuery

RENDER_STRIDE = 4  # pixels; held-out views are rendered and compared at a quarter of the camera's resolution
THINGS = ("object", "attribute")  # questions about one whole thing
_TEXTS = 64  # answered at a time: similarities take memory


def evaluate_room(
    exam: Exam,
    variant: Variant,
    settings: RunSettings,
    encoder: Encoder,
    say: Callable[[str], object] = lambda text: None,
    pictures: Path | None = None,
) -> RoomResult:
    """Maps the room of an exam as the variant says, and asks every method.

    Args:
        encoder: on the device of the settings.
        say: hears where the work stands.
        pictures: folder for a sheet of relevancy views; None: no pictures.
    """
    device = torch.device(settings.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seed = exam.room.seed
    online = variant.mapper(settings.config(variant), encoder, device, seed)
    frames = variant.frames(exam.frames, np.random.default_rng([seed, 8]))
    budget = settings.budget * variant.budget
    curve: list[dict[str, Any]] = []
    final: dict[str, tuple[Method, float, list[Answer]]] = {}
    for stop in drive(frames, budget, online.ingest, online.advance, settings.stops, lambda: _settle(device)):
        say(f"{stop.share:.0%} mapped: {online.mapper.keyframes} keyframes, {stop.steps} steps; asking")
        last = stop.share == settings.stops[-1]
        queries = exam.queries if last else [query for query in exam.queries if query.category in THINGS]
        correct = {}
        for name in variant.methods:
            method = METHODS[name](online)
            began = time.monotonic()
            answers = ask(method, queries)
            _settle(device)
            if last:
                final[name] = (method, time.monotonic() - began, answers)
            correct[name] = [
                judge(query, answer, exam.surface).correct
                for query, answer in zip(queries, answers, strict=True)
                if query.category in THINGS
            ]
        curve.append({**asdict(stop), "keyframes": online.mapper.keyframes, "correct": correct})
    memory_mb = _memory_mb(device)
    say("held-out views")
    methods = {}
    for name, (method, seconds, answers) in final.items():
        views = score_views(method, exam.queries, exam.held_out)
        methods[name] = {"seconds": seconds, "answers": [asdict(a) for a in record(exam, answers, views)]}
    if pictures is not None:
        for name, (method, _, answers) in final.items():
            write_sheet(pictures / f"room_{seed}_{variant.name}_{name}.jpg", method, exam, answers, RENDER_STRIDE)
    return RoomResult(
        seed=seed,
        variant=variant.name,
        fingerprint=settings.fingerprint(variant),
        found_threshold=encoder.calibration.found_threshold,
        settings=_settings(settings, variant, encoder),
        machine=records.machine(device),
        things={str(i): thing.caption for i, thing in exam.room.things.items()},
        queries=[asdict(query) for query in query_records(exam)],
        methods=methods,
        curve=curve,
        figures={
            **_field_figures(online, exam.held_out),
            "memory_mb": memory_mb,
            "seconds": curve[-1]["seconds"],
            "steps": curve[-1]["steps"],
            "keyframes": online.mapper.keyframes,
            "pyramid_progress": online.pyramid_progress,
            "room_chance": exam.room_chance,
        },
    )


def ask(method: Method, queries: Sequence[TruthQuery]) -> list[Answer]:
    """Answers without a threshold: one target a question, and k where k instances are wanted."""
    several = [query for query in queries if query.category == "instances"]
    answers: dict[str, Answer] = {}
    for k, group in (
        (1, [query for query in queries if query.category != "instances"]),
        (max((len(query.boxes) for query in several), default=1), several),
    ):
        texts = [query.text for query in group]
        for start in range(0, len(texts), _TEXTS):
            part = texts[start : start + _TEXTS]
            answers.update(zip(part, method.answer(part, min_relevancy=0.0, max_targets=k), strict=True))
    return [answers[query.text] for query in queries]


def score_views(
    method: Method, queries: Sequence[TruthQuery], held_out: Sequence[HeldOutView]
) -> dict[str, tuple[int, int]]:
    """(hits, views) of each text about a thing: in how many of the held-out views that show it well does the most
    relevant pixel lie in its 2D box (LERF, section 4.2). Empty for methods without views."""
    things = [query for query in queries if query.category in THINGS]
    counts = {query.text: (0, 0) for query in things}
    for view in held_out:
        shown = [query for query in things if any(i in view.boxes for i in query.instance_ids)]
        if not shown:
            continue
        camera, pose = view.view.camera, view.view.T_world_camera
        values = method.relevancy_view(camera, pose, [query.text for query in shown], RENDER_STRIDE)
        if values is None:
            return {}
        for query, relevancy in zip(shown, values, strict=True):
            hits, views = counts[query.text]
            boxes = [view.boxes[i] for i in query.instance_ids if i in view.boxes]
            counts[query.text] = (hits + peak_inside(relevancy, boxes, RENDER_STRIDE), views + 1)
    return counts


def peak_inside(relevancy: NDArray[np.float32], boxes: Sequence[PixelBox], stride: int) -> bool:
    """Whether the most relevant pixel of a strided view (h, w) lies in a box of the full picture."""
    row, column = np.unravel_index(int(np.argmax(relevancy)), relevancy.shape)
    u, v = column * stride + stride // 2, row * stride + stride // 2
    return any(u0 <= u <= u1 and v0 <= v <= v1 for u0, v0, u1, v1 in boxes)


def record(exam: Exam, answers: Sequence[Answer], views: dict[str, tuple[int, int]]) -> list[AnswerRecord]:
    """Answers, in the order of the exam's queries, judged."""
    result = []
    for query, answer in zip(exam.queries, answers, strict=True):
        outcome = judge(query, answer, exam.surface)
        best = answer.targets[0] if answer.found else None
        result.append(
            AnswerRecord(
                relevancy=round(answer.best_relevancy, 5),
                correct=outcome.present and outcome.correct,
                error=_finite(outcome.error),
                centre_error=_finite(outcome.centre_error),
                hits=outcome.hits,
                position=[round(float(x), 4) for x in best.position] if best else None,
                landed=_landed(exam, best.position) if best else None,
                in_ellipsoid=in_confidence_ellipsoid(best, exam.surface) if best else None,
                views=list(views.get(query.text, (0, 0))),
            )
        )
    return result


def query_records(exam: Exam) -> list[QueryRecord]:
    chances = iter(exam.part_chances)
    return [
        QueryRecord(
            query.text,
            query.category,
            list(query.instance_ids),
            [exam.room.things[i].caption for i in query.instance_ids],
            query.part,
            exam.part_of_part(query),
            list(query.rivals),
            round(next(chances), 4) if query.part is not None else None,
        )
        for query in exam.queries
    ]


def _landed(exam: Exam, position: NDArray[np.float64]) -> list[Any]:
    instance, part, distance = exam.surface.label(position)
    return [instance, part, round(distance, 4)]


def _field_figures(online: OnlineMapper, held_out: Sequence[HeldOutView]) -> dict[str, Any]:
    """How well the map's radiance and language agree with held-out views."""
    quality = evaluate_views(
        lambda frame: online.mapper.render(frame.camera, frame.T_world_camera, stride=RENDER_STRIDE),
        [view.frame() for view in held_out],
        RENDER_STRIDE,
    )
    fidelity = feature_fidelity(online, held_out, RENDER_STRIDE)
    return {"psnr": quality.psnr, "depth_error": quality.depth_error, "fidelity": fidelity}


def _settings(settings: RunSettings, variant: Variant, encoder: Encoder) -> dict[str, Any]:
    return {
        "exam": records.EXAM_VERSION,
        "preset": settings.preset,
        "overrides": json.loads(json.dumps({**settings.overrides, **variant.settings})),
        "budget": asdict(settings.budget * variant.budget),
        "device": settings.device,
        "jobs": settings.jobs,
        "frames": settings.frames,
        "size": [settings.width, settings.height],
        "encoder": encoder.name,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
    }


def _finite(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _memory_mb(device: torch.device) -> float:
    """CUDA: the most that tensors took since the room began; CPU: what the process has resident now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
