"""When training may go on, by given clocks."""

import pytest

from lerf_ros.ros.pace import Limits, Pace


def simulated(limits, seconds, step_time=0.1, crop_time=0.0, crops=0):
    """Steps and time of work when every unit is begun as early as it may; crops are encoded between steps."""
    pace, now, steps, working = Pace(limits), 0.0, 0, 0.0
    while now < seconds:
        rest = pace.rest(now, encoding=crops > 0)
        now += rest
        stepped = pace.may_step(now)
        assert stepped or crops > 0, "woken for nothing"
        crops -= not stepped
        took = step_time if stepped else crop_time
        pace.note(now, now + took, stepped)
        now += took
        steps += stepped
        working += took
    return steps, working, crops


def test_without_limits_there_is_no_rest():
    assert simulated(Limits(), 10.0)[:2] == (pytest.approx(100, abs=1), pytest.approx(10.0, abs=0.2))


def test_steps_keep_to_their_rate():
    steps, _, _ = simulated(Limits(max_rate=4.0), 10.0)
    assert steps == pytest.approx(40, abs=1)


def test_a_rate_that_is_not_reached_limits_nothing():
    assert simulated(Limits(max_rate=50.0), 10.0)[0] == pytest.approx(100, abs=1)


def test_work_keeps_to_its_share_of_the_time():
    _, working, _ = simulated(Limits(time_share=0.3), 100.0)
    assert working == pytest.approx(30.0, abs=0.5)


def test_encoding_goes_on_between_steps_that_are_rare():
    steps, _, crops = simulated(Limits(max_rate=1.0), 10.0, crop_time=0.1, crops=50)
    assert steps == pytest.approx(10, abs=1) and crops == 0


def test_other_limits_hold_at_once():
    pace = Pace(Limits(max_rate=0.001))
    pace.note(5.0, 5.1, stepped=True)
    assert pace.rest(6.0, encoding=False) == pytest.approx(999.0)
    pace.limits = Limits()
    assert pace.rest(6.0, encoding=False) == 0.0 and pace.may_step(6.0)
