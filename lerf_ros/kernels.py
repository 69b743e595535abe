"""What a device can do: bfloat16, and our Triton kernels. Where they do not run, plain torch does the same work in more
launches. With ``LERF_TRITON=0`` in the environment they run nowhere: a result that stays wrong is not their fault."""

from __future__ import annotations

import importlib.util
import os
from functools import lru_cache

import torch

SWITCH = "LERF_TRITON"  # environment variable, 1 (default) or 0


def has_bfloat16(device: torch.device) -> bool:
    """On CUDA GPUs of compute capability 8.0 or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def runs_kernels(device: torch.device) -> bool:
    """Whether our Triton kernels run on a device. ValueError: `SWITCH` has another value."""
    return not why_no_kernels(device)


@lru_cache  # asked several times in every training step; the environment is read once
def why_no_kernels(device: torch.device) -> str:
    """What keeps our Triton kernels from running on a device; empty: nothing does. ValueError as `runs_kernels`."""
    switch = os.environ.get(SWITCH, "1")
    if switch not in ("0", "1"):
        raise ValueError(f"the environment variable {SWITCH} must be 1 (our kernels run) or 0 (torch), not {switch!r}")
    if switch == "0":
        return f"{SWITCH} is 0"
    if not has_bfloat16(device):
        return "needs a GPU of compute capability 8.0"
    return "" if is_installed("triton") else "not installed"


@lru_cache
def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
