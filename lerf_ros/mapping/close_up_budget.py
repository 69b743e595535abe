"""How many crops a question may encode: so many as its time allows, at the encoder's pace."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray


def affordable(missing: NDArray[np.int64], most: int, budget: float) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which crop sizes of keyframes may be encoded.

    The largest crops of all keyframes always; then size by size, those of all keyframes before the next size, while no
    more than `most` of a keyframe and no more than `budget` of all have to be. Where the budget ends, some of a size
    are encoded, that the next question may go on there.

    Args:
        missing: (n, L) crops of n keyframes that are asked and not encoded yet, smallest size first.

    Returns:
        (n, L) the sizes of which all that are asked will be encoded, and (n, L) how many are to be encoded for it.
    """
    largest_first = missing[:, ::-1]
    within = largest_first.cumsum(axis=1) <= most
    within[:, 0] = True
    cost = np.where(within, largest_first, 0).T  # (L, n), in the order in which they are encoded
    before = (cost.cumsum() - cost.ravel()).reshape(cost.shape)
    fits = (before + cost <= budget) | (cost == 0)
    fits[0] = True
    encoded = np.where(fits, cost, np.clip(budget - before, 0, cost)).astype(np.int64)
    allowed = np.logical_and.accumulate(fits.T & within, axis=1)
    return allowed[:, ::-1], encoded.T[:, ::-1]


class EncodingPace:
    """How many crops a second are encoded, as measured last, on a GPU without waiting for it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._per_second: float | None = None
        self._running: tuple[int, torch.cuda.Event, torch.cuda.Event] | None = None

    @property
    def per_second(self) -> float | None:
        """None until it was measured."""
        if self._running is not None and self._running[2].query():
            count, begun, ended = self._running
            self._per_second, self._running = 1e3 * count / begun.elapsed_time(ended), None
        return self._per_second

    def settle(self) -> None:
        """Waits for what is being measured."""
        if self._running is not None:
            self._running[2].synchronize()

    @contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Encloses the encoding of so many crops."""
        if self._on_gpu:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            yield
            ended.record()
            self._running = count, begun, ended
        else:
            began = time.perf_counter()
            yield
            self._per_second = count / max(time.perf_counter() - began, 1e-9)
