import numpy as np
import pytest
from scipy.stats import binom, rankdata

from lerf_ros.evaluation.statistics import auroc, average_precision, best_threshold, bootstrap, precision_recall


def scores(ties: bool):
    rng = np.random.default_rng(1)
    present, absent = rng.normal(0.6, 0.2, 40), rng.normal(0.45, 0.2, 30)
    return (present.round(1), absent.round(1)) if ties else (present, absent)


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_that_of_mean_ranks(ties):
    present, absent = scores(ties)
    ranks = rankdata(np.concatenate([present, absent]))[: len(present)]
    expected = (ranks.sum() - len(present) * (len(present) + 1) / 2) / (len(present) * len(absent))
    assert auroc(present, absent) == pytest.approx(expected)
    assert auroc([2.0, 3.0], [0.0, 1.0]) == 1.0 and auroc([1.0], [1.0]) == 0.5
    assert np.isnan(auroc([], [1.0]))


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_the_sum_over_thresholds(ties):
    present, absent = scores(ties)
    expected, recall = 0.0, 0.0
    for threshold in sorted({*present, *absent}, reverse=True):
        found, right = (present >= threshold).sum() + (absent >= threshold).sum(), (present >= threshold).sum()
        expected += (right / len(present) - recall) * right / found
        recall = right / len(present)
    assert average_precision(present, absent) == pytest.approx(expected)


def test_average_precision_in_closed_form():
    assert average_precision([0.9, 0.8], [0.1]) == 1.0
    assert average_precision([0.9, 0.5], [0.7]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    precision, recall = precision_recall([0.9, 0.5], [0.7])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [0.5, 0.5, 1])


def test_the_threshold_parts_present_from_absent_in_the_middle_of_the_gap():
    assert best_threshold([0.9, 0.5], [0.1, 0.3]) == pytest.approx(0.4, abs=0.002)
    # One hopeless present query does not move it into the absent ones.
    assert best_threshold([0.9, 0.5, 0.0], [0.1, 0.3]) == pytest.approx(0.4, abs=0.002)
    with pytest.raises(ValueError, match="absent"):
        best_threshold([0.9], [])


def test_the_bootstrap_of_single_questions_is_a_binomial():
    answers = np.arange(60) < 45
    estimate = bootstrap([answers[i : i + 1] for i in range(60)], draws=20_000)
    low, high = (binom.ppf(q, 60, 0.75) / 60 for q in (0.025, 0.975))
    assert estimate.value == 0.75 and estimate.queries == 60
    assert estimate.low == pytest.approx(low, abs=1 / 60) and estimate.high == pytest.approx(high, abs=1 / 60)


def test_questions_of_one_room_are_not_independent():
    """Rooms in which everything is right, or everything wrong: ten questions each tell no more than one."""
    right = np.arange(60) < 45
    single = bootstrap([np.full(1, r) for r in right])
    tenfold = bootstrap([np.full(10, r) for r in right])
    assert (tenfold.low, tenfold.high) == (single.low, single.high) and tenfold.queries == 600
    assert np.isnan(bootstrap([np.ones(5)]).low) and bootstrap([]).queries == 0
