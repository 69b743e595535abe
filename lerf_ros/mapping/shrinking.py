"""Work of a size that shrinks when the device runs out of memory: slower, but it goes on."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

_LOG = logging.getLogger(__name__)

T = TypeVar("T")


class Shrinking:
    """How much is done at a time: halved whenever that takes more memory than there is, and never raised again.

    Args:
        setting: name of the setting that the size comes from, for messages.
        size: to begin with.
        least: it is not halved below this.

    Attributes:
        size: at present.
    """

    def __init__(self, setting: str, size: int, least: int = 1) -> None:
        self._setting, self.size, self._least = setting, size, min(size, least)

    def run(self, work: Callable[[int], T], discard: Callable[[], None] = lambda: None) -> T:
        """Does `work` of the present size, again and smaller while memory runs out.

        Args:
            work: what it has begun when memory runs out, it must be able to do anew.
            discard: forgets what failed work has left behind; called while the device is idle.

        Raises:
            torch.OutOfMemoryError: even the least size is too much; the message says what to do.
        """
        while True:
            try:
                return work(self.size)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Only here, without the exception and its frames, are the tensors of the failed work free.
            _settle()
            discard()
            _release()
            self._halve(reason)

    def _halve(self, reason: str) -> None:
        if self.size <= self._least:
            raise torch.OutOfMemoryError(
                f"the device's memory does not suffice, not even for {self._setting} = {self.size} ({reason}): free "
                "memory that other programs take, use a smaller preset, or lower keyframe.capacity, pyramid.batch, "
                "close_up.batch or sampling.rays"
            )
        before, self.size = self.size, max(self._least, self.size // 2)
        _LOG.warning(
            "out of device memory: %s is %d from now on, no longer %d (%s)", self._setting, self.size, before, reason
        )


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out: said so by torch, by a CUDA call that torch passes on, or behind an error that followed,
    as when a capture ends early."""
    if error is None:
        return False
    told = isinstance(error, torch.OutOfMemoryError) or "CUDA error: out of memory" in str(error)
    return told or _is_out_of_memory(error.__cause__ or error.__context__)


def _settle() -> None:
    """Waits for what failed work has launched: it may still write to what is about to be cleared."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _release() -> None:
    """Gives unused memory back, that of discarded graphs included."""
    gc.collect()
    torch.cuda.empty_cache()
