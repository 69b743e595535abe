import math
from types import SimpleNamespace

import numpy as np
import pytest

from lerf_ros.evaluation.localization import Score, in_confidence_ellipsoid, judge
from lerf_ros.query.targets import Answer, Target
from lerf_ros.world.truth import Box, TruthQuery


def box_at(x, size=0.1):
    pose = np.eye(4)
    pose[0, 3] = x
    return Box(pose, np.full(3, size))


def answer_at(*xs):
    targets = tuple(
        Target(np.array([x, 0.0, 0.0]), np.array([0.0, 0.0, 0.0, 1.0]), np.ones(3), 0.9, 0.2, 10, np.eye(3)) for x in xs
    )
    return Answer("a mug", targets, 0.9)


PRESENT = TruthQuery("a mug", (1, 2), (box_at(0.0), box_at(5.0)))
ABSENT = TruthQuery("a bear")


@pytest.mark.parametrize(
    ("x", "correct"),
    [(0.0, True), (0.0749, True), (0.0751, False), (5.07, True), (2.5, False)],
)
def test_the_best_target_counts_inside_a_box_grown_by_a_quarter_of_its_size(x, correct):
    outcome = judge(PRESENT, answer_at(x, 0.0))
    assert outcome.present and outcome.correct is correct
    assert outcome.centre_error == pytest.approx(min(x, abs(5.0 - x)))


def test_a_large_box_grows_by_five_centimetres_only():
    query = TruthQuery("a sofa", (1,), (box_at(0.0, size=2.0),))
    assert judge(query, answer_at(1.049)).correct and not judge(query, answer_at(1.051)).correct


def test_absent_is_right_when_nothing_is_found_and_present_is_not():
    assert judge(ABSENT, answer_at()).correct and not judge(ABSENT, answer_at(1.0)).correct
    outcome = judge(PRESENT, answer_at())
    assert not outcome.correct and math.isnan(outcome.centre_error) and outcome.error == math.inf


def test_score_counts_and_prints_the_line_that_scripts_read():
    outcomes = [judge(PRESENT, answer_at(0.0)), judge(PRESENT, answer_at(2.5)), judge(ABSENT, answer_at())]
    score = Score.of(outcomes)
    assert score.localization_accuracy == 0.5
    assert str(score) == 'localized 1 of 2 present queries; 1 of 1 absent queries answered "not found"'


def test_the_ellipsoid_of_a_target_is_that_of_ninety_percent():
    """Positions beside a floor, drawn from their own covariance, are in it as often as they should be."""
    rng = np.random.default_rng(0)
    surface = SimpleNamespace(nearest=lambda x: true_point)
    held = []
    for _ in range(2000):
        root = rng.normal(0, 0.01, (3, 3))
        covariance, true_point = root @ root.T, rng.normal(0, 1, 3)
        position = rng.multivariate_normal(true_point, covariance)
        held.append(in_confidence_ellipsoid(SimpleNamespace(position=position, covariance=covariance), surface))
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)
