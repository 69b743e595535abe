"""The camera node in this process: what it publishes of a nerfstudio folder, with depth and without."""

from __future__ import annotations

import json
import sys
import time

import cv2
import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.camera_node import CameraNode  # noqa: E402
from lerf_ros.world.nerfstudio import NerfstudioFolder  # noqa: E402

pytestmark = pytest.mark.ros
KINDS = {"camera_info": CameraInfo, "pose": PoseStamped, "depth": Image, "image": Image}
TIMEOUT = 30.0  # s


@pytest.fixture
def folder(tmp_path):
    """Five frames with barrel distortion, one scene unit apart."""
    listed = []
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((48, 64, 3), 40 * i + 10, np.uint8))
        cv2.imwrite(str(tmp_path / f"{i}_depth.png"), np.full((48, 64), 1500, np.uint16))
        pose = np.diag([1.0, -1.0, -1.0, 1.0])  # OpenGL axes: this camera looks along the scene's z
        pose[0, 3] = i
        listed.append({"file_path": f"{i}.png", "transform_matrix": pose.tolist()})
    meta = {"camera_model": "OPENCV", "k1": -0.1, "fl_x": 50.0, "fl_y": 51.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    (tmp_path / "transforms.json").write_text(json.dumps(meta | {"frames": listed}))
    return tmp_path


def published(monkeypatch, count, *parameters):
    """(name -> messages, names of the topics) once `count` images were published."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("ROS_DOMAIN_ID", "87")
    arguments = [part for parameter in ("rate:=100.0", *parameters) for part in ("-p", parameter)]
    rclpy.init(args=["--ros-args", "-r", "/camera/tf:=/tf", *arguments])
    camera, listener = CameraNode(), rclpy.create_node("listener")
    executor = SingleThreadedExecutor()
    executor.add_node(camera)
    executor.add_node(listener)
    heard = {name: [] for name in KINDS}
    for name, kind in KINDS.items():
        listener.create_subscription(kind, f"/camera/{name}", heard[name].append, 10)
    until = time.monotonic() + TIMEOUT
    wanted = [name for name in KINDS if name != "depth"]
    while any(len(heard[name]) < count for name in wanted) and time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
    topics = {name for name, _ in camera.get_publisher_names_and_types_by_node("camera", "/")}
    executor.shutdown()
    camera.destroy_node()
    listener.destroy_node()
    rclpy.shutdown()
    return heard, topics


def test_a_folder_without_depth_has_no_depth_topic(monkeypatch, folder):
    heard, topics = published(monkeypatch, 3, f"source:={folder}", "world_scale:=2.0", "holdout:=4")
    assert not heard["depth"] and "/camera/depth" not in topics and "/camera/image" in topics
    source = NerfstudioFolder(folder, world_scale=2.0)
    for i, frame in enumerate(source[n] for n in (1, 2, 3)):  # 0 and 4 are kept back
        info = heard["camera_info"][i]
        K = [[frame.camera.fx, 0, frame.camera.cx], [0, frame.camera.fy, frame.camera.cy], [0, 0, 1]]
        np.testing.assert_allclose(np.reshape(info.k, (3, 3)), K)
        assert (info.width, info.height) == (64, 48) and not np.any(info.d)
        assert info.k[0] != 50.0  # the lens is straightened
        x = heard["pose"][i].pose.position.x
        assert x == pytest.approx(2.0 * (i + 1))
        np.testing.assert_array_equal(c.rgb_from_image(heard["image"][i]), frame.image)


def test_a_folder_with_depth(monkeypatch, folder):
    meta = json.loads((folder / "transforms.json").read_text())
    for i, frame in enumerate(meta["frames"]):
        frame["depth_file_path"] = f"{i}_depth.png"
    (folder / "transforms.json").write_text(json.dumps(meta))
    heard, topics = published(monkeypatch, 2, f"source:={folder}")
    assert "/camera/depth" in topics
    np.testing.assert_allclose(c.metres_from_depth(heard["depth"][0]), 1.5)
    _, without = published(monkeypatch, 2, f"source:={folder}", "depth_encoding:=none")
    assert "/camera/depth" not in without


def test_the_pose_is_a_transform_as_well(monkeypatch, folder):
    pytest.importorskip("tf2_ros", reason="tf2_ros is not in the ROS 2 wheels; every ROS 2 machine has it")
    from tf2_msgs.msg import TFMessage

    monkeypatch.setitem(KINDS, "tf", TFMessage)
    heard, _ = published(monkeypatch, 3, f"source:={folder}", "tf:=true", "map_frame:=world")
    for pose, message in zip(heard["pose"][:3], heard["tf"][:3], strict=True):
        (transform,) = message.transforms
        assert transform.header == pose.header and transform.header.frame_id == "world"
        assert transform.child_frame_id == heard["image"][0].header.frame_id
        assert transform.transform.rotation == pose.pose.orientation
        p, q = transform.transform.translation, pose.pose.position
        assert (p.x, p.y, p.z) == (q.x, q.y, q.z)


def test_without_tf2_a_transform_is_refused(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    rclpy.init(args=["--ros-args", "-p", f"source:={folder}", "-p", "tf:=true"])
    try:
        with pytest.raises(ValueError, match="parameter tf: TF needs tf2_ros"):
            CameraNode()
    finally:
        rclpy.shutdown()
