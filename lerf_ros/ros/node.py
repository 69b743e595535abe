"""The lifecycle node `lerf`: topics in, a map in the worker, answers out. Wires parts, does nothing heavy itself."""

from __future__ import annotations

import time
import traceback
from concurrent.futures import Future

import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.node import LifecycleNodeMixin
from rclpy.node import Node
from std_msgs.msg import Header

from lerf_ros.features.encoder import EncoderError
from lerf_ros.keyframes.depth_prior import DepthPriorError
from lerf_ros.ros import words
from lerf_ros.ros.autosave import AutoSave
from lerf_ros.ros.bridge import Turn, finished
from lerf_ros.ros.conversions import header
from lerf_ros.ros.declarations import Parameters
from lerf_ros.ros.diagnostics import DiagnosticsPublisher
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.input_health import InputHealth
from lerf_ros.ros.inputs import CameraInputs
from lerf_ros.ros.keyframe_topics import KeyframeTopics
from lerf_ros.ros.live_settings import LiveSettings, max_points
from lerf_ros.ros.map_services import MapServices, Refusal
from lerf_ros.ros.map_setup import MapSetup
from lerf_ros.ros.parameters import LERF_CHECKS, LERF_PARAMETERS, declare_cameras, save_plan, training_limits
from lerf_ros.ros.pose_corrections import PoseCorrections
from lerf_ros.ros.process import spin_until_shutdown
from lerf_ros.ros.snapshot import Observer, Snapshot
from lerf_ros.ros.status import StatusPublisher
from lerf_ros.ros.worker import MapWorker, WorkerStatistics

_STOP_TIMEOUT = 60.0  # s; the worker ends after its present unit of work, and may save the map
_UNDERWAY = {"configure": "configuring", "cleanup": "cleaningup", "shutdown": "shuttingdown"}  # as ROS names them
_SHUTDOWNS = (
    Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
    Transition.TRANSITION_INACTIVE_SHUTDOWN,
    Transition.TRANSITION_ACTIVE_SHUTDOWN,
)


