"""Awaiting the worker, and each other, inside rclpy's executor."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from rclpy.executors import Executor
from rclpy.task import Future as RosFuture

T = TypeVar("T")


async def finished(future: Future[T], executor: Executor) -> Future[T]:
    """The same future of another thread, once it is done; to be awaited in a callback that `executor` runs.

    Setting a result from another thread does not wake rclpy's executor, which looks at waiting coroutines only when
    something else happens (rclpy issue 1467): so it is woken explicitly.
    """
    waited_for: RosFuture[None] = RosFuture(executor=executor)

    def done(_: Future[T]) -> None:
        waited_for.set_result(None)
        executor.wake()

    future.add_done_callback(done)
    await waited_for
    return future


class Turn:
    """What only one coroutine of an executor may do at a time; the others wait until it is theirs."""

    def __init__(self) -> None:
        self._over: Future[None] | None = None  # of the turn that is taken

    async def take(self, executor: Executor) -> None:
        while self._over is not None:
            await finished(self._over, executor)
        self._over = Future()

    def give_back(self) -> None:
        assert self._over is not None
        over, self._over = self._over, None
        over.set_result(None)
