"""The lifecycle node `lerf`: topics in, a map in the worker, answers out. Wires parts, does nothing heavy itself."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from geometry_msgs.msg import PoseArray, PoseStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import Trigger
from visualization_msgs.msg import MarkerArray

from lerf_ros.features.encoder import EncoderError, load_encoder
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.msg import Status
from lerf_ros.query.targets import Answer
from lerf_ros.ros.bridge import finished
from lerf_ros.ros.client import SERVICE_QOS
from lerf_ros.ros.conversions import header
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.inputs import CameraInputs
from lerf_ros.ros.messages import fill_response, marker_array, pose_array
from lerf_ros.ros.parameters import (
    LERF_PARAMETERS,
    ParameterError,
    Parameters,
    mapper_config,
    preset_name,
    query_options,
    torch_device,
)
from lerf_ros.ros.process import spin_until_shutdown
from lerf_ros.ros.rehearsal import rehearse
from lerf_ros.ros.status import status_message
from lerf_ros.ros.worker import MapWorker, WorkerStatistics, WorkerStopped
from lerf_ros.srv import LoadMap, Query, SaveMap

T = TypeVar("T")


class Outcome(Protocol):
    """What the responses of all services have in common."""

    success: bool
    message: str


OutcomeT = TypeVar("OutcomeT", bound=Outcome)

_STOP_TIMEOUT = 10.0  # s; the worker ends after its present unit of work

_MAX_POINTS = {"cpu": 40_000, "cuda": 50_000}  # surface points at which a question is answered
_SPEED_PERIOD = 2.0  # s over which steps are counted
_OUTSIDE_SHARE = 0.2  # of what is measured; more than that beyond the mapped volume is worth a word


class LerfNode(LifecycleNodeMixin, Node):
    """Maps a posed camera stream and says where things are.

    Subscriptions, while active and `training.enabled`:
        ~/image (sensor_msgs/Image), ~/camera_info (sensor_msgs/CameraInfo),
        ~/depth (sensor_msgs/Image, optional, registered to the image; 16UC1 mm or 32FC1 m),
        ~/pose (geometry_msgs/PoseStamped, of `pose.child_frame` in `map.frame`)

    Publishers:
        ~/status (lerf_ros/Status): at `status.rate` and after every frame that was taken, in every state.
        ~/target (geometry_msgs/PoseStamped): the best target of the last question, when something was found.
        ~/targets (geometry_msgs/PoseArray): all of them, best first; empty when nothing was found.
        ~/markers (visualization_msgs/MarkerArray): box, approach arrow and label of each.

    Services, answered while active:
        ~/query (lerf_ros/Query), ~/save_map (lerf_ros/SaveMap), ~/load_map (lerf_ros/LoadMap),
        ~/reset (std_srvs/Trigger)

    Lifecycle:
        configure loads the encoder and builds the map in the worker's thread. The executor stays alive meanwhile: the
        service ~/change_state is a coroutine that awaits the worker before rclpy's synchronous transition runs, so
        the transition's outcome says whether loading succeeded.
        activate takes frames, trains and answers; deactivate pauses; cleanup ends the worker and frees its memory.
        When the worker dies, ~/status says "error" and why, and deactivate returns ERROR, which leads to unconfigured.

    Parameters: `lerf_ros.ros.parameters.LERF_PARAMETERS`, read at configure (those of a question: with each question).
    """

    def __init__(self) -> None:
        # First of all: destroy_node, which needs them, also follows a failed construction.
        self._worker: MapWorker | None = None
        self._inputs: CameraInputs | None = None  # while active
        self._loading: Future[None] | None = None
        Node.__init__(self, "lerf")
        # Reentrant: a coroutine that waits for the worker must not hold up the other callbacks.
        self._group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._group)
        self._settings = Parameters(self, LERF_PARAMETERS)
        self._drops = DropCounter()
        self._device = ""
        self._last_query = ""
        self._error_logged = False
        self._steps_seen = (time.monotonic(), 0)
        self._steps_per_second = 0.0

        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._status = self.create_publisher(Status, "~/status", 10)
        self._target = self.create_publisher(PoseStamped, "~/target", latched)
        self._targets = self.create_publisher(PoseArray, "~/targets", latched)
        self._markers = self.create_publisher(MarkerArray, "~/markers", latched)
        for kind, name, callback in (
            (Query, "query", self._on_query),
            (SaveMap, "save_map", self._on_save_map),
            (LoadMap, "load_map", self._on_load_map),
            (Trigger, "reset", self._on_reset),
        ):
            self.create_service(kind, f"~/{name}", callback, qos_profile=SERVICE_QOS, callback_group=self._group)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._frame_taken = self.create_guard_condition(self._publish_status, self._group)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # status comes also while simulated time stands still
        self.create_timer(1.0 / self._settings["status.rate"], self._on_status_timer, self._group, steady)
        if self._settings["autostart"]:
            self._autostart_timer = self.create_timer(0.0, self._autostart, self._group, steady)  # type: ignore[arg-type]

    def destroy_node(self) -> None:
        self._release()
        super().destroy_node()

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        transition = request.transition
        if transition.label == "configure" or transition.id == Transition.TRANSITION_CONFIGURE:
            await self._load()
        return self._change_state(request, response)

    async def _autostart(self) -> None:
        self._autostart_timer.cancel()
        await self._load()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    async def _load(self) -> None:
        """Builds the worker and waits, without blocking, until it has loaded (or failed to)."""
        if self._state != "unconfigured":
            return
        try:
            loading = self._loading or self._start_worker()
        except ParameterError as error:
            self.get_logger().error(str(error))
            return
        assert self.executor is not None  # it runs this coroutine
        await finished(loading, self.executor)  # on_configure looks at what came of it

    def _start_worker(self) -> Future[None]:
        parameters = self._settings
        device = torch_device(parameters)
        preset = preset_name(parameters, device)
        config = mapper_config(parameters, preset)
        self._device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        self._drops = DropCounter()
        self._error_logged = False
        model, pretrained = parameters["encoder.model"], parameters["encoder.pretrained"]
        seed, path = parameters["training.seed"], parameters["map.path"] if parameters["map.load"] else ""

        def build() -> OnlineMapper:
            encoder = load_encoder(model, pretrained, device)
            if device.type == "cuda":
                rehearse(config, encoder, device)
            online = OnlineMapper(config, encoder, device, seed)
            if path:
                online.load(Path(path).expanduser())
            return online

        self._worker = MapWorker(
            build,
            self._drops,
            on_frame=self._frame_taken.trigger,
            max_points=parameters["query.max_points"] or _MAX_POINTS[device.type],
            max_age=parameters["query.max_age"],
            threads=parameters["training.threads"],
        )
        self.get_logger().info(f"loading encoder '{model}' for preset '{preset}' on {self._device}")
        self._loading = self._worker.start()
        return self._loading

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Succeeds when the encoder is loaded and the map built."""
        if self._worker is None or self._loading is None:
            return TransitionCallbackReturn.FAILURE
        error = self._loading.exception()
        if error is not None:
            self.get_logger().error(f"cannot configure: {error}")
            if not isinstance(error, (EncoderError, ValueError, OSError)):
                self.get_logger().error("".join(traceback.format_exception(error)))
            self._release()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and lets the worker run."""
        if self._worker is None or self._worker.error is not None:
            return TransitionCallbackReturn.FAILURE
        if self._settings["training.enabled"]:
            try:
                self._inputs = CameraInputs(self, self._settings, self._drops, self._worker.offer, self._group)
            except ParameterError as error:
                self.get_logger().error(f"cannot activate: {error}")
                return TransitionCallbackReturn.FAILURE
            self._worker.resume()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Pauses; the map stays in memory. ERROR when the worker has died."""
        self._close_inputs()
        if self._worker is None or self._worker.error is not None:
            return TransitionCallbackReturn.ERROR
        self._worker.pause()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Ends the worker and frees its memory."""
        return TransitionCallbackReturn.SUCCESS if self._release() else TransitionCallbackReturn.ERROR

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup."""
        return self.on_cleanup(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, so that configure may be tried again."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @property
    def _state(self) -> str:
        return self._state_machine.current_state[1]

    @property
    def _configured(self) -> MapWorker:
        """The worker of a configured node."""
        assert self._worker is not None
        return self._worker

    @property
    def _statistics(self) -> WorkerStatistics:
        return self._worker.statistics if self._worker is not None else WorkerStatistics()

    def _close_inputs(self) -> None:
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.close()

    def _release(self) -> bool:
        self._close_inputs()
        worker, self._worker, self._loading = self._worker, None, None
        if worker is None:
            return True
        stopped = worker.stop(_STOP_TIMEOUT)
        if not stopped:
            self.get_logger().error(f"the mapper did not stop within {_STOP_TIMEOUT:g} s")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return stopped

    # -- services ------------------------------------------------------------------------------------------------------

    async def _on_query(self, request: Query.Request, response: Query.Response) -> Query.Response:
        began = time.monotonic()
        refusal = self._refusal()
        if not refusal and self._statistics.keyframes == 0:
            refusal = f"no keyframe yet: {self._waits_for() or 'the first frame is on its way'}"
        if refusal:
            return _refused(response, refusal)
        try:
            options = query_options(
                self._settings, request.max_targets, request.min_relevancy, request.canonical_phrases
            )
            answer = await self._done(self._configured.ask(request.text, options))
        except (ValueError, WorkerStopped) as error:  # the question is at fault, or the node is ending
            return _refused(response, str(error))
        except Exception as error:  # anything else would end the executor, and with it the node
            self.get_logger().error(traceback.format_exc())
            return _refused(response, f"internal error: {type(error).__name__}: {error}")
        self._last_query = request.text
        stamped = self._now()
        self._publish_answer(answer, stamped)
        fill_response(response, answer, stamped)
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
        refusal = self._refusal()
        if refusal:
            return _refused(response, refusal)
        try:
            await self._done(self._configured.request(function))
        except Exception as error:  # as in _on_query; messages of the mapper say what to do
            return _refused(response, str(error) or type(error).__name__)
        response.success, response.message = True, success
        return response

    def _refusal(self) -> str:
        """Why nothing can be answered at present; empty when it can."""
        if self._worker is not None and self._worker.error is not None:
            return f"the mapper has failed ({self._worker.error}): deactivate, then configure again"
        if self._state == "active":
            return ""
        name = self.get_fully_qualified_name()
        steps = "configure, then activate" if self._state == "unconfigured" else "activate"
        return f"{self.get_name()} is {self._state}: ros2 lifecycle set {name} {steps}"

    def _map_path(self, path: str) -> Path:
        return Path(path or self._settings["map.path"]).expanduser()

    def _publish_answer(self, answer: Answer, stamped: Any) -> None:
        poses = pose_array(answer, stamped)
        self._targets.publish(poses)
        if poses.poses:
            self._target.publish(PoseStamped(header=stamped, pose=poses.poses[0]))
        self._markers.publish(marker_array(answer, stamped))

    # -- status --------------------------------------------------------------------------------------------------------

    def _on_status_timer(self) -> None:
        now, steps, (then, before) = time.monotonic(), self._statistics.steps, self._steps_seen
        if now - then >= _SPEED_PERIOD:
            self._steps_per_second = max(0.0, (steps - before) / (now - then))
            self._steps_seen = (now, steps)
        error = self._worker.error if self._worker is not None else None
        if error is not None and self._state == "active" and not self._error_logged:
            self._error_logged = True
            self.get_logger().error("the mapper has failed:\n" + "".join(traceback.format_exception(error)))
        self._publish_status()

    def _publish_status(self) -> None:
        failed = self._worker is not None and self._worker.error is not None
        self._status.publish(
            status_message(
                self._now(),
                state="error" if failed else self._state,
                message=self._refusal() or self._waits_for() or self._progress(),
                device=self._device,
                statistics=self._statistics,
                drops=self._drops,
                steps_per_second=self._steps_per_second,
                last_query=self._last_query,
            )
        )

    def _waits_for(self) -> str:
        """What an active node lacks, in words; empty when frames come in (or need not)."""
        if self._inputs is None or self._statistics.frames_taken:
            return ""
        dropped = self._drops.snapshot()
        return self._inputs.lacking() or (f"every frame is dropped; {dropped[-1][0]}" if dropped else "no frame yet")

    def _progress(self) -> str:
        if self._inputs is None:
            return "answering; training.enabled is false"
        outside, without_depth = self._statistics.outside_share, self._inputs.frames_without_depth
        if outside > _OUTSIDE_SHARE:
            return f"mapping, but {outside:.0%} of what is measured lies outside the mapped volume: raise scene.radius"
        return f"mapping; {without_depth} frames came without their depth" if without_depth else "mapping"

    # -- small things --------------------------------------------------------------------------------------------------

    def _now(self) -> Any:
        return header(self.get_clock().now().nanoseconds, self._settings["map.frame"])

    async def _done(self, future: Future[T]) -> T:
        """Result of a worker's future; the executor goes on meanwhile."""
        assert self.executor is not None  # it runs this coroutine
        return (await finished(future, self.executor)).result()


def _refused(response: OutcomeT, message: str) -> OutcomeT:
    response.success, response.message = False, message
    return response


def main() -> int:
    return spin_until_shutdown(LerfNode)
