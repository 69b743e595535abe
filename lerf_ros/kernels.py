"""What a device can do: bfloat16, and our Triton kernels. Where they do not run, plain torch does the same work in more
launches."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch


def has_bfloat16(device: torch.device) -> bool:
    """On CUDA GPUs of compute capability 8.0 or later."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


@lru_cache
def runs_kernels(device: torch.device) -> bool:
    """As `has_bfloat16`, with Triton installed."""
    return has_bfloat16(device) and is_installed("triton")


@lru_cache
def is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
