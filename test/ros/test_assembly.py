"""Matching by stamp; every reason to drop an image is provoked and counted."""

from __future__ import annotations

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from scipy.spatial.transform import Rotation  # noqa: E402

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros.assembly import AssemblyOptions, FrameAssembler, StampedQueue  # noqa: E402
from lerf_ros.ros.drops import DropCounter, DropReason  # noqa: E402

pytestmark = pytest.mark.ros
CAMERA = Camera(10.0, 10.0, 3.5, 2.5, 8, 6)
MS = 1_000_000
T0 = 100_000 * MS


class Rig:
    """An assembler with a clock of its own and shorthand for messages; stamps in ms after T0."""

    def __init__(self, depth_published=False, **options):
        self.drops = DropCounter()
        self.frames = []
        self.now = 0.0
        self.assembler = FrameAssembler(
            AssemblyOptions(**options), self.drops, self.frames.append, lambda: depth_published
        )

    def image(self, ms=0.0, **fields):
        message = c.image_message(np.full((6, 8, 3), 9, np.uint8), c.header(T0 + int(ms * MS), "camera"))
        for name, value in fields.items():
            setattr(message, name, value)
        self.assembler.add_image(message, self.now)

    def info(self, ms=0.0, camera=CAMERA, **fields):
        message = c.camera_info_message(camera, c.header(T0 + int(ms * MS), "camera"))
        for name, value in fields.items():
            setattr(message, name, value)
        self.assembler.add_camera_info(message, self.now)

    def depth(self, ms=0.0, size=(6, 8), encoding="32FC1"):
        message = c.depth_message(np.full(size, 2.0, np.float32), c.header(T0 + int(ms * MS), "camera"))
        message.encoding = encoding
        self.assembler.add_depth(message, self.now)

    def pose(self, ms=0.0, x=0.0, frame_id="map", quaternion=(0.0, 0.0, 0.0, 1.0)):
        message = c.pose_stamped_message(np.eye(4), c.header(T0 + int(ms * MS), frame_id))
        message.pose = c.pose_message((x, 0.0, 0.0), quaternion)
        self.assembler.add_pose(message, self.now)

    def wait(self, seconds=1.0):
        self.now += seconds
        self.assembler.poll(self.now)

    def only_drop(self) -> tuple[str, str]:
        assert not self.frames
        ((text, count),) = self.drops.snapshot()
        assert count == 1
        reason, _, detail = text.partition(": ")
        return reason, detail


@pytest.mark.parametrize("order", ["image info depth pose", "pose depth info image", "depth image pose info"])
def test_a_frame_is_delivered_when_its_last_part_arrives(order):
    rig = Rig(depth="required")
    for name in order.split():
        assert not rig.frames
        getattr(rig, name)()
    (frame,) = rig.frames
    assert frame.stamp_ns == T0 and frame.camera == CAMERA
    assert (frame.image == 9).all() and (frame.depth_z == 2.0).all()
    assert rig.drops.total() == 0


def test_pose_is_interpolated_between_its_neighbours():
    rig = Rig()
    rig.info()
    rig.pose(-30.0, x=1.0)
    rig.pose(+10.0, x=2.0, quaternion=tuple(Rotation.from_euler("z", 80, degrees=True).as_quat()))
    rig.image()
    (frame,) = rig.frames
    np.testing.assert_allclose(np.asarray(frame.T_world_camera)[:3, 3], (1.75, 0.0, 0.0))
    expected = Rotation.from_euler("z", 60, degrees=True).as_matrix()
    np.testing.assert_allclose(np.asarray(frame.T_world_camera)[:3, :3], expected, atol=1e-12)


def test_an_image_waits_for_the_pose_after_it():
    rig = Rig()
    rig.info()
    rig.pose(-10.0, x=1.0)
    rig.image()
    assert not rig.frames  # the pose before is near enough, but a better one may come
    rig.pose(+10.0, x=3.0)
    np.testing.assert_allclose(np.asarray(rig.frames[0].T_world_camera)[0, 3], 2.0)


def test_the_nearest_pose_serves_when_no_later_one_comes():
    rig = Rig()
    rig.info()
    rig.pose(-10.0, x=1.0)
    rig.image()
    rig.wait()
    np.testing.assert_allclose(np.asarray(rig.frames[0].T_world_camera)[0, 3], 1.0)


def test_poses_far_apart_are_not_interpolated():
    rig = Rig(pose_gap=0.1)
    rig.info()
    rig.pose(-100.0)
    rig.pose(+100.0)
    rig.image()
    rig.wait()
    reason, detail = rig.only_drop()
    assert reason == "no_pose" and "0.100 s from the image's stamp" in detail


def test_one_camera_info_serves_every_image():
    rig = Rig()
    rig.info(-5000.0)
    for ms in (0.0, 33.0, 66.0):
        rig.pose(ms)
        rig.image(ms)
    assert len(rig.frames) == 3


def test_the_first_optional_depth_is_waited_for_when_somebody_publishes_it():
    rig = Rig(depth_published=True)
    rig.info(), rig.pose(), rig.image()
    assert not rig.frames
    rig.depth()
    assert rig.frames[0].depth_z is not None


def test_optional_depth_that_nobody_publishes_is_not_waited_for():
    rig = Rig()
    rig.info(), rig.pose(), rig.image()
    assert rig.frames[0].depth_z is None


