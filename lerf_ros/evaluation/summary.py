"""From the results of rooms to figures with intervals, and to paired differences between methods and variants."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerf_ros.evaluation.records import RoomResult
from lerf_ros.evaluation.statistics import Estimate, auroc, average_precision, best_threshold, bootstrap

Array = NDArray[np.float64]
THINGS = ("object", "attribute")
PRESENT = (*THINGS, "instances", "part")
ROOM_BAR = 0.85  # localisation in 3D; rooms below it are counted and named
HEADLINES = (
    "localization_accuracy_3d",
    "localization_accuracy_2d",
    "parts_accuracy",
    "attributes_accuracy",
    "existence_auroc",
    "median_error_m",
)


@dataclass(frozen=True)
class Metric:
    """A figure: the rows (n, c) that a room's answers of a method give, and the statistic of all rooms' rows."""

    rows: Callable[[RoomResult, str], Array]
    statistic: Callable[[Array], float]


def _mean(
    *categories: str,
    of: Callable[[dict[str, Any], dict[str, Any], RoomResult], float],
    where: Callable[[dict[str, Any], RoomResult], bool] = lambda query, result: True,
) -> Metric:
    """Of one value of each question in some categories."""

    def rows(result: RoomResult, method: str) -> Array:
        pairs = zip(result.queries, result.methods[method]["answers"], strict=True)
        kept = [of(q, a, result) for q, a in pairs if q["category"] in categories and where(q, result)]
        return np.array(kept, np.float64).reshape(-1, 1)

    return Metric(rows, lambda rows: float(rows.mean()))


def _correct(query: dict[str, Any], answer: dict[str, Any], result: RoomResult) -> float:
    return float(answer["correct"])


def _quantile(share: float, name: str, *categories: str) -> Metric:
    """Of errors over present questions; a wrong answer, or none, counts as infinitely far off."""

    def rows(result: RoomResult, method: str) -> Array:
        pairs = zip(result.queries, result.methods[method]["answers"], strict=True)
        errors = [a[name] if a["correct"] else math.inf for q, a in pairs if q["category"] in categories]
        return np.array(errors, np.float64).reshape(-1, 1)

    return Metric(rows, lambda rows: float(np.quantile(rows, share, method="inverted_cdf")))


def _existence(absent: str, statistic: Callable[[Array, Array], float]) -> Metric:
    """Of the best relevancies of questions about things that are there, and about those that are not."""

    def rows(result: RoomResult, method: str) -> Array:
        pairs = zip(result.queries, result.methods[method]["answers"], strict=True)
        kept = [(a["relevancy"], q["category"] in THINGS) for q, a in pairs if q["category"] in (*THINGS, absent)]
        return np.array(kept, np.float64).reshape(-1, 2)

    return Metric(rows, lambda rows: statistic(rows[rows[:, 1] == 1, 0], rows[rows[:, 1] == 0, 0]))


def _ratio(part_of: Callable[[dict[str, Any], dict[str, Any]], tuple[int, int]], *categories: str) -> Metric:
    """Of (hits, trials) added up."""

    def rows(result: RoomResult, method: str) -> Array:
        pairs = zip(result.queries, result.methods[method]["answers"], strict=True)
        counts = [part_of(query, answer) for query, answer in pairs if query["category"] in categories]
        return np.array([count for count in counts if count[1]], np.float64).reshape(-1, 2)

    return Metric(rows, lambda rows: float(rows[:, 0].sum() / rows[:, 1].sum()) if len(rows) else math.nan)


def _has_parts(query: dict[str, Any], result: RoomResult) -> bool:
    """Whether parts of the thing are asked for as well."""
    return any(other["part"] and other["instance_ids"] == query["instance_ids"] for other in result.queries)


def _at_threshold(query: dict[str, Any], answer: dict[str, Any], result: RoomResult) -> float:
    return float((answer["relevancy"] >= result.found_threshold) == (query["category"] in THINGS))


METRICS: dict[str, Metric] = {
    "localization_accuracy_3d": _mean(*THINGS, of=_correct),
    "localization_accuracy_2d": _ratio(lambda query, answer: tuple(answer["views"]), *THINGS),
    "parts_accuracy": _mean("part", of=_correct),
    "attributes_accuracy": _mean("attribute", of=_correct),
    "existence_auroc": _existence("absent", auroc),
    "median_error_m": _quantile(0.5, "error", *PRESENT),
    "error_90_m": _quantile(0.9, "error", *PRESENT),
    "median_error_things_m": _quantile(0.5, "error", *THINGS),
    "error_90_things_m": _quantile(0.9, "error", *THINGS),
    "median_centre_error_m": _quantile(0.5, "centre_error", *PRESENT),
    "covariance_coverage": _ratio(
        lambda query, answer: (bool(answer["in_ellipsoid"]), answer["in_ellipsoid"] is not None), *PRESENT
    ),
    "existence_average_precision": _existence("absent", average_precision),
    "existence_accuracy_at_threshold": _mean(*THINGS, "absent", of=_at_threshold),
    "absent_colour_auroc": _existence("absent_colour", auroc),
    "recall_at_k": _ratio(lambda query, answer: (answer["hits"], len(query["instance_ids"])), "instances"),
    "found_and_right": _mean(
        *THINGS, of=lambda query, answer, result: answer["correct"] and answer["relevancy"] >= result.found_threshold
    ),
    "wholes_accuracy": _mean(*THINGS, of=_correct, where=_has_parts),
    "part_of_part_accuracy": _mean(
        "part", "small_part", of=_correct, where=lambda query, result: query["part_of_part"]
    ),
    "small_parts_accuracy": _mean("small_part", of=_correct),
    "parts_chance": _mean("part", of=lambda query, answer, result: query["chance"]),
}


def labels(results: Sequence[RoomResult]) -> list[tuple[str, str]]:
    """(variant, method) of all results, in their order."""
    return list(dict.fromkeys((result.variant, method) for result in results for method in result.methods))


def figures(results: Sequence[RoomResult], variant: str, method: str) -> dict[str, Any]:
    """Everything about one method on the maps of one variant."""
    rooms = [result for result in results if result.variant == variant and method in result.methods]
    values: dict[str, Any] = {
        name: bootstrap([metric.rows(room, method) for room in rooms], metric.statistic)
        for name, metric in METRICS.items()
    }
    values |= _single_rooms(rooms, method)
    scores = METRICS["existence_auroc"].rows
    rows = np.concatenate([scores(room, method) for room in rooms])
    present, absent = rows[rows[:, 1] == 1, 0], rows[rows[:, 1] == 0, 0]
    values["default_threshold"] = rooms[0].found_threshold
    values["best_threshold"] = best_threshold(present, absent) if len(present) and len(absent) else math.nan
    values["rooms"] = len(rooms)
    values["failures"] = dict(Counter(kind for room in rooms for kind in failures(room, method)).most_common())
    values["asking_seconds"] = float(np.mean([room.methods[method]["seconds"] for room in rooms]))
    for name in (
        "psnr",
        "depth_error",
        "memory_mb",
        "seconds",
        "steps",
        "keyframes",
        "pyramid_progress",
        "room_chance",
    ):
        values[name] = float(np.mean([room.figures[name] for room in rooms]))
    levels = zip(*(room.figures["fidelity"] for room in rooms), strict=True)
    values["fidelity"] = {
        str(level[0][0]): [float(np.mean([row[i] for row in level])) for i in (1, 3)] for level in levels
    }
    values["curve"] = [
        {
            "share": stops[0]["share"],
            "seconds": float(np.mean([stop["seconds"] for stop in stops])),
            "steps": float(np.mean([stop["steps"] for stop in stops])),
            "accuracy": asdict(bootstrap([np.array(stop["correct"][method], np.float64) for stop in stops])),
        }
        for stops in zip(*(room.curve for room in rooms), strict=True)
    ]
    return values


def _single_rooms(rooms: Sequence[RoomResult], method: str) -> dict[str, Any]:
    """{"room_accuracy": seed -> localisation in 3D, "worst_room": its seed, "rooms_below_bar": seeds of the rooms below
    `ROOM_BAR`}; rooms without a question about a thing are left out."""
    metric = METRICS["localization_accuracy_3d"]
    rows = {room.seed: metric.rows(room, method) for room in rooms}
    accuracy = {seed: metric.statistic(values) for seed, values in sorted(rows.items()) if len(values)}
    return {
        "room_accuracy": {str(seed): value for seed, value in accuracy.items()},
        "worst_room": min(accuracy, key=lambda seed: accuracy[seed], default=None),
        "rooms_below_bar": [seed for seed, value in accuracy.items() if value < ROOM_BAR],
    }


def paired(results: Sequence[RoomResult], one: tuple[str, str], other: tuple[str, str]) -> dict[str, Any]:
    """Differences (one minus other) over the same questions about the same rooms, for every metric; a difference
    counts when its interval excludes zero."""
    by_room = {(result.variant, result.seed): result for result in results}
    seeds = [seed for variant, seed in by_room if variant == one[0] and (other[0], seed) in by_room]
    differences: dict[str, Any] = {"rooms": len(seeds)}
    for name, metric in METRICS.items():
        pairs = [[metric.rows(by_room[variant, seed], method) for variant, method in (one, other)] for seed in seeds]
        estimate = _difference(pairs, metric.statistic)
        counts = not math.isnan(estimate.low) and not estimate.low <= 0.0 <= estimate.high
        differences[name] = {**asdict(estimate), "counts": counts}
    return differences


def _difference(pairs: Sequence[Sequence[Array]], statistic: Callable[[Array], float]) -> Estimate:
    """Rows of the two sides, room by room. Rooms are drawn with both sides: each row carries its side in front."""
    rooms = [
        np.vstack([np.column_stack([np.full(len(rows), side), rows]) for side, rows in enumerate(pair)])
        for pair in pairs
    ]

    def difference(rows: Array) -> float:
        one, other = rows[rows[:, 0] == 0, 1:], rows[rows[:, 0] == 1, 1:]
        if not (len(one) and len(other)):
            return math.nan
        a, b = statistic(one), statistic(other)
        return 0.0 if a == b else a - b  # two infinite errors differ by nothing

    estimate = bootstrap(rooms, difference)
    return Estimate(estimate.value, estimate.low, estimate.high, estimate.queries // 2)


def failures(result: RoomResult, method: str) -> list[str]:
    """What kind of mistake each wrong answer to a present question is, by the surface nearest to it."""
    kinds = []
    for query, answer in zip(result.queries, result.methods[method]["answers"], strict=True):
        if query["category"] not in PRESENT or answer["correct"]:
            continue
        asked = "part" if query["category"] == "part" else "thing"
        if answer["landed"] is None:
            kinds.append(f"{asked}: nothing found")
            continue
        instance = answer["landed"][0]
        if instance in query["instance_ids"]:
            kinds.append(f"{asked}: on the thing itself, {'another part' if asked == 'part' else 'outside its box'}")
        elif instance in query["rivals"]:
            kinds.append(f"{asked}: on a look-alike")
        else:
            kinds.append(f"{asked}: on something else")
    return kinds


def summary(results: Sequence[RoomResult]) -> dict[str, Any]:
    """What `summary.json` holds: the headline figures of the first method of the first variant, then all of them."""
    names = labels(results)
    everything = {"/".join(label): figures(results, *label) for label in names}
    first = everything["/".join(names[0])]
    plain = {
        label: {name: asdict(value) if isinstance(value, Estimate) else value for name, value in values.items()}
        for label, values in everything.items()
    }
    return {
        **{name: asdict(first[name]) for name in HEADLINES},
        "of": "/".join(names[0]),
        "rooms": sorted({result.seed for result in results}),
        "machine": results[-1].machine,
        "settings": {result.variant: result.settings for result in results},
        "methods": plain,
        "paired": {f"{'/'.join(names[0])} - {'/'.join(name)}": paired(results, names[0], name) for name in names[1:]},
    }