class LerfNode(LifecycleNodeMixin, Node):
    """Maps a posed camera stream and says where things are.

    Subscriptions, while active and `training.enabled`, of each of `cameras`:
        ~/image (sensor_msgs/Image, or CompressedImage by `image.transport`), ~/camera_info (sensor_msgs/CameraInfo),
        ~/depth (as the image, by `depth.transport`; optional, registered to the image);
    and of all together:
        ~/pose (the message that `pose.source` names, of `pose.child_frame` in `map.frame`; none with tf),
        ~/corrected_poses (nav_msgs/Path, as ~/pose: where images that are in the map already were taken in truth)

    Publishers:
        ~/status (lerf_ros/Status): at `status.rate` and after every frame that was taken, in every state.
        /diagnostics (diagnostic_msgs/DiagnosticArray): once a second, in every state.
        ~/target (geometry_msgs/PoseStamped): the best target of the last question, when something was found.
        ~/target_with_covariance (geometry_msgs/PoseWithCovarianceStamped): the same, with its covariance.
        ~/targets (geometry_msgs/PoseArray): all of them, best first; empty when nothing was found.
        ~/markers (visualization_msgs/MarkerArray): box, approach arrow and label of each.
        ~/keyframes (nav_msgs/Path), ~/keyframes/frusta (visualization_msgs/MarkerArray): the images that the map is
            made of, at most once a second.

    Services, answered while active:
        ~/query (lerf_ros/Query), ~/save_map (lerf_ros/SaveMap), ~/load_map (lerf_ros/LoadMap),
        ~/reset (std_srvs/Trigger)

    Lifecycle:
        configure loads the encoder and builds the map in the worker's thread. The executor stays alive meanwhile: the
        service ~/change_state is a coroutine that awaits the worker before rclpy's synchronous transition runs, so
        the transition's outcome says whether loading succeeded. Why it did not is in ~/status until the next try.
        activate takes frames, trains and answers; deactivate pauses; cleanup and shutdown end the worker, awaited in
        the same way, and free its memory. Transitions that are asked for together come one after the other.
        When the worker dies, ~/status says "error" and why, and deactivate returns ERROR, which leads to unconfigured.

    Parameters: `lerf_ros.ros.parameters.LERF_PARAMETERS`, each with the time at which it is read.
    """

    def __init__(self) -> None:
        # First of all: destroy_node, which needs them, also follows a failed construction.
        self._worker: MapWorker | None = None
        self._setup: MapSetup | None = None  # of the last worker
        self._inputs: CameraInputs | None = None  # while active
        self._corrections: PoseCorrections | None = None  # while active
        self._loading: Future[None] | None = None
        self._turn = Turn()  # to change state
        self._underway = ""  # state of a transition that the worker prepares
        self._failure = ""  # why the last transition did not succeed
        Node.__init__(self, "lerf")
        # Reentrant: a coroutine that waits for the worker must not hold up the other callbacks.
        self._group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self._group)
        self._settings = Parameters(self, LERF_PARAMETERS, lambda: self._state, LERF_CHECKS)
        declare_cameras(self._settings)
        self._mistyped = self._settings.mistyped()
        for correction in self._mistyped:
            self.get_logger().warning(correction)
        LiveSettings(self._settings, self._running)
        self._drops = DropCounter()
        self._error_logged = False
        self._observer = Observer()
        self._map_services = MapServices(
            self, self._settings, self._group, worker=self._active_worker, waits_for=self._waits_for, now=self._now
        )
        KeyframeTopics(
            self, self._settings, self._group, lambda: self._worker.keyframes if self._worker else None, self._now
        )
        self._status = StatusPublisher(self, self._settings, self._group, self._snapshot, self._now)
        DiagnosticsPublisher(self, self._group, self._snapshot)
        self._change_state = self._service_change_state.callback
        self._service_change_state.callback = self._on_change_state
        self._frame_taken = self.create_guard_condition(self._status.publish, self._group)
        if self._settings["autostart"]:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._autostart_timer = self.create_timer(0.0, self._autostart, self._group, steady)  # type: ignore[arg-type]

    def destroy_node(self) -> None:
        if self._loading is not None and not self._loading.done():
            self._worker = None  # nothing is lost, and what it loads may take minutes: its thread ends with the process
        self._release()
        super().destroy_node()

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def _on_change_state(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """One transition at a time. What takes long comes first, in the worker, while the executor goes on: rclpy's own
        transition is synchronous, and then finds it done."""
        executor = self.executor
        assert executor is not None  # it runs this coroutine
        await self._turn.take(executor)
        try:
            transition = _by_label(request.transition)
            label = self._possible(transition)
            self._underway = _UNDERWAY.get(label, "")
            if label == "configure":
                await self._load(executor)
            elif label in ("cleanup", "shutdown") and self._worker is not None:
                await finished(self._worker.finish(), executor)
            self._underway = ""
            return self._change_state(ChangeState.Request(transition=transition), response)
        finally:
            self._underway = ""
            self._turn.give_back()

    def _possible(self, transition: Transition) -> str:
        """Label of a transition that the present state allows; empty: it does not, and rclpy will say so."""
        for number, label, *_ in self._state_machine.available_transitions:
            if label == transition.label or (number == transition.id and not transition.label):
                return str(label)
        return ""

    async def _autostart(self) -> None:
        self._autostart_timer.cancel()
        for label in ("configure", "activate"):
            request = ChangeState.Request(transition=Transition(label=label))
            if not (await self._on_change_state(request, ChangeState.Response())).success:
                return

    async def _load(self, executor: Executor) -> None:
        """Builds the worker and waits, without blocking, until it has loaded (or failed to)."""
        self._failure = ""
        try:
            loading = self._start_worker()
        except Exception as error:  # anything that a coroutine lets through would end the executor
            self._fail("configured", error)
            return
        await finished(loading, executor)  # on_configure looks at what came of it

    def _start_worker(self) -> Future[None]:
        """Raises ParameterError."""
        parameters = self._settings
        self._setup = setup = MapSetup.of(parameters)
        self._drops = DropCounter()
        self._error_logged = False
        self._worker = MapWorker(
            setup.make,
            self._drops,
            on_frame=self._frame_taken.trigger,
            max_points=max_points(parameters, setup),
            max_age=parameters["query.max_age"],
            threads=parameters["training.threads"],
            limits=training_limits(parameters),
            autosave=AutoSave(save_plan(parameters), self._on_saved),
        )
        self.get_logger().info(f"loading: {setup}")
        self._loading = self._worker.start()
        return self._loading

    def _on_saved(self, what: str, well: bool) -> None:
        """In the worker's thread."""
        (self.get_logger().info if well else self.get_logger().error)(what)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Succeeds when the encoder is loaded and the map built."""
        if self._worker is None or self._loading is None:
            return TransitionCallbackReturn.FAILURE
        error = self._loading.exception()
        if error is not None:
            self._fail("configured", error)
            self._release()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribes and lets the worker run. ERROR when the worker has died."""
        if self._worker is None or self._worker.error is not None:
            return TransitionCallbackReturn.ERROR
        self._failure = ""
        if self._settings["training.enabled"]:
            try:
                self._inputs = CameraInputs(self, self._settings, self._drops, self._worker.offer, self._group)
                self._corrections = PoseCorrections(self, self._settings, self._worker, self._group)
            except Exception as error:  # rclpy would turn it into ERROR without a word, and the map would be lost
                self._close_inputs()
                self._fail("activated", error)
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
        if self._worker is not None and self._worker.error is not None:
            self._failure = f"the mapper has failed ({self._worker.error})"
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def _fail(self, what: str, error: BaseException) -> None:
        """Says why the node could not be `what`; the status goes on saying it."""
        self._failure = f"{self.get_name()} could not be {what}: {error}"
        self.get_logger().error(self._failure)
        if not isinstance(error, (EncoderError, DepthPriorError, ValueError, OSError)):  # nothing that a user can mend
            self.get_logger().error("".join(traceback.format_exception(error)))

    @property
    def _state(self) -> str:
        """Of the lifecycle; while the worker prepares a transition, that which the transition leads through."""
        return self._underway or str(self._state_machine.current_state[1])

    @property
    def _statistics(self) -> WorkerStatistics:
        return self._worker.statistics if self._worker is not None else WorkerStatistics()

    def _running(self) -> tuple[MapWorker, MapSetup] | None:
        return (self._worker, self._setup) if self._worker is not None and self._setup is not None else None

    def _close_inputs(self) -> None:
        for open_one in (self._inputs, self._corrections):
            if open_one is not None:
                open_one.close()
        self._inputs = self._corrections = None

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

    # -- what others ask -----------------------------------------------------------------------------------------------

    def _active_worker(self) -> MapWorker:
        """Raises Refusal."""
        refusal = self._refusal()
        if refusal:
            raise Refusal(refusal)
        assert self._worker is not None
        return self._worker

    def _refusal(self) -> str:
        error = self._worker.error if self._worker is not None else None
        return words.refusal(self.get_fully_qualified_name(), self._state, error, self._failure)

    def _snapshot(self) -> Snapshot:
        error = self._worker.error if self._worker is not None else None
        if error is not None and self._state in ("inactive", "active") and not self._error_logged:
            self._error_logged = True
            self.get_logger().error("the mapper has failed:\n" + "".join(traceback.format_exception(error)))
        health, statistics, drops = self._health, self._statistics, self._drops.snapshot()
        setup, idle = self._setup, self._worker is not None and self._worker.idle
        return Snapshot(
            state=self._state if error is None else "error",
            message=self._refusal()
            or words.waits_for(health, statistics, drops)
            or words.progress(health, statistics, idle),
            failed=error is not None or bool(self._failure),
            device=setup.device_name if setup is not None else "",
            gpu=setup.device if setup is not None and setup.device.type == "cuda" else None,
            statistics=statistics,
            learning=self._observer.look(statistics, time.monotonic()),
            health=health or InputHealth(),
            drops=drops,
            mistyped=self._mistyped,
            last_query=self._map_services.last_query,
        )

    @property
    def _health(self) -> InputHealth | None:
        return self._inputs.health() if self._inputs is not None else None

    def _waits_for(self) -> str:
        return words.waits_for(self._health, self._statistics, self._drops.snapshot())

    def _now(self) -> Header:
        return header(self.get_clock().now().nanoseconds, self._settings["map.frame"])


def _by_label(transition: Transition) -> Transition:
    """A shutdown is asked for from one state; while it waits for its turn, the node may come to another one."""
    return Transition(label="shutdown") if transition.id in _SHUTDOWNS and not transition.label else transition


def main() -> int:
    return spin_until_shutdown(LerfNode)