def test_optional_depth_that_fails_once_is_waited_for_and_then_done_without():
    rig = Rig()
    rig.info(), rig.depth(), rig.pose(), rig.image()
    rig.pose(100.0), rig.image(100.0)
    assert len(rig.frames) == 1
    rig.wait()
    assert rig.frames[1].depth_z is None
    assert rig.assembler.frames_without_depth == 1 and rig.drops.total() == 0


def test_depth_can_be_ignored():
    rig = Rig(depth="off")
    rig.info(), rig.depth(), rig.pose(), rig.image()
    assert rig.frames[0].depth_z is None


def test_images_stay_in_order_while_one_waits():
    rig = Rig()
    rig.info()
    rig.image(0.0)
    rig.pose(50.0), rig.image(50.0)
    assert not rig.frames
    rig.pose(0.0)
    assert [frame.stamp_ns - T0 for frame in rig.frames] == [0, 50 * MS]


def test_drop_no_camera_info():
    rig = Rig()
    rig.pose(), rig.image()
    assert rig.assembler.missing() == "~/camera_info"
    rig.wait()
    assert rig.only_drop() == ("no_camera_info", "nothing on ~/camera_info")


def test_drop_no_pose():
    rig = Rig()
    rig.info(), rig.image()
    assert rig.assembler.missing() == "~/pose"
    rig.wait()
    assert rig.only_drop() == ("no_pose", "nothing on ~/pose")


def test_drop_no_depth():
    rig = Rig(depth="required")
    rig.info(), rig.pose(), rig.image()
    assert rig.assembler.missing() == "~/depth"
    rig.wait()
    assert rig.only_drop()[0] == "no_depth"


def test_drop_unregistered_depth():
    rig = Rig()
    rig.info(), rig.pose(), rig.depth(size=(3, 4)), rig.image()
    detail = "4x3 vs image 8x6; set up registration (depth_image_proc/register)"
    assert rig.only_drop() == ("unregistered_depth", detail)


def test_drop_bad_depth():
    rig = Rig()
    rig.info(), rig.pose(), rig.depth(encoding="8UC3"), rig.image()
    assert rig.only_drop()[0] == "bad_depth"


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        ({"x": float("nan")}, "NaN"),
        ({"quaternion": (0.0, 0.0, 0.0, 0.0)}, "unit quaternion"),
        ({"frame_id": "odom"}, "'odom', the map is in 'map'"),
    ],
)
def test_drop_bad_pose(pose, words):
    rig = Rig()
    rig.info(), rig.pose(**pose), rig.image()
    reason, detail = rig.only_drop()
    assert reason == "bad_pose" and words in detail


def test_drop_pose_of_the_base_taken_for_the_camera():
    rig = Rig(child_frame="base_link")
    rig.info(), rig.pose(), rig.image()
    reason, detail = rig.only_drop()
    assert reason == "bad_pose" and "'base_link', images come from 'camera'" in detail


def test_a_bad_pose_spoils_only_the_images_that_need_it():
    rig = Rig()
    rig.info()
    rig.pose(0.0, x=float("nan")), rig.image(0.0)
    rig.pose(100.0), rig.image(100.0)
    assert len(rig.frames) == 1 and rig.drops.count(DropReason.BAD_POSE) == 1


@pytest.mark.parametrize(
    ("camera", "fields", "words"),
    [
        (CAMERA, {"k": [0.0] * 9}, "uncalibrated"),
        (CAMERA, {"d": [0.2, 0.0, 0.0, 0.0, 0.0]}, "rectify first"),
        (CAMERA.scaled(2.0), {}, "camera_info is for 16x12, the image is 8x6"),
    ],
)
def test_drop_bad_camera_info(camera, fields, words):
    rig = Rig()
    rig.info(camera=camera, **fields), rig.pose(), rig.image()
    reason, detail = rig.only_drop()
    assert reason == "bad_camera_info" and words in detail


@pytest.mark.parametrize(
    ("image", "words"), [({"encoding": "h264"}, "'h264' is not supported"), ({"height": 0}, "empty (8x0 pixels)")]
)
def test_drop_bad_image(image, words):
    rig = Rig()
    rig.info(), rig.pose(), rig.image(**image)
    reason, detail = rig.only_drop()
    assert reason == "bad_image" and words in detail


def test_drop_stale():
    rig = Rig()
    rig.info(), rig.pose(), rig.image(), rig.image()
    assert len(rig.frames) == 1 and rig.drops.count(DropReason.STALE) == 1


def test_a_recording_that_begins_again_is_followed():
    rig = Rig()
    rig.info()
    for ms in (0.0, 5000.0, 0.0, 5000.0):
        rig.pose(ms), rig.image(ms)
    assert [frame.stamp_ns - T0 for frame in rig.frames] == [0, 5000 * MS, 0, 5000 * MS]
    assert rig.drops.total() == 0


def test_queues_are_bounded():
    rig = Rig(queue=5)
    rig.info()
    for i in range(20):
        rig.image(i)
    assert rig.drops.count(DropReason.NO_POSE) == 15 and not rig.frames


def test_stamped_queue_orders_and_forgets_the_oldest():
    queue = StampedQueue(3)
    for stamp in (5, 1, 9, 7):
        queue.add(stamp, str(stamp))
    assert queue.nearest(0) == (5, "5") and queue.nearest(8) in ((7, "7"), (9, "9"))
    assert queue.around(7) == ((7, "7"), (9, "9")) and queue.around(9) is None and queue.around(4) is None
    queue.discard_after(5)
    assert len(queue) == 1
