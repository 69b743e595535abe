"""What the fields share: small networks and the precision that they run in."""

from __future__ import annotations

import logging
import math
from functools import lru_cache

import torch
from torch import nn

from lerf_ros.kernels import has_bfloat16

_log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16")


def mlp(inputs: int, width: int, hidden_layers: int, outputs: int) -> nn.Sequential:
    """``hidden_layers`` of ReLU(linear), then a linear layer."""
    layers: list[nn.Module] = []
    for i in range(hidden_layers):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def density_mlp(inputs: int, width: int, outputs: int, initial_density: float) -> nn.Sequential:
    """One hidden layer, and a first output whose exponential is `initial_density`, 1/m, about everywhere at first."""
    network = mlp(inputs, width, 1, outputs)
    output_layer = network[-1]
    assert isinstance(output_layer, nn.Linear)
    output_layer.bias.data[0] = math.log(initial_density)
    return network


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which networks run on a device; weights and results of the fields stay float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=compute_dtype(precision, device) == torch.bfloat16)


@lru_cache
def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What the networks compute in.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` (float32 and a warning where the device has none), or ``"auto"``:
            bfloat16 on GPUs of compute capability 8.0 or later, float32 elsewhere.

    Raises:
        ValueError: unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    available = has_bfloat16(device)
    if precision == "bfloat16" and not available:
        _log.warning("%s does not compute in bfloat16 (needs CUDA compute capability 8.0): using float32", device)
    return torch.bfloat16 if available and precision != "float32" else torch.float32
