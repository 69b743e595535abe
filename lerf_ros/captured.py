"""Device work of fixed shape, captured once as a CUDA graph and replayed: one launch instead of a thousand."""

from __future__ import annotations

import gc
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
S = TypeVar("S")

_EAGER_RUNS = 3  # before capture: they create optimiser state and let libraries choose their kernels
_EAGER_CALLS = 1  # as many of functions without state


class Captured(Generic[R]):
    """Runs work that launches the same kernels on the same tensors every time.

    Such work reads only tensors that stay where they are (buffers, parameters, device scalars), draws its random
    numbers from the device's default generator, and never asks the device for a value. On CUDA it is captured and
    replayed; elsewhere it is simply called.

    Args:
        work: returns tensors of fixed shape, in whatever holds them. What a replay returns is the same, with new values
            in the tensors: copy what is to be kept beyond the next run.
        device: where the work runs.
        eager_runs: before the capture.
    """

    def __init__(self, work: Callable[[], R], device: torch.device, eager_runs: int = _EAGER_RUNS) -> None:
        self._work = work
        self._device = device
        self._eager_runs = eager_runs
        self._side: torch.cuda.Stream | None = None
        self.forget()

    def forget(self) -> None:
        """Drops what was captured, and with it the memory that only replays use."""
        self._shape: Hashable = None
        self._ran_eagerly = 0
        self._replayed: tuple[torch.cuda.CUDAGraph, R] | None = None  # the graph, and what the work returned

    def run(self, shape: Hashable) -> R:
        """Runs the work once.

        Args:
            shape: everything on the host that the work's kernels depend on; a change captures anew.
        """
        if self._device.type != "cuda":
            return self._work()
        if shape != self._shape:
            self.forget()
            self._shape = shape
        if self._replayed is None:
            if self._ran_eagerly < self._eager_runs:
                self._ran_eagerly += 1
                return self._on_side_stream()
            graph = torch.cuda.CUDAGraph()
            # Other threads (a decoder of images, say) may use the device meanwhile.
            with _no_garbage(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                results = self._work()
            self._replayed = graph, results  # only now: a capture that failed is never replayed
        graph, results = self._replayed
        graph.replay()
        return results

    def _on_side_stream(self) -> R:
        """As capture wants it: what runs before it must not leave work on the default stream."""
        # Always the same stream: what memory one stream has used, another one does not get.
        side = self._side = self._side or torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            results = self._work()
        torch.cuda.current_stream(self._device).wait_stream(side)
        return results


class CapturedCalls:
    """Functions of tensors, on CUDA captured for the shapes that they are called with; elsewhere simply called.

    A function may read other tensors as well, if they stay where they are. What `Captured` returns does from its
    capture on: functions of that are kept by calls that it brings along, and never captured before.

    Args:
        device: where the functions work; their inputs may lie elsewhere.
        most: how many are kept; the one that was not called for longest makes room.
    """

    def __init__(self, device: torch.device, most: int = 8) -> None:
        self._device, self._most = device, most
        self._calls: OrderedDict[Hashable, tuple[list[Tensor], Captured[Any]]] = OrderedDict()

    def __call__(self, key: Hashable, function: Callable[..., R], *inputs: Tensor) -> R:
        """The function of the inputs. What it returns is the same for each key and shape, with new values.

        Args:
            key: all that the function depends on beside its inputs.
        """
        if self._device.type != "cuda":
            return function(*inputs)
        key = key, tuple((each.shape, each.dtype) for each in inputs)
        if key not in self._calls:
            kept = [torch.empty_like(each, device=self._device) for each in inputs]
            self._calls[key] = kept, Captured(partial(function, *kept), self._device, _EAGER_CALLS)
        self._calls.move_to_end(key)
        if len(self._calls) > self._most:
            self._calls.popitem(last=False)
        kept, captured = self._calls[key]
        for own, given in zip(kept, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        result: R = captured.run(None)
        return result


class CapturedBatches:
    """A network without state on batches of any length, on CUDA: captured for a few lengths, to which others are filled
    up. Small networks take longer to launch than to run, and convolutions are planned anew for every length.

    Args:
        network: (B, ...) -> (B, D), each row by itself.
        most: longest batch that is captured, a power of two; longer ones are cut.
        fewest: shortest.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], most: int, fewest: int = 16) -> None:
        self._network = network
        self._most, self._fewest = most, min(fewest, most)
        self._of_length: dict[int, tuple[Tensor, Captured[tuple[Tensor]]]] = {}
        self._end: torch.cuda.Event | None = None  # of the latest call, on whatever stream

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's outputs (B, D) for inputs (B, ...), B > 0, which always have the same shape but for B."""
        stream = torch.cuda.current_stream(inputs.device) if inputs.is_cuda else None
        if stream is not None and self._end is not None:
            stream.wait_event(self._end)  # calls share the memory of what is captured
        outputs = torch.cat([self._replayed(part) for part in inputs.split(self._most)])
        if stream is not None:
            self._end = stream.record_event()
        return outputs

    def rehearse(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Captures all lengths now, for inputs (B, *shape)."""
        length = self._fewest
        while length <= self._most:
            for _ in range(_EAGER_RUNS + 1):
                self(torch.zeros(length, *shape, dtype=dtype, device=device))
            length *= 2

    def _replayed(self, inputs: Tensor) -> Tensor:
        length = max(self._fewest, 1 << (len(inputs) - 1).bit_length())
        if length not in self._of_length:
            kept = inputs.new_zeros(length, *inputs.shape[1:])
            self._of_length[length] = kept, Captured(lambda: (self._network(kept),), inputs.device)
        kept, captured = self._of_length[length]
        kept[: len(inputs)].copy_(inputs)
        return captured.run(None)[0][: len(inputs)].clone()


class SideBySide:
    """Runs two pieces of work on a device at once: where one is a few small kernels, there is room for the other. May
    be part of what is captured. Elsewhere than on CUDA the two run one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, first: Callable[[], R], second: Callable[[], S]) -> tuple[R, S]:
        """What the two return. Neither may read what the other writes, nor memory that the other gives back."""
        if self._side is None:
            return first(), second()
        main = torch.cuda.current_stream(self._side.device)
        self._side.wait_stream(main)
        with torch.cuda.stream(self._side):
            results = first()
        others = second()
        main.wait_stream(self._side)
        return results, others


class Aside:
    """One piece of work at a time on a device, beside all that its caller asks of it meanwhile. Elsewhere than on CUDA
    it is done at once."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._end: torch.cuda.Event | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the work that was begun last is not done yet."""
        return self._end is not None and not self._end.query()

    def wait(self) -> None:
        """Until it is done."""
        if self._end is not None:
            self._end.synchronize()

    def begin(self, work: Callable[[], R], uses: Sequence[Tensor]) -> R:
        """Asks the device for work after all that was asked of it before.

        Args:
            uses: tensors of the caller that the work reads or writes; their memory stays theirs until it is done.
        """
        if self._stream is None:
            return work()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            result = work()
            for tensor in uses:
                tensor.record_stream(self._stream)
            self._end = self._stream.record_event()
        return result


class InFlight:
    """Bounds how far the host runs ahead of the device: whatever comes next, a question say, waits for what is queued.

    Args:
        device: on which the work is queued; elsewhere than on CUDA nothing is.
        most: pieces of work that may be unfinished.
    """

    def __init__(self, device: torch.device, most: int) -> None:
        self._device, self._most = device, most
        self._ends: deque[torch.cuda.Event] = deque()

    def add(self) -> None:
        """Notes the end of a piece of work just queued; waits while more than `most` are unfinished."""
        if self._device.type != "cuda":
            return
        end = torch.cuda.Event(blocking=True)  # the waiting thread sleeps
        end.record(torch.cuda.current_stream(self._device))
        self._ends.append(end)
        if len(self._ends) > self._most:
            self._ends.popleft().synchronize()


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Python's collector stands still: were it to find an older graph, or another owner of device memory, its
    destruction would make a capture under way invalid."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
