#!/usr/bin/env python3
"""The node `lerf` of a soak: the real one, and beside it a timer that says how late callbacks come, and at the end a
count of the messages that are still alive."""

import gc
import json
import os
import time
from collections import Counter
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/lerf_node

from rclpy.clock import Clock, ClockType  # noqa: E402
from std_msgs.msg import Float32MultiArray  # noqa: E402

from lerf_ros.ros.node import LerfNode  # noqa: E402
from lerf_ros.ros.process import spin_until_shutdown  # noqa: E402

PERIOD = 0.02  # s
ALIVE = "messages alive: "  # what the line in the log begins with


class ProbedNode(LerfNode):
    """Publishes ~/lateness (std_msgs/Float32MultiArray): of every beat of a 50 Hz timer, in the executor that runs all
    callbacks of the node, by how many ms it came too late; a second's worth at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._lateness = self.create_publisher(Float32MultiArray, "~/lateness", 100)
        self._late_ms: list[float] = []
        self._last = time.monotonic()
        self.create_timer(PERIOD, self._beat, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _beat(self) -> None:
        now = time.monotonic()
        self._late_ms.append(1e3 * max(0.0, now - self._last - PERIOD))
        self._last = now
        if len(self._late_ms) * PERIOD >= 1.0:
            self._lateness.publish(Float32MultiArray(data=self._late_ms))
            self._late_ms = []

    def destroy_node(self) -> None:
        print(ALIVE + json.dumps(messages_alive()), flush=True)
        super().destroy_node()


def messages_alive() -> dict[str, int]:
    """How many Python objects of each message type there are."""
    kinds: Counter[type[Any]] = Counter(type(thing) for thing in gc.get_objects())
    return {f"{k.__module__.split('.')[0]}/{k.__name__}": n for k, n in kinds.items() if ".msg." in f"{k.__module__}."}


if __name__ == "__main__":
    raise SystemExit(spin_until_shutdown(ProbedNode))
