"""What the node is doing -> ~/status."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from lerf_ros.msg import Status
from lerf_ros.ros.declarations import Parameters, Settings
from lerf_ros.ros.parameters import qos_profile
from lerf_ros.ros.worker import WorkerStatistics

_SPEED_PERIOD = 2.0  # s over which steps are counted


@dataclass(frozen=True)
class Snapshot:
    """Everything that is said about the node at one moment.

    Attributes:
        state: of the lifecycle, or "error" when the worker has died.
        message: what the node does or waits for, in words.
        device: "cpu", or the name of the GPU.
        drops: ("reason: latest detail", count).
    """

    state: str
    message: str
    device: str
    statistics: WorkerStatistics
    drops: list[tuple[str, int]]
    last_query: str


class StatusPublisher:
    """~/status, `status.rate` times a second in every state, and whenever asked.

    Args:
        snapshot: called before each message.
        now: its header.
    """

    def __init__(
        self,
        node: Node,
        settings: Parameters,
        group: CallbackGroup,
        snapshot: Callable[[], Snapshot],
        now: Callable[[], Header],
    ) -> None:
        self._snapshot, self._now = snapshot, now
        self._publisher = node.create_publisher(Status, "~/status", qos_profile(settings, "status"))
        self._speed = Speed()
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # status comes also while simulated time stands still
        self._timer = node.create_timer(1.0 / settings["status.rate"], self.publish, group, steady)
        settings.on_change(["status.rate"], self._on_rate)

    def publish(self) -> None:
        snapshot = self._snapshot()
        speed = self._speed.of(snapshot.statistics.steps, time.monotonic())
        self._publisher.publish(status_message(self._now(), snapshot, speed))

    def _on_rate(self, settings: Settings) -> None:
        self._timer.timer_period_ns = int(1e9 / settings["status.rate"])


class Speed:
    """Steps per second over the last seconds."""

    def __init__(self) -> None:
        self._since, self._steps = time.monotonic(), 0
        self._speed = 0.0

    def of(self, steps: int, now: float) -> float:
        """Args: steps so far; now, s, monotonic."""
        if now - self._since >= _SPEED_PERIOD:
            self._speed = max(0.0, (steps - self._steps) / (now - self._since))
            self._since, self._steps = now, steps
        return self._speed


def status_message(stamped: Header, snapshot: Snapshot, steps_per_second: float) -> Status:
    """Status of a node."""
    statistics = snapshot.statistics
    return Status(
        header=stamped,
        state=str(snapshot.state),
        message=str(snapshot.message),
        device=str(snapshot.device),
        steps=int(statistics.steps),
        steps_per_second=float(steps_per_second),
        loss=float(statistics.loss),
        steps_skipped=int(statistics.steps_skipped),
        keyframes=int(statistics.keyframes),
        keyframe_capacity=int(statistics.keyframe_capacity),
        pyramid_progress=float(statistics.pyramid_progress),
        frames_received=int(statistics.frames_taken),
        drop_reasons=[reason for reason, _ in snapshot.drops],
        drop_counts=[int(count) for _, count in snapshot.drops],
        prequential_psnr_db=float(statistics.prequential_psnr_db),
        prequential_depth_error=float(statistics.prequential_depth_error),
        memory_mb=memory_mb(on_gpu=bool(snapshot.device) and snapshot.device != "cpu"),
        last_query=str(snapshot.last_query),
    )


def memory_mb(on_gpu: bool) -> float:
    """MB that PyTorch has reserved on the GPU, or the resident memory of this process."""
    if on_gpu:
        return torch.cuda.memory_reserved() / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
