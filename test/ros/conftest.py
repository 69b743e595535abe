"""For tests with nodes in processes of their own: a ROS domain, a recording, a map of little work, an end for all."""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
TOPICS = ("image", "camera_info", "depth", "pose")


def free_domain() -> int:
    """A domain in which nobody listens on this machine: its first discovery port is free."""
    for domain in random.SystemRandom().sample(range(1, 101), 100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
        return domain
    raise RuntimeError("no free ROS domain")


class Processes:
    """Starts programs in the test's ROS domain, and ends each of them by its id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen] = []

    def start(
        self, executable: str, *parameters: str, remap: bool = False, remapped: Sequence[str] = ()
    ) -> subprocess.Popen:
        """One of this package; `remap`: its topics are those of the camera node; `remapped`: other names, "a:=b"."""
        arguments = [sys.executable, str(SCRIPTS / executable), "--ros-args"]
        for parameter in parameters:
            arguments += ["-p", parameter]
        for topic in TOPICS if remap else ():
            arguments += ["-r", f"~/{topic}:=/camera/{topic}"]
        for rule in remapped:
            arguments += ["-r", rule]
        return self.run(executable, arguments)

    def run(self, name: str, command: Sequence[str]) -> subprocess.Popen:
        """Any; its output goes to the file `log`. Its own group: what it starts is ended with it."""
        log = self.folder / f"{name}-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True
            )
        process.log = log
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def domain() -> Iterator[None]:
    """A domain of its own for every test: a client must not wait for a node that an earlier test ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(free_domain()))
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture
def processes(domain, tmp_path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.end()


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Parameters of a map of little work."""
    return (
        "keyframe.capacity:=8",
        "training.rays:=256",
        "query.max_points:=2000",
        "training.threads:=1",
        "status.rate:=10.0",
        "map.overrides:=['radiance.grid.log2_table=12','language.coarse_grid.log2_table=10',"
        "'language.fine_grid.log2_table=10','pyramid.fractions=[0.25,0.5]','pyramid.strides=[1.0,1.0]','sampling.proposal_resolution=16']",
    )


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Path:
    """A camera that moves sideways before a wall of coloured tiles, 2 m away, 12 frames: a 7-Scenes style folder."""
    folder = tmp_path_factory.mktemp("recording")
    np.savetxt(folder / "camera-intrinsics.txt", [[150.0, 0.0, 79.5], [0.0, 150.0, 59.5], [0.0, 0.0, 1.0]])
    tiles = np.random.default_rng(0).integers(0, 255, (24, 48, 3), np.uint8)
    wall = cv2.resize(tiles, (480, 240), interpolation=cv2.INTER_NEAREST)
    for i in range(12):
        shift = 15 * i  # px; 15 px / 150 px * 2 m = 0.2 m a frame
        cv2.imwrite(str(folder / f"frame-{i:06d}.color.jpg"), wall[:120, shift : shift + 160])
        cv2.imwrite(str(folder / f"frame-{i:06d}.depth.png"), np.full((120, 160), 2000, np.uint16))
        pose = np.eye(4)
        pose[0, 3] = 0.2 * i
        np.savetxt(folder / f"frame-{i:06d}.pose.txt", pose)
    return folder


class RunningLerf:
    """A node `lerf` in a thread of the test's process, to look into, and a client of it."""

    def __init__(self, *parameters: str, timeout: float = 90.0) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions

        from lerf_ros.ros.client import LerfClient
        from lerf_ros.ros.node import LerfNode

        arguments = [word for parameter in parameters for word in ("-p", parameter)]
        rclpy.init(args=["--ros-args", *arguments], signal_handler_options=SignalHandlerOptions.NO)
        self.node, self._executor = LerfNode(), SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._spinning = threading.Thread(target=self._executor.spin)
        self._spinning.start()
        self.client = LerfClient(timeout=timeout)
        self._publishers: dict = {}

    def frame(self, position: Sequence[float] = (0.0, 0.0, 0.0), without: Sequence[str] = ()) -> None:
        """Publishes one to the inputs, which must listen: a wall of coloured tiles 2 m away."""
        from geometry_msgs.msg import PoseStamped
        from sensor_msgs.msg import CameraInfo, Image

        from lerf_ros.geometry.camera import Camera
        from lerf_ros.ros import conversions as c

        peer = self.client._node
        if not self._publishers:
            kinds = {"camera_info": CameraInfo, "pose": PoseStamped, "depth": Image, "image": Image}
            self._publishers = {name: peer.create_publisher(kind, f"/lerf/{name}", 10) for name, kind in kinds.items()}
        while not all(publisher.get_subscription_count() for publisher in self._publishers.values()):
            self.client._executor.spin_once(timeout_sec=0.1)
        stamped = c.header(peer.get_clock().now().nanoseconds, "camera")
        tiles = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
        T_world_camera = np.eye(4)
        T_world_camera[:3, 3] = position
        messages = {
            "camera_info": c.camera_info_message(Camera(150.0, 150.0, 79.5, 59.5, 160, 120), stamped),
            "pose": c.pose_stamped_message(T_world_camera, c.header(c.stamp_to_ns(stamped.stamp), "map")),
            "depth": c.depth_message(np.full((120, 160), 2.0, np.float32), stamped),
            "image": c.image_message(cv2.resize(tiles, (160, 120), interpolation=cv2.INTER_NEAREST), stamped),
        }
        for name, message in messages.items():
            if name not in without:
                self._publishers[name].publish(message)

    def kill_worker(self) -> None:
        """As running out of memory would."""

        def fail(online):
            raise RuntimeError("out of memory")

        self.node._worker._note = fail
        self.node._worker.request(lambda online: None)  # wakes it

    def end(self) -> None:
        import rclpy

        self.client.close()
        self._executor.shutdown()
        self._spinning.join()
        self.node.destroy_node()
        rclpy.shutdown()


@pytest.fixture
def lerf(domain, tiny) -> Iterator[RunningLerf]:
    lerf = RunningLerf(*tiny)
    yield lerf
    lerf.end()


@pytest.fixture(scope="session")
def set_parameters():
    """(client, name=value, with __ for a dot) -> the reason why the node refuses these changes together, or ""."""
    from rcl_interfaces.srv import SetParametersAtomically
    from rclpy.parameter import Parameter

    def changed(client, **values) -> str:
        setter = client._node.create_client(SetParametersAtomically, f"{client.name}/set_parameters_atomically")
        assert setter.wait_for_service(client.timeout)
        changes = [Parameter(name.replace("__", "."), value=value) for name, value in values.items()]
        request = SetParametersAtomically.Request(parameters=[change.to_parameter_msg() for change in changes])
        future = setter.call_async(request)
        client._executor.spin_until_future_complete(future, client.timeout)
        return future.result().result.reason

    return changed
