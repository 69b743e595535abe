"""A node `lerf` as whoever feeds it sees it: whether it has dealt with the last image."""

from __future__ import annotations

import time

from rclpy.node import Node

from lerf_ros.msg import Status
from lerf_ros.ros.declarations import Parameter, Parameters, Read

PACE_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("consumer", "/lerf", "node whose ~/status says what was taken, for the pace 'consumed'", read=Read.START),
    Parameter(
        "patience",
        10.0,
        "s, after which an untaken frame is given up, for the pace 'consumed'",
        0.1,
        3600.0,
        read=Read.ALWAYS,
    ),
)


class Consumer:
    """Subscribes to `<consumer>/status`.

    Args:
        node: who publishes images.
        settings: with `PACE_PARAMETERS`.
    """

    def __init__(self, node: Node, settings: Parameters) -> None:
        self._node, self._settings = node, settings
        self._dealt_with: int | None = None  # images that it has taken or dropped in all; None: not active
        self._dealt_with_before = 0
        self._sent_at: float | None = None  # s, monotonic
        node.create_subscription(Status, f"{settings['consumer']}/status", self._on_status, 10)

    def _on_status(self, status: Status) -> None:
        active = status.state == "active"
        self._dealt_with = status.frames_received + sum(status.drop_counts) if active else None

    @property
    def since_sent(self) -> float:
        """s since the last image; infinite before the first."""
        return float("inf") if self._sent_at is None else time.monotonic() - self._sent_at

    def ready(self) -> bool:
        """Whether it is active and has taken or dropped the last image. One that was lost on the way is given up after
        `patience`, with a warning."""
        if self._dealt_with is None:
            return False
        if self._sent_at is None or self._dealt_with != self._dealt_with_before:  # a configured one counts from 0 again
            return True
        if self.since_sent < self._settings["patience"]:
            return False
        self._node.get_logger().warning(f"an image was not taken within {self.since_sent:.1f} s")
        self._sent_at = None
        return True

    def sent(self) -> None:
        """To be called after each image, when it was `ready`."""
        self._dealt_with_before = self._dealt_with or 0
        self._sent_at = time.monotonic()
