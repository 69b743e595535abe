"""When the map is saved without being asked. Knows no ROS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only called
    from lerf_ros.mapping.mapper import Mapper
    from lerf_ros.mapping.online import OnlineMapper


@dataclass(frozen=True)
class SavePlan:
    """Where and when: every `period` s (0: never), and at the end."""

    path: Path
    period: float = 0.0
    at_end: bool = False


class AutoSave:
    """Saves a map that has changed since; in the thread that owns it. All times are s, monotonic.

    A failure is reported and tried again after the next period: the map in memory is worth more than one on a full
    disk.

    Args:
        report: called with what happened, and whether it went well.
    """

    def __init__(self, plan: SavePlan, report: Callable[[str, bool], None]) -> None:
        self._plan, self._report = plan, report
        self._due = math.inf
        self._saved: tuple[Mapper, int] | None = None  # the map and its version

    def begin(self, online: OnlineMapper, now: float) -> None:
        """The map as it is now is on disk already, or empty."""
        self._saved = online.mapper, online.mapper.version
        self._due = now + self._plan.period if self._plan.period else math.inf

    def rest(self, now: float) -> float:
        """s until `save` is to be called."""
        return max(0.0, self._due - now)

    def save(self, online: OnlineMapper, now: float) -> None:
        """Saves, if there is something new."""
        self._due = now + self._plan.period if self._plan.period else math.inf
        present = online.mapper, online.mapper.version
        if present == self._saved or online.mapper.keyframes == 0:
            return
        try:
            online.save(self._plan.path)
        except Exception as error:  # a full disk, a path that cannot be written: no reason to end
            self._report(str(error), False)
        else:
            self._saved = present
            self._report(f"the map of {online.mapper.keyframes} keyframes is saved to {self._plan.path}", True)

    def end(self, online: OnlineMapper, now: float) -> None:
        """The last call."""
        if self._plan.at_end:
            self.save(online, now)
