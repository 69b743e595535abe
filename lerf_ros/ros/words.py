"""What the node does, waits for or refuses, in words: the message of ~/status and of refused services."""

from __future__ import annotations

from lerf_ros.geometry.units import NOT_METRES, SCENE_UNITS
from lerf_ros.ros.input_health import InputHealth
from lerf_ros.ros.snapshot import MUCH_OUTSIDE
from lerf_ros.ros.worker import WorkerStatistics

LACKS_BASELINE = (
    "no depth can be found: there is no depth camera, and the camera has turned without moving; move it sideways"
)


def refusal(name: str, state: str, error: Exception | None, failure: str) -> str:
    """Why nothing can be answered at present, and what to do; empty when it can.

    Args:
        name: of the node, fully qualified.
        state: of the lifecycle.
        error: what the worker died of.
        failure: what the last transition failed by.
    """
    if error is not None:
        step = "deactivate" if state == "active" else "cleanup"
        return f"the mapper has failed ({error}): ros2 lifecycle set {name} {step}, then configure"
    short = name.rpartition("/")[2]
    if state == "active":
        return ""
    if state in ("unconfigured", "inactive"):
        steps = "configure, then activate" if state == "unconfigured" else "activate"
        return f"{failure or f'{short} is {state}'}: ros2 lifecycle set {name} {steps}"
    if state == "finalized":
        return f"{short} has been shut down: start it anew"
    return f"{short} is {state}: wait"


def waits_for(health: InputHealth | None, statistics: WorkerStatistics, drops: list[tuple[str, int]]) -> str:
    """What an active node lacks; empty when frames come in, or need not.

    Args:
        health: None: it does not listen.
        drops: as `DropCounter.snapshot` has them.
    """
    if health is None:
        return ""
    if health.trouble or statistics.frames_taken:
        return health.trouble
    if health.missing:
        return f"images come, but nothing that fits them on {health.missing}"
    return f"every frame is dropped; {drops[-1][0]}" if drops else "no frame yet"


def progress(health: InputHealth | None, statistics: WorkerStatistics, idle: bool) -> str:
    """What an active node that lacks nothing is doing, and what could be better."""
    if health is None:
        return "answering; training.enabled is false"
    doing = "idle: nothing new to be learnt" if idle else "mapping"
    if statistics.outside_share > MUCH_OUTSIDE:
        share = f"{statistics.outside_share:.0%} of what is measured"
        return f"{doing}, but {share} lies outside the mapped volume: raise scene.radius"
    if statistics.lacks_baseline:
        return f"{doing}, but {LACKS_BASELINE}"
    if health.doubt:
        return f"{doing}, but {health.doubt}"
    if health.frames_without_depth:
        return f"{doing}; {health.frames_without_depth} frames came without their depth"
    remarks = [f"nobody publishes {topic}: colours alone are mapped"] if (topic := health.depth_unpublished) else []
    if statistics.refined_keyframes:
        remarks.append(f"poses of {statistics.refined_keyframes} of {statistics.keyframes} keyframes are refined")
    if statistics.units == SCENE_UNITS:
        remarks.append(NOT_METRES)
    return "; ".join([doing, *remarks])
