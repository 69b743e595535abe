"""What an evaluation leaves behind: summary.json, a report in Markdown, and plots."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lerf_ros.evaluation.records import RoomResult
from lerf_ros.evaluation.statistics import precision_recall
from lerf_ros.evaluation.summary import HEADLINES, METRICS, ROOM_BAR, labels, summary

_NAMES = {
    "localization_accuracy_3d": "localisation in 3D",
    "localization_accuracy_2d": "localisation in 2D, held-out views",
    "parts_accuracy": "parts",
    "attributes_accuracy": "attributes",
    "existence_auroc": "existence, AUROC",
    "median_error_m": "position error, median",
    "error_90_m": "position error, 90 %",
    "median_error_things_m": "position error of things, median",
    "error_90_things_m": "position error of things, 90 %",
    "median_centre_error_m": "distance to the box's centre, median",
    "covariance_coverage": "coverage of 90 % confidence ellipsoids",
    "existence_average_precision": "existence, average precision",
    "existence_accuracy_at_threshold": "existence, accuracy at the default threshold",
    "absent_colour_auroc": "absent colour, AUROC",
    "recall_at_k": "several instances, recall at k",
    "found_and_right": "right and above the default threshold",
    "wholes_accuracy": "wholes of which parts are asked for",
    "part_of_part_accuracy": "parts of parts",
    "small_parts_accuracy": "parts that are not well visible",
    "parts_chance": "parts, chance on the thing's visible surface",
}
_PLAIN = {
    "rooms": "{:.0f}",
    "default_threshold": "{:.3f}",
    "best_threshold": "{:.3f}",
    "room_chance": "{:.4f}",
    "psnr": "{:.2f} dB",
    "depth_error": "{:.4f} m",
    "seconds": "{:.1f} s",
    "steps": "{:.0f}",
    "keyframes": "{:.0f}",
    "pyramid_progress": "{:.2f}",
    "memory_mb": "{:.0f} MB",
    "asking_seconds": "{:.2f} s",
}
_TITLES = {"default": "colour and depth", "no_depth": "colours alone"}  # of variants, in headers of tables
_CURVES = 8  # labels in a plot


def write(folder: Path, results: Sequence[RoomResult]) -> dict[str, Any]:
    """Writes summary.json, report.md and the plots, and returns the summary.

    Raises:
        ValueError: there are no results.
    """
    if not results:
        raise ValueError(f"there are no results in {folder / 'rooms'} to report on")
    values = summary(results)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(plain(values), indent=1) + "\n", encoding="utf-8")
    (folder / "report.md").write_text(markdown(values), encoding="utf-8")
    plot_precision_recall(folder / "precision_recall.png", results)
    plot_curves(folder / "accuracy_seconds.png", values)
    return values


def plain(value: Any) -> Any:
    """The same without NaN and infinity, which JSON does not know: null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(values: Mapping[str, Any]) -> str:
    """The report as text; `values` from `summary.summary`."""
    methods: Mapping[str, Mapping[str, Any]] = values["methods"]
    rooms = values["rooms"]
    lines = [
        "# Finding the right thing",
        "",
        f"{len(rooms)} rooms: {', '.join(map(str, rooms))}. {values['machine']['device']}, torch "
        f"{values['machine']['torch']}. In brackets 95 % intervals, from drawing whole rooms with replacement. "
        "Answers are judged without a threshold, unless said otherwise; wrong ones count as infinitely far off.",
        "",
    ]
    titles = [_title(label) for label in methods]
    header = ["", "questions", *titles]
    first = next(iter(methods.values()))
    rows = [
        [_NAMES[name], str(first[name]["queries"]), *(_estimate(name, m[name]) for m in methods.values())]
        for name in (*HEADLINES, *(name for name in METRICS if name not in HEADLINES))
    ]
    rows.append(["worst room, localisation in 3D", "", *(_worst_room(m) for m in methods.values())])
    rows.append([f"rooms below {100 * ROOM_BAR:.0f} %", "", *(_below_bar(m) for m in methods.values())])
    lines += _table(header, rows)
    rows = [
        [name.replace("_", " "), *(form.format(m[name]) for m in methods.values())] for name, form in _PLAIN.items()
    ]
    for crop in first["fidelity"]:
        pairs = [m["fidelity"].get(crop, (math.nan, math.nan)) for m in methods.values()]
        rows.append(
            [
                f"feature fidelity, crops of {crop} px (other crops)",
                *(f"{own:.3f} ({other:.3f})" for own, other in pairs),
            ]
        )
    lines += ["", "## Maps and means over rooms", "", *_table(["", *titles], rows)]
    lines += ["", "## Accuracy against seconds of training (questions about whole things)", ""]
    for label, m in methods.items():
        points = ", ".join(f"{p['seconds']:.0f} s {100 * p['accuracy']['value']:.1f} %" for p in m["curve"])
        lines.append(f"- {label}: {points}")
    lines += ["", "## Wrong answers, by the surface nearest to them", ""]
    for label, m in methods.items():
        lines.append(f"- {label}: " + ("; ".join(f"{n} {kind}" for kind, n in m["failures"].items()) or "none"))
    if values["paired"]:
        names = list(HEADLINES)
        rows = [[pair, *(_difference(name, d[name]) for name in names)] for pair, d in values["paired"].items()]
        lines += ["", "## Paired differences, by room and question", "", "Bold: the interval excludes zero.", ""]
        lines += _table(["", *(_NAMES[name] for name in names)], rows)
    lines += ["", "## Settings", ""]
    for variant, settings in values["settings"].items():
        lines.append(f"- {variant}: {json.dumps(settings)}")
    return "\n".join(lines) + "\n"


