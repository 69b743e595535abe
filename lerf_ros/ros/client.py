"""Asking the node `lerf` from Python, without a node of one's own; and the command `lerf_query`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.utilities import remove_ros_args
from std_srvs.srv import Trigger

from lerf_ros.geometry.units import METRES, NOT_METRES
from lerf_ros.msg import Status
from lerf_ros.ros.answer_words import young_map_notes
from lerf_ros.srv import LoadMap, Query, SaveMap

SERVICE_QOS = QoSProfile(depth=256)  # with the default depth of 10, most of 64 simultaneous questions were lost

_SERVICES: dict[str, type] = {
    "query": Query,
    "save_map": SaveMap,
    "load_map": LoadMap,
    "reset": Trigger,
    "change_state": ChangeState,
    "get_state": GetState,
}


class ClientError(RuntimeError):
    """The node did not answer in time, or is not there."""


class LerfClient:
    """Blocking calls to one `lerf` node, and its latest status.

    Args:
        name: of the node.
        timeout: s, for every call, the wait for its service included.

    Every call raises ClientError when there is no answer in time.
    """

    def __init__(self, name: str = "/lerf", timeout: float = 30.0) -> None:
        self.name = name
        self.timeout = timeout
        self.status: Status | None = None  # the latest
        self._context = rclpy.Context()
        self._context.init()
        self._node = rclpy.create_node("lerf_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._clients: dict[str, Any] = {
            service: self._node.create_client(kind, f"{name}/{service}", qos_profile=SERVICE_QOS)
            for service, kind in _SERVICES.items()
        }
        self._node.create_subscription(Status, f"{name}/status", self._on_status, 1)  # the latest

    def close(self) -> None:
        self._executor.remove_node(self._node)
        self._node.destroy_node()
        self._executor.shutdown()
        self._context.try_shutdown()

    def __enter__(self) -> LerfClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def change_state(self, transition: str) -> bool:
        """`configure`, `activate`, `deactivate`, `cleanup` or `shutdown`; False when the node refuses."""
        request = ChangeState.Request(transition=Transition(label=transition))
        return bool(self._call("change_state", request).success)

    def state(self) -> str:
        """Lifecycle state: unconfigured, inactive, active ..."""
        return str(self._call("get_state", GetState.Request()).current_state.label)

    def query(
        self, text: str, max_targets: int = 0, min_relevancy: float = -1.0, canonical_phrases: Sequence[str] = ()
    ) -> Query.Response:
        """Where is this? See Query.srv."""
        return self.query_all([text], max_targets, min_relevancy, canonical_phrases)[0]

    def query_all(
        self,
        texts: Sequence[str],
        max_targets: int = 0,
        min_relevancy: float = -1.0,
        canonical_phrases: Sequence[str] = (),
    ) -> list[Query.Response]:
        """Asks all texts at once; the node answers those that wait together in one pass."""
        self._wait_for_service("query")
        futures = [
            self._clients["query"].call_async(
                Query.Request(
                    text=str(text),
                    max_targets=int(max_targets),
                    min_relevancy=float(min_relevancy),
                    canonical_phrases=[str(phrase) for phrase in canonical_phrases],
                )
            )
            for text in texts
        ]
        deadline = time.monotonic() + self.timeout
        return [self._result("query", future, deadline) for future in futures]

    def save_map(self, path: str = "") -> SaveMap.Response:
        return self._call("save_map", SaveMap.Request(path=str(path)))

    def load_map(self, path: str = "") -> LoadMap.Response:
        return self._call("load_map", LoadMap.Request(path=str(path)))

    def reset(self) -> Trigger.Response:
        return self._call("reset", Trigger.Request())

    def wait_for_status(
        self, condition: Callable[[Status], bool] = lambda status: True, timeout: float | None = None
    ) -> Status:
        """The first status from now on that meets a condition."""
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        self.status = None
        latest = None
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=max(0.0, deadline - time.monotonic()))
            if self.status is not None:
                if condition(self.status):
                    return self.status
                latest, self.status = self.status, None
        seen = f"; the last was: {latest.state}, {latest.message}" if latest else f": nothing on {self.name}/status"
        raise ClientError(f"{self.name} did not reach the expected status within {timeout:g} s{seen}")

    def _on_status(self, status: Status) -> None:
        self.status = status

    def _call(self, service: str, request: Any) -> Any:
        self._wait_for_service(service)
        return self._result(service, self._clients[service].call_async(request), time.monotonic() + self.timeout)

    def _wait_for_service(self, service: str) -> None:
        if not self._clients[service].wait_for_service(timeout_sec=self.timeout):
            raise ClientError(
                f"there is no service {self.name}/{service} after {self.timeout:g} s: is the node running "
                "(ros2 run lerf_ros lerf_node), with the same ROS_DOMAIN_ID?"
            )

    def _result(self, service: str, future: Any, deadline: float) -> Any:
        self._executor.spin_until_future_complete(future, timeout_sec=max(0.0, deadline - time.monotonic()))
        if not future.done():
            raise ClientError(f"{self.name}/{service} did not answer within {self.timeout:g} s")
        return future.result()


def table(answers: Sequence[tuple[str, Query.Response]]) -> str:
    """Answers as text, one line a target; below them, what the messages say about a young map, and about units."""
    in_metres = all(answer.units in (METRES, "") for _, answer in answers)  # empty: it was refused
    unit = " (m)" if in_metres else ""
    lines = [f"{'text':<28} {'relevancy':>9}  {f'position{unit}':<24} {f'size{unit}':<18} {f'scale{unit}':>9}"]
    for text, answer in answers:
        if not answer.targets:
            lines.append(f"{text:<28} {answer.best_relevancy:>9.2f}  {answer.message}")
        for target in answer.targets:
            p, s = target.pose.pose.position, target.size
            position, size = f"{p.x:7.2f} {p.y:7.2f} {p.z:7.2f}", f"{s.x:5.2f} {s.y:5.2f} {s.z:5.2f}"
            lines.append(f"{text:<28} {target.relevancy:>9.2f}  {position:<24} {size:<18} {target.scale:>9.2f}")
    lines += young_map_notes([answer.message for _, answer in answers if answer.targets])
    if not in_metres:
        lines.append(NOT_METRES)
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """`lerf_query "a red mug" ["a chair" ...]`: 0 when every text was answered, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="lerf_query", description="Asks a running lerf node where things are.")
    parser.add_argument("texts", nargs="+", metavar="TEXT", help='what to look for, e.g. "a red mug"')
    parser.add_argument("--node", default="/lerf", help="name of the node")
    parser.add_argument("--max-targets", type=int, default=0, help="0: the node's parameter")
    parser.add_argument("--min-relevancy", type=float, default=-1.0, help="in [0, 1]; negative: the encoder's own")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    options = parser.parse_args(remove_ros_args(sys.argv)[1:] if arguments is None else arguments)
    try:
        with LerfClient(options.node, options.timeout) as client:
            answers = client.query_all(options.texts, options.max_targets, options.min_relevancy)
    except ClientError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(list(zip(options.texts, answers, strict=True))))
    return 0 if all(answer.success for answer in answers) else 1
