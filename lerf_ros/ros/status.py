"""What the node is doing -> ~/status."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_msgs.msg import Header

from lerf_ros.msg import InputStatus, Status
from lerf_ros.ros.declarations import Parameters, Settings
from lerf_ros.ros.input_health import InputReport
from lerf_ros.ros.memory_use import memory_mb
from lerf_ros.ros.parameters import qos_profile
from lerf_ros.ros.snapshot import Snapshot


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
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # status comes also while simulated time stands still
        self._timer = node.create_timer(1.0 / settings["status.rate"], self.publish, group, steady)
        settings.on_change(["status.rate"], self._on_rate)

    def publish(self) -> None:
        self._publisher.publish(status_message(self._now(), self._snapshot()))

    def _on_rate(self, settings: Settings) -> None:
        self._timer.timer_period_ns = int(1e9 / settings["status.rate"])


def status_message(stamped: Header, snapshot: Snapshot) -> Status:
    """Status of a node."""
    statistics, learning = snapshot.statistics, snapshot.learning
    return Status(
        header=stamped,
        state=str(snapshot.state),
        message=str(snapshot.message),
        device=str(snapshot.device),
        steps=int(statistics.steps),
        steps_per_second=float(learning.steps_per_second),
        loss=float(statistics.loss),
        steps_skipped=int(statistics.steps_skipped),
        keyframes=int(statistics.keyframes),
        keyframe_capacity=int(statistics.keyframe_capacity),
        pyramid_progress=float(statistics.pyramid_progress),
        units=str(statistics.units),
        map_age=float(learning.age),
        map_unchanged=float(learning.unchanged),
        inputs=[input_message(report) for report in snapshot.health.reports],
        frames_received=int(statistics.frames_taken),
        drop_reasons=[reason for reason, _ in snapshot.drops],
        drop_counts=[int(count) for _, count in snapshot.drops],
        prequential_psnr_db=float(statistics.prequential_psnr_db),
        prequential_depth_error=float(statistics.prequential_depth_error),
        memory_mb=memory_mb(snapshot.gpu),
        last_query=str(snapshot.last_query),
    )


def input_message(report: InputReport) -> InputStatus:
    """Status of one input."""
    return InputStatus(
        name=str(report.name),
        topic=str(report.topic),
        publishers=int(report.publishers),
        rate=float(report.rate),
        received=int(report.received),
        lost=int(report.lost),
        silence=float(report.silence),
        delay=float(report.delay),
        offset=float(report.offset),
        problem=str(report.problem),
    )