def plot_precision_recall(path: Path, results: Sequence[RoomResult]) -> None:
    """Present against absent questions, by the best relevancy, one curve a method."""
    figure, axis, plt = _figure()
    rows = METRICS["existence_auroc"].rows
    for label in labels(results)[:_CURVES]:
        rooms = [rows(r, label[1]) for r in results if r.variant == label[0] and label[1] in r.methods]
        scores = np.concatenate(rooms)
        precision, recall = precision_recall(scores[scores[:, 1] == 1, 0], scores[scores[:, 1] == 0, 0])
        axis.step(recall, precision, where="pre", label="/".join(label))
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02), title="Is it there?")
    _save(path, figure, axis, plt)


def plot_curves(path: Path, values: Mapping[str, Any]) -> None:
    """3D localisation of whole things against seconds of training, with intervals."""
    figure, axis, plt = _figure()
    for label, m in list(values["methods"].items())[:_CURVES]:
        seconds = [point["seconds"] for point in m["curve"]]
        accuracy = np.array([[point["accuracy"][key] for key in ("low", "value", "high")] for point in m["curve"]])
        axis.plot(seconds, accuracy[:, 1], marker="o", label=label)
        axis.fill_between(seconds, accuracy[:, 0], accuracy[:, 2], alpha=0.15)
    axis.set(xlabel="seconds of training", ylabel="localisation accuracy in 3D", xscale="log", ylim=(0, 1.02))
    _save(path, figure, axis, plt)


def _figure() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4.2), dpi=110)
    return figure, axis, plt


def _save(path: Path, figure: Any, axis: Any, plt: Any) -> None:
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(row) + " |" for row in cells]


def _title(label: str) -> str:
    """Of a column: "variant/method", and in words what the variant maps, where that is not in its name."""
    variant = label.rpartition("/")[0]
    return f"{label} ({_TITLES[variant]})" if variant in _TITLES else label


def _worst_room(values: Mapping[str, Any]) -> str:
    if values["worst_room"] is None:
        return "-"
    seed = values["worst_room"]
    return f"{100 * values['room_accuracy'][str(seed)]:.1f} % (room {seed})"


def _below_bar(values: Mapping[str, Any]) -> str:
    below = values["rooms_below_bar"]
    return f"{len(below)} of {len(values['room_accuracy'])}" + (f": {', '.join(map(str, below))}" if below else "")


def _estimate(name: str, estimate: Mapping[str, float]) -> str:
    if not estimate["queries"]:
        return "-"
    unit = " cm" if name.endswith("_m") else " %" if "auroc" not in name else ""
    value, low, high = (_scaled(name, estimate[key]) for key in ("value", "low", "high"))
    return f"{value}{unit}" + (f" [{low}, {high}]" if not math.isnan(estimate["low"]) else "")


def _difference(name: str, estimate: Mapping[str, Any]) -> str:
    text = _estimate(name, estimate)
    return f"**{text}**" if estimate["counts"] else text


def _scaled(name: str, value: float) -> str:
    if not math.isfinite(value):
        return "inf" if value > 0 else "-inf" if value < 0 else "-"
    return f"{100 * value:.1f}" if "auroc" not in name else f"{value:.3f}"
