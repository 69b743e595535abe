"""The evaluation evaluated: methods whose figures are known beforehand, asked about one room by the real runner."""

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from lerf_ros.evaluation import methods, records, report, summary
from lerf_ros.evaluation.pacing import Budget
from lerf_ros.evaluation.records import RunSettings
from lerf_ros.evaluation.runner import THINGS, evaluate_room, peak_inside, score_views
from lerf_ros.evaluation.variants import Variant
from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import PRESETS

SHIFTS = {"shifted_1cm": 0.01, "shifted_5cm": 0.045, "shifted_1m": 1.0}
GUESSES = 4
SMALL = {"pyramid.fractions": (0.3, 0.5), "pyramid.strides": (0.5, 0.5), "pyramid.time_share": 0.9}


@pytest.fixture(scope="module")
def result(exam, oracle, guesser):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(methods.METHODS, "oracle", lambda online: oracle(exam))
        for name, shift in SHIFTS.items():
            patch.setitem(methods.METHODS, name, lambda online, shift=shift: oracle(exam, shift))
        for i in range(GUESSES):
            patch.setitem(methods.METHODS, f"anywhere{i}", lambda online, i=i: guesser(exam, i))
            patch.setitem(methods.METHODS, f"on_it{i}", lambda online, i=i: guesser(exam, 100 + i, own=True))
        guessers = [f"{name}{i}" for name in ("anywhere", "on_it") for i in range(GUESSES)]
        variant = Variant("test", SMALL, methods=("oracle", *SHIFTS, *guessers, "field", "voxels"))
        settings = RunSettings(
            "cpu", Budget(steps=6), "cpu", "0123", frames=24, width=160, height=120, views=5, stops=(0.5, 1)
        )
        return evaluate_room(exam, variant, settings, load_encoder())


def of(result, method):
    return summary.figures([result], "test", method)


def test_an_oracle_is_right_in_everything(result):
    figures = of(result, "oracle")
    right = [name for name in summary.METRICS if name.endswith(("accuracy", "accuracy_3d", "accuracy_2d", "auroc"))]
    assert len(right) >= 6
    for name in (*right, "existence_average_precision", "recall_at_k", "found_and_right"):
        assert figures[name].value == 1.0 or figures[name].queries == 0, name
    assert figures["existence_accuracy_at_threshold"].value == 1.0
    assert figures["error_90_m"].value < 1e-4 and figures["failures"] == {}
    assert figures["localization_accuracy_2d"].queries >= 5 and figures["parts_accuracy"].queries > 10


def test_a_shifted_oracle_fails_by_the_shift(exam, result):
    for name, shift in SHIFTS.items():
        answers = result.methods[name]["answers"]
        things = [(q, a) for q, a in zip(exam.queries, answers) if q.category in THINGS]
        np.testing.assert_allclose([a["error"] for _, a in things], shift, atol=1e-4)
        inside = [shift <= min(0.05, float(q.boxes[0].size[2]) / 4) for q, _ in things]
        assert [a["correct"] for _, a in things] == inside
        figures = of(result, name)
        assert figures["localization_accuracy_3d"].value == pytest.approx(np.mean(inside))
        expected = shift if np.mean(inside) >= 0.5 else math.inf
        assert figures["median_error_things_m"].value == pytest.approx(expected, abs=1e-4)
    accuracies = [of(result, name)["localization_accuracy_3d"].value for name in ("oracle", *SHIFTS)]
    assert accuracies[0] == 1.0 and accuracies[1] > accuracies[2] > accuracies[3] == 0.0


def within(successes, trials, chance):
    low, high = (binom.ppf(q, trials, chance) for q in (1e-3, 1 - 1e-3))
    return low <= successes <= high


def test_guessing_on_the_thing_gives_the_chance_of_parts(exam, result):
    figures = [of(result, f"on_it{i}") for i in range(GUESSES)]
    chance = figures[0]["parts_chance"].value
    assert 0.1 < chance < 0.6
    parts = figures[0]["parts_accuracy"].queries
    right = sum(f["parts_accuracy"].value * parts for f in figures)
    assert within(right, GUESSES * parts, chance)


