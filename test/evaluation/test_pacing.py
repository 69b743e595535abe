import itertools

import pytest

from lerf_ros.evaluation import pacing
from lerf_ros.evaluation.pacing import Budget, drive


def test_every_frame_is_handed_over_once_in_order_with_work_in_between():
    frames, events = list(range(7)), []
    stops = list(drive(frames, Budget(seconds=0.2), events.append, lambda: events.append("work")))
    assert [event for event in events if event != "work"] == frames
    assert events[0] == 0 and events[1] == "work" and events[-1] == "work"
    assert [stop.share for stop in stops] == [1.0] and stops[0].seconds >= 0.2


def test_steps_are_counted_and_the_frames_come_in_the_first_half():
    taken, turn = [], itertools.count()

    def work():  # every other unit encodes crops, which is no step
        return None if next(turn) % 2 else "step"

    progress = []
    for stop in drive(range(10), Budget(steps=40), taken.append, work, stops=(0.25, 0.5, 1.0)):
        progress.append((stop.share, len(taken), next(turn)))
    # 10, 20 and 40 steps at two units each; `next` above took a unit at each stop
    assert [count for _, count, _ in progress] == [5, 10, 10]
    assert [share for share, _, _ in progress] == [0.25, 0.5, 1.0]
    assert 76 <= progress[-1][2] <= 84


def test_time_spent_at_a_stop_is_not_work(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pacing.time, "monotonic", lambda: clock[0])

    def work():
        clock[0] += 1.0
        return "step"

    worked = []
    for stop in drive(range(3), Budget(seconds=8.0), lambda frame: None, work, stops=(0.5, 1.0)):
        worked.append((stop.seconds, stop.steps))
        clock[0] += 100.0  # asking
    assert worked == [(4.0, 4), (8.0, 8)]


def test_a_budget_is_seconds_or_steps():
    assert Budget(seconds=10.0) * 0.5 == Budget(seconds=5.0) and Budget(steps=10) * 0.25 == Budget(steps=2)
    for wrong in ({}, {"seconds": 1.0, "steps": 1}, {"steps": 0}, {"seconds": -1.0}):
        with pytest.raises(ValueError, match="budget"):
            Budget(**wrong)
