"""Is the answer right? A target against the true boxes, and surfaces, of a generated room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from lerf_ros.evaluation.true_surface import TrueSurface
from lerf_ros.query.targets import Answer, Target
from lerf_ros.world.truth import TruthQuery

_ELLIPSOID = float(chi2.ppf(0.9, df=3))  # squared Mahalanobis distance within which 90 % of a normal distribution lie


@dataclass(frozen=True)
class Outcome:
    """One query judged.

    Attributes:
        present: whether the room has what was asked for.
        correct: present: the best target lies inside a true box (grown by 5 cm or a quarter of its size, whichever is
            less) and, of a part, on the part (`TrueSurface.answers`); absent: the answer was "not found".
        centre_error: m, from the best target to the centre of the nearest true box; NaN without a target or a box.
        error: m, from the best target to the nearest point of the true surface of what was asked for; infinite without
            a target; NaN when absent, or judged without the true surface. A target on the wall behind a chair, seen
            between its legs, is inside the chair's box and has an error none the less.
        hits: how many of the first k targets lie on different things that were asked for, k being their number.
    """

    answer: Answer
    present: bool
    correct: bool
    centre_error: float
    error: float = math.nan
    hits: int = 0


def judge(query: TruthQuery, answer: Answer, surface: TrueSurface | None = None) -> Outcome:
    """Judges an answer against the truth of its query. Parts are only told apart with the true surface."""
    if not query.present:
        return Outcome(answer, present=False, correct=not answer.found, centre_error=math.nan)
    if not answer.found:
        return Outcome(answer, present=True, correct=False, centre_error=math.nan, error=math.inf)
    position = np.asarray(answer.targets[0].position, np.float64)
    centre_error = min(float(np.linalg.norm(box.centre - position)) for box in query.boxes)
    hits = _hits(query, answer)
    if surface is None:
        inside = any(bool(box.grown().contains(position)) for box in query.boxes)
        return Outcome(answer, True, inside, centre_error, hits=hits)
    error = surface.query_distance(position, query)
    return Outcome(answer, True, surface.answers(position, query), centre_error, error, hits)


def in_confidence_ellipsoid(target: Target, surface: TrueSurface) -> bool:
    """Whether the true surface point nearest to a target, whatever it belongs to, lies in the 90 % confidence ellipsoid
    of the target's position. With honest covariances, this holds for 90 % of the targets."""
    offset = surface.nearest(target.position) - target.position
    return bool(offset @ np.linalg.solve(target.covariance, offset) <= _ELLIPSOID)


def _hits(query: TruthQuery, answer: Answer) -> int:
    """How many true boxes the first k targets claim, each target at most one: the nearest that is still free."""
    free = list(query.boxes)
    for target in answer.targets[: len(query.boxes)]:
        inside = [box for box in free if bool(box.grown().contains(target.position))]
        if inside:
            free.remove(min(inside, key=lambda box: float(np.linalg.norm(box.centre - target.position))))
    return len(query.boxes) - len(free)


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