def test_guessing_in_the_room_gives_chance(exam, result):
    points, _ = exam.surface.sample(20_000, np.random.default_rng(5))
    things = [query for query in exam.queries if query.category in THINGS]
    chance = np.mean([[exam.surface.answers(x, query) for x in points[:3000]] for query in things])
    figures = [of(result, f"anywhere{i}") for i in range(GUESSES)]
    count = figures[0]["localization_accuracy_3d"].queries
    assert within(sum(f["localization_accuracy_3d"].value * count for f in figures), GUESSES * count, chance)
    parts = figures[0]["parts_accuracy"].queries
    right = sum(f["parts_accuracy"].value * parts for f in figures)
    assert within(right, GUESSES * parts, result.figures["room_chance"])
    # Random scores part present from absent by chance.
    assert np.mean([f["existence_auroc"].value for f in figures]) == pytest.approx(0.5, abs=0.12)


def test_guessing_a_pixel_gives_the_share_of_the_boxes(exam, guesser):
    views = exam.held_out
    things = [q for q in exam.queries if q.category in THINGS]
    hits = trials = expected = 0.0
    for seed in range(20):
        for count, shown in score_views(guesser(exam, seed), exam.queries, views).values():
            hits, trials = hits + count, trials + shown
    for view in views:
        for query in things:
            boxes = [view.boxes[i] for i in query.instance_ids if i in view.boxes]
            if boxes:
                inside = np.zeros((30, 40), bool)
                for u0, v0, u1, v1 in boxes:
                    v, u = np.arange(30)[:, None] * 4 + 2, np.arange(40)[None] * 4 + 2
                    inside |= (u >= u0) & (u <= u1) & (v >= v0) & (v <= v1)
                expected += inside.mean()
    assert within(hits, int(trials), 20 * expected / trials)


def test_the_most_relevant_pixel_decides():
    relevancy = np.zeros((3, 4), np.float32)
    relevancy[1, 2] = 1.0  # pixel (10, 6) of the full picture
    assert peak_inside(relevancy, [(10, 6, 10, 6)], 4)
    assert not peak_inside(relevancy, [(11, 0, 15, 11), (0, 7, 15, 11)], 4)


def test_the_real_methods_are_asked_in_the_same_run(result):
    for method in ("field", "voxels"):
        answers = result.methods[method]["answers"]
        assert len(answers) == len(result.queries)
        assert all(0.0 <= answer["relevancy"] <= 1.0 for answer in answers)
    assert [stop["share"] for stop in result.curve] == [0.5, 1] and result.curve[0]["steps"] == 3
    assert len(result.figures["fidelity"]) == len(PRESETS["cpu"].override(SMALL).pyramid.fractions)
    assert result.figures["steps"] == 6 and 5 < result.figures["psnr"] < 40


def test_results_survive_json_and_differences_are_paired(result, tmp_path):
    records.append(tmp_path / "rooms" / "a.jsonl", result)
    (read,) = records.read(tmp_path / "rooms")
    assert read == result
    pairs = summary.paired([read], ("test", "oracle"), ("test", "shifted_1m"))
    assert pairs["localization_accuracy_3d"]["value"] == 1.0 and pairs["rooms"] == 1
    assert not pairs["localization_accuracy_3d"]["counts"]  # one room alone says nothing about others
    values = report.write(tmp_path, [read])
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["localization_accuracy_3d"]["value"] == 1.0 and values["of"] == "test/oracle"
    assert set(summary.HEADLINES) < set(written)
    for name in summary.HEADLINES:
        assert set(written[name]) == {"value", "low", "high", "queries"}
    assert {p.name for p in tmp_path.iterdir()} >= {"report.md", "precision_recall.png", "accuracy_seconds.png"}
