"""From a device to the host, where each copy is a wait for all that was asked of the device before."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """Tensors of one device as arrays, with one wait for all; on a CPU they share the tensors' memory."""
    if not all(tensor.is_cuda for tensor in tensors):
        return tuple(tensor.detach().cpu().numpy() for tensor in tensors)
    copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor.detach(), non_blocking=True)
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return tuple(copy.numpy() for copy in copies)
