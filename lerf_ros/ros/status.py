"""What the node is doing -> lerf_ros/Status."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from std_msgs.msg import Header

from lerf_ros.msg import Status
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.worker import WorkerStatistics


def status_message(
    stamped: Header,
    *,
    state: str,
    message: str,
    device: str,
    statistics: WorkerStatistics,
    drops: DropCounter,
    steps_per_second: float,
    last_query: str,
) -> Status:
    """Status of a node."""
    dropped = drops.snapshot()
    return Status(
        header=stamped,
        state=str(state),
        message=str(message),
        device=str(device),
        steps=int(statistics.steps),
        steps_per_second=float(steps_per_second),
        loss=float(statistics.loss),
        steps_skipped=int(statistics.steps_skipped),
        keyframes=int(statistics.keyframes),
        keyframe_capacity=int(statistics.keyframe_capacity),
        pyramid_progress=float(statistics.pyramid_progress),
        frames_received=int(statistics.frames_taken),
        drop_reasons=[reason for reason, _ in dropped],
        drop_counts=[int(count) for _, count in dropped],
        prequential_psnr_db=float(statistics.prequential_psnr_db),
        prequential_depth_error=float(statistics.prequential_depth_error),
        memory_mb=memory_mb(on_gpu=bool(device) and device != "cpu"),
        last_query=str(last_query),
    )


def memory_mb(on_gpu: bool) -> float:
    """MB that PyTorch has reserved on the GPU, or the resident memory of this process."""
    if on_gpu:
        return torch.cuda.memory_reserved() / 1e6
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
