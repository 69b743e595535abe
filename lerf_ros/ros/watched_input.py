"""A subscription that knows how well it is served: rate, silence, losses in transport, and why nothing comes."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import QoSProfile

from lerf_ros.ros.conversions import stamp_to_ns
from lerf_ros.ros.input_health import NOTEWORTHY_LOSS, InputReport, unpublished
from lerf_ros.ros.transport import topic_state

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

_SILENT = 5.0  # s without a message that are worth a word
_REMEMBERED = 64  # arrivals that rates and offsets are taken over
_RATE_WINDOW = 5.0  # s
_REPEAT = 30.0  # s between two warnings about the same thing


class WatchedInput:
    """Subscribes and keeps count.

    Args:
        kind: of message; it must have a header.
        topic: private, e.g. "~/image".
        transport: of image_transport, whose topics lie below the one that `topic` is remapped to; "raw": that one.
        qos_name: the parameter qos.`qos_name`.reliability is `qos`'s.
        callback: takes a message and the time of its arrival (s, monotonic).
        optional: the map does without it.
        steady: it comes all the time; false for what may come once and for ever.
    """

    def __init__(
        self,
        node: Node,
        kind: type,
        topic: str,
        callback: Callable[[Any, float], None],
        qos: QoSProfile,
        qos_name: str,
        group: CallbackGroup,
        *,
        transport: str = "raw",
        optional: bool = False,
        steady: bool = True,
    ) -> None:
        self._node, self._kind, self._topic, self._callback = node, kind, topic, callback
        self._qos, self._qos_name = qos, qos_name
        self._optional, self._steady = optional, steady
        self._since = time.monotonic()
        self._received = self._lost = 0
        self._arrivals: deque[float] = deque(maxlen=_REMEMBERED)  # s, monotonic
        self._stamps: deque[int] = deque(maxlen=_REMEMBERED)
        self._delay = math.nan

        wanted = topic if transport == "raw" else f"{node.resolve_topic_name(topic)}/{transport}"

        def subscribe(**events: Any) -> Any:
            callbacks = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible_qos, **events)
            return node.create_subscription(
                kind, wanted, self._on_message, qos, callback_group=group, event_callbacks=callbacks
            )

        try:
            self._subscription = subscribe(message_lost=self._on_lost)
        except UnsupportedEventTypeError:  # this middleware does not tell
            self._subscription = subscribe()

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)

    @property
    def topic(self) -> str:
        """As it is remapped."""
        return str(self._subscription.topic_name)

    @property
    def published(self) -> bool:
        """Whether somebody publishes it."""
        return self._node.count_publishers(self.topic) > 0

    def report(self, image: WatchedInput | None = None) -> InputReport:
        """Args: image, the input whose stamps this one has to fit."""
        now = time.monotonic()
        state = topic_state(self._node, self.topic, self._kind, self._qos)
        silence = now - (self._arrivals[-1] if self._arrivals else self._since)
        problem = ""
        if state.publishers == 0:
            problem = unpublished([self.topic], state.alternatives, self._topic)
        elif state.fault or (silence >= _SILENT and (self._steady or not self._received)):
            why = state.fault or "type and QoS fit: does it run, and see this machine's ROS_DOMAIN_ID?"
            nothing = f"no message on {self.topic} for {silence:.0f} s" if silence >= 1 else f"nothing on {self.topic}"
            problem = f"{nothing}; publishers: {state.publishers}, {why}{self._advice(state.fault)}"
        return InputReport(
            name=self._topic.removeprefix("~/"),
            topic=self.topic,
            optional=self._optional,
            received=self._received,
            lost=self._lost,
            rate=self._rate(now),
            silence=silence,
            delay=self._delay,
            offset=math.nan if image is None else image._distance(self),
            publishers=state.publishers,
            alternatives=state.alternatives,
            problem=problem,
        )

    def _distance(self, other: WatchedInput) -> float:
        """s, median distance in time from a message to the nearest one of another input, by their stamps; NaN while
        one of them is missing."""
        if not self._stamps or not other._stamps:
            return math.nan
        distances = np.abs(np.array(self._stamps)[:, None] - np.array(other._stamps))
        return float(np.median(distances.min(axis=1))) * 1e-9

    def _on_message(self, message: Any) -> None:
        now = time.monotonic()
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._received += 1
        self._arrivals.append(now)
        self._stamps.append(stamp_ns)
        self._delay = (self._node.get_clock().now().nanoseconds - stamp_ns) * 1e-9
        self._callback(message, now)

    def _on_lost(self, event: Any) -> None:
        self._lost += event.total_count_change
        if self._lost > NOTEWORTHY_LOSS * (self._received + self._lost):
            self._node.get_logger().warning(
                f"{self._lost} messages of {self.topic} have been lost in transport, {self._received} have come: "
                "use config/fastdds.xml on both sides, compressed images, or, when the camera publishes reliably, "
                f"qos.{self._qos_name}.reliability: reliable",
                throttle_duration_sec=_REPEAT,
            )

    def _on_incompatible_qos(self, event: Any) -> None:
        fault = topic_state(self._node, self.topic, self._kind, self._qos).fault
        self._node.get_logger().warning(
            f"a publisher of {self.topic} cannot be heard; {fault or 'its QoS does not fit ours'}{self._advice(fault)}"
        )

    def _advice(self, fault: str) -> str:
        return f"; set qos.{self._qos_name}.reliability to best_effort" if "reliability" in fault else ""

    def _rate(self, now: float) -> float:
        recent = [arrival for arrival in self._arrivals if arrival >= now - _RATE_WINDOW]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-9)
