"""The services of the map: questions, saving, loading, resetting."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.ros.answers import AnswerPublisher
from lerf_ros.ros.bridge import finished
from lerf_ros.ros.client import SERVICE_QOS
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.messages import fill_response
from lerf_ros.ros.parameters import query_options
from lerf_ros.ros.worker import MapWorker, WorkerStopped
from lerf_ros.srv import LoadMap, Query, SaveMap

T = TypeVar("T")


class Outcome(Protocol):
    """What the responses of all services have in common."""

    success: bool
    message: str


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


class Refusal(Exception):
    """Nothing can be answered at present; the text says why and what to do."""


class MapServices:
    """~/query, ~/save_map, ~/load_map and ~/reset: coroutines that await the worker, while the executor goes on.

    Args:
        group: reentrant, so that many may wait at once.
        worker: that of an active node; raises `Refusal` when there is none that can answer.
        waits_for: what the first keyframe still waits for, in words.
        now: header of an answer.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        group: CallbackGroup,
        *,
        worker: Callable[[], MapWorker],
        waits_for: Callable[[], str],
        now: Callable[[], Header],
    ) -> None:
        self.last_query = ""
        self._node, self._settings = node, settings
        self._worker, self._waits_for, self._now = worker, waits_for, now
        self._answers = AnswerPublisher(node, settings)
        for kind, name, callback in (
            (Query, "query", self._on_query),
            (SaveMap, "save_map", self._on_save_map),
            (LoadMap, "load_map", self._on_load_map),
            (Trigger, "reset", self._on_reset),
        ):
            node.create_service(kind, f"~/{name}", callback, qos_profile=SERVICE_QOS, callback_group=group)

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        began = time.monotonic()
        try:
            worker = self._worker()
            if worker.statistics.keyframes == 0:
                raise Refusal(f"no keyframe yet: {self._waits_for() or 'the first frame is on its way'}")
            options = query_options(
                self._settings, request.max_targets, request.min_relevancy, request.canonical_phrases
            )
            answer = await self._done(worker.ask(request.text, options))
        except (Refusal, ValueError, WorkerStopped) as error:  # the question is at fault, or the node is not able
            return _refused(response, str(error))
        except Exception as error:  # anything else would end the executor, and with it the node
            self._node.get_logger().error(traceback.format_exc())
            return _refused(response, f"internal error: {type(error).__name__}: {error}")
        self.last_query = request.text
        stamped = self._now()
        self._answers.publish(answer, stamped)
        fill_response(response, answer, stamped, worker.statistics.units)
        response.seconds = float(time.monotonic() - began)
        return response

    async def _on_save_map(self, request: SaveMap.Request, response: SaveMap.Response) -> SaveMap.Response:
        path = self._map_path(request.path)
        return await self._on_map(response, lambda online: online.save(path), f"saved to {path}")

    async def _on_load_map(self, request: LoadMap.Request, response: LoadMap.Response) -> LoadMap.Response:
        path = self._map_path(request.path)
        return await self._on_map(response, lambda online: online.load(path), f"loaded from {path}")

    async def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        return await self._on_map(response, lambda online: online.reset(), "the map is empty again")

    async def _on_map(self, response: OutcomeT, function: Callable[[OnlineMapper], Any], success: str) -> OutcomeT:
        """Runs something in the worker; the response says how it went."""
        try:
            await self._done(self._worker().request(function))
        except Exception as error:  # as in _on_query; messages of the mapper say what to do
            return _refused(response, str(error) or type(error).__name__)
        response.success, response.message = True, success
        return response

    def _map_path(self, path: str) -> Path:
        return Path(path or self._settings["map.path"]).expanduser()

    async def _done(self, future: Future[T]) -> T:
        """Result of a worker's future; the executor goes on meanwhile."""
        assert self._node.executor is not None  # it runs this coroutine
        return (await finished(future, self._node.executor)).result()


def _refused(response: OutcomeT, message: str) -> OutcomeT:
    response.success, response.message = False, message
    return response
