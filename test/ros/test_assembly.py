"""Matching by stamp; every reason to drop an image is provoked and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from lerf_ros.geometry.camera import Camera  # noqa: E402
from lerf_ros.geometry.lens import Lens, Rectification  # noqa: E402
from lerf_ros.ros import conversions as c  # noqa: E402
from lerf_ros.ros import frame_builder  # noqa: E402
from lerf_ros.ros.assembly import AssemblyOptions, FrameAssembler  # noqa: E402
from lerf_ros.ros.drops import DropCounter, DroppedFrame, DropReason  # noqa: E402
from lerf_ros.ros.pose_sources import FixedMount, PoseOptions, PoseTopic  # noqa: E402

pytestmark = pytest.mark.ros
CAMERA = Camera(10.0, 10.0, 3.5, 2.5, 8, 6)
OTHER = Camera(12.0, 12.0, 3.5, 2.5, 8, 6)
MS = 1_000_000
T0 = 100_000 * MS


class Rig:
    """An assembler with a clock of its own and shorthand for messages; stamps in ms after T0."""

    def __init__(self, depth_published=False, pose=None, mount=None, **options):
        self.drops = DropCounter()
        self.frames = []
        self.now = 0.0
        self.poses = PoseTopic(pose or PoseOptions(), FixedMount(mount or c.CameraMount()))
        self.assembler = FrameAssembler(
            AssemblyOptions(**options), self.poses, self.drops, self.build, lambda: depth_published
        )

    def build(self, build):
        """At once, as a worker with nothing else to do."""
        try:
            self.frames.append(build())
        except DroppedFrame as drop:
            self.drops.add(drop.reason, str(drop))

    def image(self, ms=0.0, frame_id="camera", size=(6, 8), **fields):
        message = c.image_message(np.full((*size, 3), 9, np.uint8), c.header(T0 + int(ms * MS), frame_id))
        for name, value in fields.items():
            setattr(message, name, value)
        self.assembler.add_image(message, self.now)

    def info(self, ms=0.0, camera=CAMERA, **fields):
        message = c.camera_info_message(camera, c.header(T0 + int(ms * MS), "camera"))
        for name, value in fields.items():
            setattr(message, name, value)
        self.assembler.add_camera_info(message)

    def depth(self, ms=0.0, size=(6, 8), encoding="32FC1", frame_id="camera", metres=2.0):
        message = c.depth_message(np.full(size, metres, np.float32), c.header(T0 + int(ms * MS), frame_id))
        message.encoding = encoding
        self.assembler.add_depth(message)

    def pose(self, ms=0.0, x=0.0, frame_id="map", quaternion=(0.0, 0.0, 0.0, 1.0)):
        message = c.pose_stamped_message(np.eye(4), c.header(T0 + int(ms * MS), frame_id))
        message.pose = c.pose_message((x, 0.0, 0.0), quaternion)
        self.poses.add(message)
        self.assembler.advance()

    def wait(self, seconds=1.0):
        self.now += seconds
        self.assembler.poll(self.now)
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


def test_an_image_waits_for_the_pose_after_it():
    rig = Rig()
    rig.info()
    rig.pose(-10.0, x=1.0)
    rig.image()
    assert not rig.frames  # the pose before is near enough, but a better one may come
    rig.pose(+10.0, x=3.0)
    np.testing.assert_allclose(np.asarray(rig.frames[0].T_world_camera)[0, 3], 2.0)


def test_one_camera_info_serves_every_image():
    rig = Rig()
    rig.info(-5000.0)
    for ms in (0.0, 33.0, 66.0):
        rig.pose(ms)
        rig.image(ms)
    assert len(rig.frames) == 3


def test_a_calibration_holds_from_its_stamp_on():
    rig = Rig()
    rig.info(0.0, CAMERA)
    rig.info(100.0, OTHER)
    for ms in (50.0, 100.0, 150.0):
        rig.pose(ms)
        rig.image(ms)
    assert [frame.camera for frame in rig.frames] == [CAMERA, OTHER, OTHER]


def test_a_calibration_that_comes_after_its_image_is_waited_for_where_each_image_has_one():
    rig = Rig()
    for ms in (0.0, 33.0):
        rig.info(ms), rig.pose(ms), rig.image(ms)
    rig.pose(66.0), rig.image(66.0)
    assert len(rig.frames) == 2
    rig.info(66.0, OTHER)
    assert rig.frames[2].camera == OTHER
    rig.pose(99.0), rig.image(99.0)
    rig.wait()  # this one is lost: the last one serves
    assert rig.frames[3].camera == OTHER and rig.drops.total() == 0
    rig.pose(133.0), rig.image(133.0)  # they have ceased to come: nothing is waited for
    assert len(rig.frames) == 5


def test_a_change_of_resolution_in_mid_run():
    rig = Rig()
    rig.info(0.0), rig.pose(0.0), rig.image(0.0)
    rig.info(33.0, CAMERA.scaled(2.0)), rig.pose(33.0), rig.image(33.0, size=(12, 16))
    assert [frame.image.shape for frame in rig.frames] == [(6, 8, 3), (12, 16, 3)]
    assert rig.frames[1].camera == CAMERA.scaled(2.0) and rig.drops.total() == 0


def test_distortion_is_removed_and_its_tables_are_made_once_per_calibration(monkeypatch):
    made = []
    monkeypatch.setattr(frame_builder, "Rectification", lambda lens: made.append(lens) or Rectification(lens))
    rig = Rig()
    for ms, k1 in ((0.0, -0.1), (33.0, -0.1), (66.0, -0.05)):
        rig.info(ms, d=[k1, 0.0, 0.0, 0.0, 0.0])
        rig.depth(ms), rig.pose(ms), rig.image(ms)
    assert [lens.distortion[0] for lens in made] == [-0.1, -0.05]
    expected = Rectification(Lens(CAMERA, (-0.1, 0.0, 0.0, 0.0, 0.0))).camera
    assert rig.frames[0].camera == rig.frames[1].camera == expected != rig.frames[2].camera
    assert all(np.isfinite(frame.depth_z).all() for frame in rig.frames)


def test_equal_stamps_can_be_demanded_of_depth():
    rig = Rig(slop=0.0, depth="required")
    rig.info(), rig.pose(0.0), rig.image(0.0)
    rig.depth(0.001)
    assert not rig.frames
    rig.depth(0.0, metres=3.0)
    assert (rig.frames[0].depth_z == 3.0).all()


def test_depth_and_poses_may_come_late_and_out_of_order():
    rig = Rig(depth="required")
    rig.info()
    for ms in (0.0, 40.0, 80.0):
        rig.image(ms)
    for ms in (80.0, 0.0, 40.0):
        rig.pose(ms, x=ms)
    for ms in (40.0, 80.0, 0.0):
        rig.depth(ms, metres=1.0 + ms)
    assert [frame.stamp_ns - T0 for frame in rig.frames] == [0, 40 * MS, 80 * MS]
    assert [frame.depth_z[0, 0] - 1.0 for frame in rig.frames] == [0.0, 40.0, 80.0]
    assert [frame.T_world_camera[0, 3] for frame in rig.frames] == [0.0, 40.0, 80.0]


def test_depth_of_half_the_resolution_is_accepted():
    rig = Rig()
    rig.info(), rig.pose(), rig.depth(size=(3, 4)), rig.image()
    assert rig.frames[0].depth_z.shape == (6, 8) and (rig.frames[0].depth_z == 2.0).all()


def test_depth_of_another_frame_is_accepted_where_it_is_said_to_be_registered():
    rig = Rig(same_frame=False)
    rig.info(), rig.pose(), rig.depth(frame_id="depth_camera"), rig.image()
    assert rig.frames[0].depth_z is not None


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


def test_what_lies_in_the_middleware_at_the_deadline_is_not_too_late():
    """The callbacks were held up: the timer comes first, then the pose."""
    rig = Rig()
    rig.info(), rig.image()
    rig.now = 10.0
    rig.assembler.poll(rig.now)
    assert rig.drops.total() == 0
    rig.pose()
    assert len(rig.frames) == 1 and rig.drops.total() == 0


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
    assert rig.assembler.missing() == "poses"
    rig.wait()
    assert rig.only_drop() == ("no_pose", "nothing on ~/pose")


def test_drop_no_depth():
    rig = Rig(depth="required")
    rig.info(), rig.pose(), rig.image()
    assert rig.assembler.missing() == "~/depth"
    rig.wait()
    assert rig.only_drop()[0] == "no_depth"


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        ({"size": (3, 5)}, "5x3 vs image 8x6; set up registration (depth_image_proc/register)"),
        ({"frame_id": "depth_camera"}, "depth is in frame 'depth_camera', the image in 'camera'; set up registration"),
    ],
)
def test_drop_unregistered_depth(depth, words):
    rig = Rig()
    rig.info(), rig.pose(), rig.depth(**depth), rig.image()
    reason, detail = rig.only_drop()
    assert reason == "unregistered_depth" and words in detail


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
    rig = Rig(pose=PoseOptions(child_frame="base_link"))
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
        (CAMERA, {"d": [0.2], "distortion_model": "unheard_of"}, "'unheard_of' is not supported"),
        (CAMERA, {"d": [-5.0, 0.0, 0.0, 0.0]}, "fold the picture"),
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
    """In each round poses come first and fill their queue."""
    rig = Rig(pose=PoseOptions(queue=3), queue=3, depth="required")
    for _ in range(3):
        for ms in (0.0, 1000.0, 2000.0, 5000.0):
            for name in ("pose", "info", "depth", "image"):
                getattr(rig, name)(ms)
    assert [frame.stamp_ns - T0 for frame in rig.frames] == [ms * MS for ms in (0, 1000, 2000, 5000)] * 3
    assert rig.drops.total() == 0


def test_images_that_wait_when_time_jumps_back_are_counted_and_do_not_hold_up_the_others():
    rig = Rig()
    rig.info(5000.0)
    rig.image(5000.0), rig.image(5033.0)
    rig.pose(0.0), rig.image(0.0)
    assert [frame.stamp_ns - T0 for frame in rig.frames] == [0]  # of the only calibration, though it is of the future
    assert rig.drops.snapshot() == [("stale: time jumped back while the image waited", 2)]


def test_one_image_far_in_the_future_does_not_stop_the_stream():
    rig = Rig()
    rig.info(0.0)
    for ms in (0.0, 1e7, 33.0, 66.0):
        rig.pose(ms), rig.image(ms)
    assert len(rig.frames) == 4


def test_queues_are_bounded():
    rig = Rig(queue=5)
    rig.info()
    for i in range(20):
        rig.image(i)
    assert rig.drops.count(DropReason.NO_POSE) == 15 and not rig.frames


def test_what_waits_for_the_worker_is_not_built():
    """Decoding begins when the frame is taken: this one is damaged, and nobody has noticed yet."""
    rig, delivered = Rig(), []
    rig.assembler._deliver = delivered.append
    rig.info(), rig.pose(), rig.image(encoding="h264")
    assert rig.drops.total() == 0
    with pytest.raises(DroppedFrame, match="h264"):
        delivered[0]()


def test_every_reason_is_provoked():
    """Here, or in test_worker.py where the worker counts it."""
    provoked = (Path(__file__).read_text() + (Path(__file__).parent / "test_worker.py").read_text()).lower()
    assert not [reason.value for reason in DropReason if provoked.count(reason.value) == 0]
