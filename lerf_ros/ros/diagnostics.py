"""What the node is doing -> /diagnostics, by the conventions of diagnostic_updater."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.time import Time

from lerf_ros.ros.drops import DropReason
from lerf_ros.ros.input_health import InputReport
from lerf_ros.ros.memory_use import resident_mb
from lerf_ros.ros.snapshot import MUCH_OUTSIDE, Snapshot

OK, WARN, ERROR, STALE = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR, DiagnosticStatus.STALE

_PERIOD = 1.0  # s
_FREE_SHARE = 0.05  # of the GPU's memory; with less than that free, whatever comes next may fail


class DiagnosticsPublisher:
    """/diagnostics, once a second in every state.

    Args:
        snapshot: called before each message.
    """

    def __init__(self, node: Node, group: CallbackGroup, snapshot: Callable[[], Snapshot]) -> None:
        self._node, self._snapshot = node, snapshot
        self._name = node.get_fully_qualified_name().lstrip("/")
        self._dropped = 0  # before the last message
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 1)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(_PERIOD, self._publish, group, steady)

    def _publish(self) -> None:
        snapshot = self._snapshot()
        dropped = _unusable(snapshot)
        array = diagnostics(self._name, self._node.get_clock().now(), snapshot, max(0, dropped - self._dropped))
        self._dropped = dropped
        self._publisher.publish(array)


def diagnostics(name: str, now: Time, snapshot: Snapshot, newly_dropped: int) -> DiagnosticArray:
    """One status for each thing that can be wrong by itself.

    Args:
        name: of the node.
        newly_dropped: frames that could not be used since the last time.
    """
    tasks = [
        ("lifecycle", _lifecycle(snapshot)),
        *((report.name, _input(report)) for report in snapshot.health.reports),
        ("frames", _frames(snapshot, newly_dropped)),
        ("map", _map(snapshot)),
        ("memory", _memory(snapshot)),
        ("parameters", _parameters(snapshot)),
    ]
    array = DiagnosticArray()
    array.header.stamp = now.to_msg()
    for task, status in tasks:
        status.name, status.hardware_id = f"{name}: {task}", snapshot.device or "none"
        array.status.append(status)
    return array


def _lifecycle(snapshot: Snapshot) -> DiagnosticStatus:
    return _status(ERROR if snapshot.failed else OK, snapshot.message, state=snapshot.state)


def _input(report: InputReport) -> DiagnosticStatus:
    level, message = OK, f"{report.rate:.1f} Hz"
    if report.problem:
        level, message = (OK if report.optional and not report.publishers else ERROR), report.problem
    elif not report.received:
        level, message = STALE, "no message yet"
    elif report.loses:
        level, message = WARN, f"{report.lost} messages lost in transport: see config/fastdds.xml"
    values = {
        "topic": report.topic,
        "publishers": report.publishers,
        "rate (Hz)": report.rate,
        "received": report.received,
        "lost in transport": report.lost,
        "silence (s)": report.silence,
        "delay (s)": report.delay,
        "offset to the image (s)": report.offset,
    }
    return _status(level, message, **values)


def _frames(snapshot: Snapshot, newly_dropped: int) -> DiagnosticStatus:
    taken = snapshot.statistics.frames_taken
    level, message = OK, f"{taken} frames taken"
    if newly_dropped:
        level = WARN if taken else ERROR
        message = f"{newly_dropped} frames dropped in the last second; {snapshot.drops[-1][0]}"
    values = {"taken": taken, "used without their depth": snapshot.health.frames_without_depth}
    counts = {reason.value: 0 for reason in DropReason} | {_reason(text): count for text, count in snapshot.drops}
    return _status(level, message, **values, **{f"dropped: {reason}": count for reason, count in counts.items()})


def _map(snapshot: Snapshot) -> DiagnosticStatus:
    statistics, learning = snapshot.statistics, snapshot.learning
    level, message = OK, f"{statistics.keyframes} keyframes, {learning.steps_per_second:.1f} steps/s"
    if statistics.outside_share > MUCH_OUTSIDE:
        level = WARN
        message = f"{statistics.outside_share:.0%} of what is measured lies outside: raise scene.radius"
    values = {
        "keyframes": statistics.keyframes,
        "keyframe capacity": statistics.keyframe_capacity,
        "share of crops encoded": statistics.pyramid_progress,
        "steps": statistics.steps,
        "steps/s": learning.steps_per_second,
        "steps skipped": statistics.steps_skipped,
        "loss": statistics.loss,
        "prequential PSNR (dB)": statistics.prequential_psnr_db,
        "prequential depth error (m)": statistics.prequential_depth_error,
        "age (s)": learning.age,
        "unchanged for (s)": learning.unchanged,
        "share outside the volume": statistics.outside_share,
    }
    return _status(level, message, **values)


def _memory(snapshot: Snapshot) -> DiagnosticStatus:
    resident = resident_mb()
    gpu = snapshot.gpu
    if gpu is None:
        return _status(OK, f"{resident:.0f} MB", **{"resident (MB)": resident})
    free, total = torch.cuda.mem_get_info(gpu)
    values = {
        "resident (MB)": resident,
        "GPU, reserved (MB)": torch.cuda.memory_reserved(gpu) / 1e6,
        "GPU, allocated (MB)": torch.cuda.memory_allocated(gpu) / 1e6,
        "GPU, free (MB)": free / 1e6,
        "GPU, all (MB)": total / 1e6,
    }
    scarce = free < _FREE_SHARE * total
    message = f"{values['GPU, reserved (MB)']:.0f} MB reserved on the GPU, {free / 1e6:.0f} MB free"
    return _status(WARN if scarce else OK, message, **values)


def _parameters(snapshot: Snapshot) -> DiagnosticStatus:
    return _status(WARN if snapshot.mistyped else OK, "; ".join(snapshot.mistyped) or "every name exists")


def _status(level: bytes, message: str, **values: Any) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level, message=str(message), values=[KeyValue(key=key, value=_text(each)) for key, each in values.items()]
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "unknown" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _reason(text: str) -> str:
    return text.partition(":")[0]


def _unusable(snapshot: Snapshot) -> int:
    """Frames that could not be used; a newer one that came first is no fault."""
    return sum(count for text, count in snapshot.drops if _reason(text) != DropReason.OVERRUN.value)
