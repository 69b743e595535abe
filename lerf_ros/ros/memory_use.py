"""Memory of this process and of its GPU."""

from __future__ import annotations

import os
from pathlib import Path

import torch


def resident_mb() -> float:
    """MB of RAM that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_mb(gpu: torch.device | None) -> float:
    """MB that PyTorch has reserved on the GPU, or the resident memory of this process."""
    return torch.cuda.memory_reserved(gpu) / 1e6 if gpu is not None else resident_mb()
