"""How every executable of this package starts, spins and ends."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

RCLError = rclpy_implementation.RCLError

NodeT = TypeVar("NodeT", bound=Node)


class RosLogHandler(logging.Handler):
    """Gives what the package logs outside of nodes, from any thread, to the logger of a node."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        words = self.format(record)
        # A line each: rclpy refuses another severity at a place that has logged before.
        if record.levelno >= logging.ERROR:
            self._logger.error(words)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(words)
        elif record.levelno >= logging.INFO:
            self._logger.info(words)
        else:
            self._logger.debug(words)


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
    _log_with(node)
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


def _log_with(node: Node) -> None:
    log = logging.getLogger(__name__.partition(".")[0])
    log.addHandler(RosLogHandler(node.get_logger()))
    log.setLevel(logging.INFO)
    log.propagate = False  # to a library's handler, which would print it once more


def _leave_threads_behind() -> None:
    """Ends the process here when a thread is in the middle of something that nobody can interrupt, such as loading a
    model: were Python to end under it, C++ would abort the process."""
    if any(thread is not threading.main_thread() for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
