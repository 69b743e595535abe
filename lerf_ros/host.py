"""From a device to the host, where each copy is a wait for all that was asked of the device before."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(*tensors: Tensor) -> tuple[NDArray[Any], ...]:
    """Tensors of one device as arrays, with one wait for all; on a CPU they share the tensors' memory."""
    return Copies(*tensors).arrays()


class Copies:
    """Copies of tensors of one device that are on their way to the host: what is asked of the device afterwards does
    not delay them, and the host works on meanwhile."""

    def __init__(self, *tensors: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if not all(tensor.is_cuda for tensor in tensors):
            self._copies = [tensor.detach().cpu() for tensor in tensors]
            return
        self._copies = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(self._copies, tensors, strict=True):
            copy.copy_(tensor.detach(), non_blocking=True)
        self._arrived = torch.cuda.current_stream(tensors[0].device).record_event()

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Waits for them; on a CPU they share the tensors' memory."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return tuple(copy.numpy() for copy in self._copies)
