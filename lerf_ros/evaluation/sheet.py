"""A sheet of pictures of one room: relevancy over held-out views, the truth in white, the answer in its colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.evaluation.exam import Exam, HeldOutView, PixelBox, pixel_box
from lerf_ros.evaluation.localization import judge
from lerf_ros.evaluation.methods import Method
from lerf_ros.evaluation.pictures import caption, draw_target, outcome_colour, relevancy_overlay
from lerf_ros.query.targets import Answer
from lerf_ros.world.parts import PARTS
from lerf_ros.world.truth import TruthQuery

COLUMNS, TILES = 3, 9
TILE_WIDTH = 480  # px
_SHARES = {"part": 4, "attribute": 2, "object": 3}  # of the tiles, wrong answers first


def write_sheet(path: Path, method: Method, exam: Exam, answers: Sequence[Answer], stride: int) -> None:
    """Writes up to nine questions, wrong answers first, each over the held-out view that shows most of what it names;
    nothing for methods without views."""
    by_text = dict(zip((query.text for query in exam.queries), answers, strict=True))
    tiles = []
    for query in _chosen(exam, by_text):
        shown = best_shown(query, exam.held_out)
        if shown is None:
            continue
        view, box = shown
        values = method.relevancy_view(view.view.camera, view.view.T_world_camera, [query.text], stride)
        if values is None:
            return
        tiles.append(_tile(exam, query, by_text[query.text], view, box, values[0]))
    if not tiles:
        return
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def best_shown(query: TruthQuery, held_out: Iterable[HeldOutView]) -> tuple[HeldOutView, PixelBox] | None:
    """The view that shows most pixels of what a question names, and their box; None when no view shows any."""
    best: tuple[int, HeldOutView, NDArray[np.bool_]] | None = None
    for view in held_out:
        mask = np.isin(view.view.instance, query.instance_ids)
        if query.part is not None:
            mask &= view.view.part == 1 + PARTS.index(query.part)
        count = int(mask.sum())
        if count and (best is None or count > best[0]):
            best = (count, view, mask)
    return None if best is None else (best[1], pixel_box(best[2]))


def _chosen(exam: Exam, answers: dict[str, Answer]) -> list[TruthQuery]:
    chosen: list[TruthQuery] = []
    for category, share in _SHARES.items():
        queries = [query for query in exam.queries if query.category == category]
        queries.sort(key=lambda query: judge(query, answers[query.text], exam.surface).correct)
        # half of them wrong ones, if there are, and as many right ones from the end
        chosen += queries[: (share + 1) // 2] + queries[(share + 1) // 2 :][-(share // 2) :]
    return chosen[:TILES]


def _tile(
    exam: Exam, query: TruthQuery, answer: Answer, view: HeldOutView, box: PixelBox, relevancy: NDArray[np.float32]
) -> NDArray[np.uint8]:
    image = relevancy_overlay(view.view.image, relevancy)
    cv2.rectangle(image, box[:2], box[2:], (255, 255, 255), 2)
    outcome = judge(query, answer, exam.surface)
    if answer.found:
        colour = outcome_colour(outcome.correct)
        draw_target(image, answer.targets[0], view.view.camera, view.view.T_world_camera, colour)
    size = (TILE_WIDTH, round(TILE_WIDTH * image.shape[0] / image.shape[1]))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    where = f"{100 * outcome.error:.0f} cm" if np.isfinite(outcome.error) else "nowhere"
    verdict = "right" if outcome.correct else f"WRONG, {where}"
    return caption(image, f"'{query.text}' {answer.best_relevancy:.2f} {verdict}")
