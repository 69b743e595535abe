"""How every executable of this package starts, spins and ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node

RCLError = rclpy_implementation.RCLError

NodeT = TypeVar("NodeT", bound=Node)


def spin_until_shutdown(create: Callable[[], NodeT], done: Callable[[NodeT], bool] = lambda node: False) -> int:
    """Runs one node until SIGINT, SIGTERM or `done`.

    rclpy shuts its context down on both signals and then calls the handler that was there before. Python's own would
    raise KeyboardInterrupt at an arbitrary place, also in the middle of the clean-up.

    Returns:
        Exit status, 0 when the node ended as it should.
    """
    signal.signal(signal.SIGINT, lambda *_: None)
    rclpy.init()
    executor = SingleThreadedExecutor()
    try:
        node = create()
    except ValueError as error:  # a parameter, a path: what the user can mend
        print(error, file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    except RCLError:  # a signal while the node was made: the context is gone
        if rclpy.ok():
            raise
        return 0
    try:
        executor.add_node(node)
        while rclpy.ok() and not done(node):
            executor.spin_once()
    except ExternalShutdownException:
        pass
    except RCLError:  # a signal between the check and the wait, or within a callback: the context is gone
        if rclpy.ok():
            raise
    finally:
        executor.remove_node(node)
        node.destroy_node()
        executor.shutdown()
        rclpy.try_shutdown()
    _leave_threads_behind()
    return 0


def _leave_threads_behind() -> None:
    """Ends the process here when a thread is in the middle of something that nobody can interrupt, such as loading a
    model: were Python to end under it, C++ would abort the process."""
    if any(thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
