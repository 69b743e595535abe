"""Whether a device runs our Triton kernels; where it does not, plain torch does the same work in more launches."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

import torch

CAPABILITY = (8, 0)  # of CUDA, from which on Triton's kernels and bfloat16 are to be had


@lru_cache
def runs_kernels(device: torch.device) -> bool:
    """On CUDA GPUs of compute capability 8.0 or later, with Triton installed."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        return False
    return importlib.util.find_spec("triton") is not None
