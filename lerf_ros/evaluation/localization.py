"""Is the answer right? A target against the true boxes of a generated room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lerf_ros.query.targets import Answer
from lerf_ros.world.truth import TruthQuery


@dataclass(frozen=True)
class Outcome:
    """One query judged.

    Attributes:
        present: whether the room has what was asked for.
        correct: present: the best target lies inside a true box (grown by 5 cm or a quarter of its size, whichever is
            less); absent: the answer was "not found".
        error: m, from the best target to the centre of the nearest true box; NaN without a target or a box.
    """

    answer: Answer
    present: bool
    correct: bool
    error: float


def judge(query: TruthQuery, answer: Answer) -> Outcome:
    """Judges the best target of an answer against the truth of its query."""
    if not query.boxes:
        return Outcome(answer, present=False, correct=not answer.found, error=math.nan)
    if not answer.found:
        return Outcome(answer, present=True, correct=False, error=math.nan)
    position = np.asarray(answer.targets[0].position, np.float64)
    inside = any(bool(box.grown().contains(position)) for box in query.boxes)
    error = min(float(np.linalg.norm(box.T_world_box[:3, 3] - position)) for box in query.boxes)
    return Outcome(answer, present=True, correct=inside, error=error)


def found_threshold(outcomes: Sequence[Outcome]) -> float:
    """The relevancy that parts present from absent queries best (mean of both accuracies); of several equally good
    ones, their middle.

    Outcomes must come from answers without a threshold (`min_relevancy=0`).
    """
    present = np.array([outcome.answer.best_relevancy for outcome in outcomes if outcome.present])
    absent = np.array([outcome.answer.best_relevancy for outcome in outcomes if not outcome.present])
    if not (len(present) and len(absent)):
        raise ValueError("a threshold needs answers to present and to absent queries")
    candidates = np.linspace(0.0, 1.0, 1001)
    balance = np.array([(present >= t).mean() + (absent < t).mean() for t in candidates])
    return float(candidates[np.isclose(balance, balance.max())].mean())


@dataclass(frozen=True)
class Score:
    """Counts over many outcomes."""

    localized: int
    present: int
    rejected: int
    absent: int

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Score:
        present = [outcome for outcome in outcomes if outcome.present]
        absent = [outcome for outcome in outcomes if not outcome.present]
        return cls(
            localized=sum(outcome.correct for outcome in present),
            present=len(present),
            rejected=sum(outcome.correct for outcome in absent),
            absent=len(absent),
        )

    @property
    def localization_accuracy(self) -> float:
        return self.localized / self.present if self.present else math.nan

    def __str__(self) -> str:
        return (
            f"localized {self.localized} of {self.present} present queries; "
            f'{self.rejected} of {self.absent} absent queries answered "not found"'
        )
