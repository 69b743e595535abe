"""Keyframes on topics: where they are, what they see, and when that is published."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from nav_msgs.msg import Path  # noqa: E402
from rclpy.callback_groups import ReentrantCallbackGroup  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.mapping.keyframes import KeyframePoses  # noqa: E402
from lerf_ros.ros import messages as m  # noqa: E402
from lerf_ros.ros.conversions import header, matrix_from_pose, stamp_to_ns  # noqa: E402
from lerf_ros.ros.keyframe_topics import KeyframeTopics  # noqa: E402

pytestmark = pytest.mark.ros
CAMERA = Camera(fx=50.0, fy=60.0, cx=30.0, cy=25.0, width=64, height=48)
STAMPED = header(5, "map")


def keyframes(count):
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=0).as_matrix()
    T[:, :3, 3] = np.random.default_rng(0).normal(size=(count, 3))
    return KeyframePoses(np.arange(count) * 1_500_000_000, T, CAMERA)


def test_a_path_has_the_pose_and_stamp_of_every_keyframe():
    given = keyframes(3)
    path = m.keyframe_path(given, STAMPED)
    assert path.header == STAMPED and [stamp_to_ns(p.header.stamp) for p in path.poses] == given.stamps_ns.tolist()
    assert {p.header.frame_id for p in path.poses} == {"map"}
    np.testing.assert_allclose([matrix_from_pose(p.pose) for p in path.poses], given.T_world_camera, atol=1e-12)
    assert m.keyframe_path(None, STAMPED).poses == []


def test_corners_of_a_frustum_are_seen_in_the_corners_of_the_image():
    given = keyframes(2)
    lines = m.frusta_markers(given, STAMPED).markers[1]
    assert lines.type == Marker.LINE_LIST and lines.header == STAMPED and len(lines.points) == 2 * 8 * 2
    points = np.array([(p.x, p.y, p.z) for p in lines.points]).reshape(2, 16, 3)
    matrix = np.array([[50.0, 0, 30.0], [0, 60.0, 25.0], [0, 0, 1]])
    for T, ends in zip(given.T_world_camera, points, strict=True):
        T_camera_world = np.linalg.inv(T)
        rim = ends[8:]  # the last four lines
        assert (np.linalg.norm(ends[:8:2] - T[:3, 3], axis=1) < 1e-9).all()  # the first four begin at the camera
        turn = cv2.Rodrigues(T_camera_world[:3, :3])[0]
        uv = cv2.projectPoints(rim, turn, T_camera_world[:3, 3], matrix, None)[0][:, 0]
        np.testing.assert_allclose(uv[::2], [[-0.5, -0.5], [63.5, -0.5], [63.5, 47.5], [-0.5, 47.5]], atol=1e-6)


def test_many_frusta_are_thinned_and_none_are_wiped():
    markers = m.frusta_markers(keyframes(1100), STAMPED).markers
    assert len(markers[1].points) == 16 * 367  # every third
    assert [marker.action for marker in m.frusta_markers(None, STAMPED).markers] == [Marker.DELETEALL]


def test_keyframes_are_published_for_who_listens_and_when_they_have_changed(domain):
    context = rclpy.Context()
    context.init()
    node, peer = (rclpy.create_node(name, context=context) for name in ("lerf", "peer"))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    executor.add_node(peer)
    present, paths, frusta, made = keyframes(2), [], [], []
    settings = {"qos.keyframes.reliability": "reliable", "qos.keyframes.depth": 1}
    topics = KeyframeTopics(
        node, settings, ReentrantCallbackGroup(), lambda: present, lambda: made.append(1) or STAMPED
    )
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

    def spin_until(condition):
        for _ in range(2000):
            if condition():
                return
            executor.spin_once(timeout_sec=0.05)
        raise AssertionError("waited too long")

    topics._publish()
    assert made == []  # nobody listens
    peer.create_subscription(Path, "/lerf/keyframes", paths.append, latched)
    spin_until(lambda: paths)
    assert len(paths[0].poses) == 2
    peer.create_subscription(MarkerArray, "/lerf/keyframes/frusta", frusta.append, latched)
    spin_until(lambda: frusta)
    topics._publish()
    assert len(made) == 2  # one message each
    present = keyframes(3)
    spin_until(lambda: len(paths) == 2 and len(frusta) == 2)
    late = []
    peer.create_subscription(Path, "/lerf/keyframes", late.append, latched)
    spin_until(lambda: late)
    assert len(late[0].poses) == 3
    for each in (node, peer):
        each.destroy_node()
    executor.shutdown()
    context.try_shutdown()
