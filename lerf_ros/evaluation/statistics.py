"""Figures from many questions: how well scores part present from absent, and how sure a mean or a difference is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOOTSTRAP_DRAWS = 2000


def auroc(present: ArrayLike, absent: ArrayLike) -> float:
    """Chance that a present question scores above an absent one, ties counting half (Mann-Whitney U)."""
    high, low = np.asarray(present, np.float64), np.sort(np.asarray(absent, np.float64))
    if not (len(high) and len(low)):
        return float("nan")
    below = np.searchsorted(low, high, side="left") + np.searchsorted(low, high, side="right")
    return float(below.mean() / (2 * len(low)))


def precision_recall(present: ArrayLike, absent: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(precision, recall) at every distinct score as the threshold, from the highest down."""
    scores = np.concatenate([np.asarray(present, np.float64), np.asarray(absent, np.float64)])
    positive = np.arange(len(scores)) < np.size(present)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # equal scores are found together
    right, found = np.cumsum(positive[order])[last], np.arange(1, len(scores) + 1)[last]
    return right / found, right / max(positive.sum(), 1)


def average_precision(present: ArrayLike, absent: ArrayLike) -> float:
    """Area under precision over recall, as steps: sum of (R_n - R_n-1) P_n."""
    if not (np.size(present) and np.size(absent)):
        return float("nan")
    precision, recall = precision_recall(present, absent)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def best_threshold(present: ArrayLike, absent: ArrayLike) -> float:
    """The relevancy that parts present from absent questions best (mean of both accuracies); of several equally good
    ones, their middle. ValueError when there are none of a sort."""
    present, absent = np.asarray(present, np.float64), np.asarray(absent, np.float64)
    if not (len(present) and len(absent)):
        raise ValueError("a threshold needs answers to present and to absent queries")
    candidates = np.linspace(0.0, 1.0, 1001)
    balance = np.array([(present >= t).mean() + (absent < t).mean() for t in candidates])
    return float(candidates[np.isclose(balance, balance.max())].mean())


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of questions it rests on."""

    value: float
    low: float
    high: float
    queries: int


def bootstrap(
    rooms: Sequence[NDArray[np.float64]],
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
    draws: int = BOOTSTRAP_DRAWS,
    seed: int = 0,
) -> Estimate:
    """A statistic of all questions with its 95 % percentile interval, drawing whole rooms with replacement.

    Questions about one room share its map and are not independent: only rooms are. One room alone gives no interval
    (NaN).

    Args:
        rooms: of each room, its questions (n, ...); `statistic` takes them concatenated (N, ...).
    """
    rooms = [np.asarray(room, np.float64) for room in rooms if len(room)]
    if not rooms:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    value, count = float(statistic(np.concatenate(rooms))), sum(map(len, rooms))
    if len(rooms) == 1:
        return Estimate(value, float("nan"), float("nan"), count)
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(rooms), size=(draws, len(rooms)))
    values = np.array([statistic(np.concatenate([rooms[i] for i in pick])) for pick in picks])
    values = values[~np.isnan(values)]
    if not len(values):
        return Estimate(value, float("nan"), float("nan"), count)
    low, high = np.quantile(values, [0.025, 0.975], method="inverted_cdf")
    return Estimate(value, float(low), float(high), count)
