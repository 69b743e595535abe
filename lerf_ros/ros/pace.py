"""How much of the machine the map takes while it learns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What training may take. Questions and new frames are not held up by it.

    Attributes:
        max_rate: training steps/s; 0: no limit.
        time_share: in (0, 1], of the time, for training and encoding together.
        idle_steps: training ends so many steps after the last new keyframe or correction, until there is another;
            0: never.
    """

    max_rate: float = 0.0
    time_share: float = 1.0
    idle_steps: int = 0


UNLIMITED = Limits()


class Pace:
    """When the next unit of work may begin. All times are s, monotonic."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._stepped = -float("inf")  # when the last step began
        self._ended, self._seconds = -float("inf"), 0.0  # of the last unit of work

    def note(self, began: float, ended: float, stepped: bool) -> None:
        """A unit of work was done: a training step, or encoding."""
        self._ended, self._seconds = ended, ended - began
        if stepped:
            self._stepped = began

    def rest(self, now: float, encoding: bool) -> float:
        """s until the next unit of work may begin; with something to encode, it need not be a step."""
        due = self._ended + self._seconds * (1 / self.limits.time_share - 1)
        return max(0.0, due - now, 0.0 if encoding else self._step_due - now)

    def may_step(self, now: float) -> bool:
        """Whether it may be a training step."""
        return now >= self._step_due

    @property
    def _step_due(self) -> float:
        return self._stepped + (1 / self.limits.max_rate if self.limits.max_rate else 0.0)
