"""Messages waiting to be matched, by stamp."""

from __future__ import annotations

import bisect
from typing import Generic, TypeVar

T = TypeVar("T")

RESTART_NS = 1_000_000_000  # stamps that jump back further than this come from a recording that began again


class StampedQueue(Generic[T]):
    """A bounded list ordered by stamp; the oldest entries fall out. A stamp that lies more than `RESTART_NS` before the
    newest one begins a new list: time has jumped back."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._stamps: list[int] = []
        self._items: list[T] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, item: T) -> None:
        if self._stamps and stamp_ns < self._stamps[-1] - RESTART_NS:
            self._stamps.clear()
            self._items.clear()
        index = bisect.bisect_right(self._stamps, stamp_ns)
        self._stamps.insert(index, stamp_ns)
        self._items.insert(index, item)
        if len(self._stamps) > self._capacity:
            del self._stamps[0], self._items[0]

    def nearest(self, stamp_ns: int) -> tuple[int, T] | None:
        """(stamp, item) nearest to a stamp, or None when empty."""
        neighbours = [entry for entry in (self.before(stamp_ns), self.after(stamp_ns)) if entry is not None]
        return min(neighbours, key=lambda entry: abs(entry[0] - stamp_ns), default=None)

    def before(self, stamp_ns: int) -> tuple[int, T] | None:
        """The last (stamp, item) at or before a stamp."""
        index = bisect.bisect_right(self._stamps, stamp_ns) - 1
        return (self._stamps[index], self._items[index]) if index >= 0 else None

    def after(self, stamp_ns: int) -> tuple[int, T] | None:
        """The first (stamp, item) after a stamp."""
        index = bisect.bisect_right(self._stamps, stamp_ns)
        return (self._stamps[index], self._items[index]) if index < len(self._stamps) else None
