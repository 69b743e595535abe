"""Between a device and the host. A copy to the host is a wait for all that was asked of the device before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(values: NDArray[Any] | Sequence[Any] | Tensor, device: torch.device) -> Tensor:
    """Numbers of the host on a device, without torch's usual wait for all that was asked of it before."""
    values = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values))
    return values.to(device, non_blocking=True)


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
