"""Order, bounds and time that jumps back."""

import numpy as np

from lerf_ros.ros.stamped_queue import RESTART_NS, StampedQueue


def test_order_and_bound():
    queue = StampedQueue(3)
    for stamp in (5, 1, 9, 7):
        queue.add(stamp, str(stamp))
    assert len(queue) == 3 and queue.before(4) is None and queue.after(4) == (5, "5")
    assert queue.before(7) == (7, "7") and queue.after(7) == (9, "9") and queue.after(9) is None


def test_nearest_is_what_a_search_through_all_finds():
    rng = np.random.default_rng(0)
    queue, stamps = StampedQueue(50), rng.choice(1000, 50, replace=False)
    assert queue.nearest(0) is None
    for stamp in stamps:
        queue.add(int(stamp), int(stamp))
    for wanted in range(-10, 1010):
        stamp, item = queue.nearest(wanted)
        assert stamp == item and abs(stamp - wanted) == np.abs(stamps - wanted).min()


def test_time_that_jumps_back_begins_a_new_list_and_disorder_does_not():
    queue = StampedQueue(10)
    queue.add(5 * RESTART_NS, "late")
    queue.add(4 * RESTART_NS, "out of order")
    assert len(queue) == 2
    queue.add(4 * RESTART_NS - 1, "again")
    assert len(queue) == 1 and queue.nearest(0) == (4 * RESTART_NS - 1, "again")
