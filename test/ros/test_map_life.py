"""A map over the lives of several nodes: corrected, at rest, saved at the end, and asked later without a camera."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from nav_msgs.msg import Path  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402

from lerf_ros.ros.client import LerfClient  # noqa: E402
from lerf_ros.ros.conversions import header, matrix_from_pose, pose_stamped_message, stamp_to_ns  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
TIMEOUT = 90.0  # s, for a loaded machine
SHIFT = np.array([0.0, 0.3, 0.0])  # m, of a loop closure


class Slam:
    """Sees where the keyframes are, and corrects them."""

    def __enter__(self):
        self.context = rclpy.Context()
        self.context.init()
        self.node = rclpy.create_node("slam", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.path = None
        self.node.create_subscription(Path, "/lerf/keyframes", lambda path: setattr(self, "path", path), latched)
        self.publisher = self.node.create_publisher(Path, "/lerf/corrected_poses", 1)
        return self

    def __exit__(self, *_):
        self.node.destroy_node()
        self.executor.shutdown()
        self.context.try_shutdown()

    def spin_until(self, condition):
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            self.executor.spin_once(timeout_sec=0.1)

    def poses(self, count):
        """{stamp: T_world_camera}, once there are so many."""
        self.spin_until(lambda: self.path is not None and len(self.path.poses) == count)
        return {stamp_to_ns(each.header.stamp): matrix_from_pose(each.pose) for each in self.path.poses}

    def correct(self, poses, frame="map"):
        self.spin_until(self.publisher.get_subscription_count)
        path = Path(header=header(0, frame))
        path.poses = [pose_stamped_message(pose, header(stamp, frame)) for stamp, pose in poses.items()]
        self.publisher.publish(path)


def test_a_map_is_corrected_rests_is_saved_and_asked_later(processes, recording, tiny, tmp_path):
    where = f"map.path:={tmp_path / 'map'}"
    node = processes.start(
        "lerf_node",
        "autostart:=true",
        where,
        "map.save_on_shutdown:=true",
        "training.idle_steps:=20",
        "keyframe.translation:=0.5",
        *tiny,
        remap=True,
    )
    with LerfClient(timeout=TIMEOUT) as client, Slam() as slam:
        client.wait_for_status(lambda status: status.state == "active")
        camera = processes.start("camera_node", f"source:={recording}", "pace:=consumed", "rate:=100.0", "loop:=true")
        status = client.wait_for_status(
            lambda status: status.frames_received > 30 and status.message.startswith("idle")
        )
        assert status.pyramid_progress == 1 and status.steps >= 20
        camera.send_signal(signal.SIGINT)
        assert camera.wait(TIMEOUT) == 0, camera.log.read_text()
        steps = client.wait_for_status().steps

        poses = slam.poses(status.keyframes)
        slam.correct({stamp: pose @ moved(SHIFT) for stamp, pose in poses.items()}, frame="odom")
        slam.spin_until(lambda: "~/corrected_poses is not used: its poses are in frame 'odom'" in node.log.read_text())
        slam.correct({stamp: pose @ moved(SHIFT) for stamp, pose in list(poses.items())[:3]})
        slam.path = None
        for number, (stamp, pose) in enumerate(slam.poses(status.keyframes).items()):
            np.testing.assert_allclose(pose, poses[stamp] @ moved(SHIFT if number < 3 else 0 * SHIFT), atol=1e-9)
        woken = client.wait_for_status(lambda status: status.steps >= steps + 20)  # at the new places
        node.send_signal(signal.SIGINT)
        assert node.wait(TIMEOUT) == 0, node.log.read_text()
    said = node.log.read_text()
    assert "3 of" in said and "keyframes are moved, by 0.300 m" in said
    assert "is saved to" in said and "Traceback" not in said and (tmp_path / "map" / "map.json").is_file()

    answering = processes.start(
        "lerf_node", "autostart:=true", "training.enabled:=false", "map.load:=true", where, *tiny
    )
    with LerfClient(timeout=TIMEOUT) as client:
        status = client.wait_for_status(lambda status: status.state == "active")
        assert status.keyframes == len(poses) and "training.enabled is false" in status.message
        answer = client.query("a chair")
        assert answer.success or "the map is young" in answer.message
        assert client.wait_for_status().steps >= woken.steps  # of the map that was saved
        answering.send_signal(signal.SIGINT)
        assert answering.wait(TIMEOUT) == 0, answering.log.read_text()


def moved(shift):
    T = np.eye(4)
    T[:3, 3] = shift
    return T
