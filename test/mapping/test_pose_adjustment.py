"""Poses that are adjusted in the background."""

import gc
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from lerf_ros.keyframes.bundle_adjustment import BundleAdjustment
from lerf_ros.mapping.config import RefinementConfig
from lerf_ros.mapping.corrections import Trajectory
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.pose_adjustment import PoseAdjustment
from lerf_ros.world.room import Room
from test.keyframes.conftest import pose_errors, rigidly_aligned, with_noise

TIMEOUT = 20.0
REFINED = {
    "refinement.enabled": True,
    "keyframe.translation": 0.06,
    "keyframe.rotation": 0.08,
    "keyframe.blur_ratio": 0.0,
}


@pytest.fixture(scope="module")
def measured():
    room = Room(12003, width=320, height=240, frames=80)
    return [room[i] for i in range(0, 36, 3)]


@pytest.fixture(scope="module")
def frames(measured):
    """Of a room, with true poses and without depth."""
    return [replace(frame, depth_z=None) for frame in measured]


@pytest.fixture(scope="module")
def room_depths(measured):
    """Measured depths of each frame, m."""
    return [frame.depth_z[np.isfinite(frame.depth_z)] for frame in measured]


@pytest.fixture(scope="module")
def noisy(frames):
    poses = with_noise(np.stack([frame.T_world_camera for frame in frames]), 0.0115, 0.577)
    return [replace(frame, T_world_camera=pose) for frame, pose in zip(frames, poses, strict=True)]


@pytest.fixture
def adjustments():
    """Makes a store with frames as its keyframes, and its adjustment; ends what it has made."""
    made = []

    def make(box, frames, capacity=16, **settings):
        config = box.config.override({"keyframe.capacity": capacity})
        store = KeyframeStore(config, frames[0].camera, 0, "cpu")
        adjustment = PoseAdjustment(RefinementConfig(**settings), store)
        for frame in frames:
            adjustment.add_keyframe(store.insert(frame)[0])
        made.append(adjustment)
        return store, adjustment

    yield make
    for adjustment in made:
        adjustment.close()


def mapped(box, frames, settings=()):
    mapper = Mapper(box.config.override({**REFINED, **dict(settings)}), None, 0, "cpu", seed=0)
    for frame in frames:
        assert mapper.add_frame(frame).accepted
    return mapper


def errors(store, frames):
    """Medians, m and degrees, after an alignment of all poses."""
    truth = np.stack([frame.T_world_camera for frame in frames])
    return np.median(pose_errors(rigidly_aligned(store.host_poses, truth), truth), axis=1)


def adjustment_threads():
    return [thread for thread in threading.enumerate() if thread.name == "lerf_pose_adjustment"]


def wait_until(condition):
    ends = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_true_poses_stay_as_they_are_bit_for_bit(box, frames):
    mapper = mapped(box, frames)
    version = mapper.keyframes_version
    mapper.refine_poses(wait=True)
    np.testing.assert_array_equal(mapper.store.host_poses, np.stack([frame.T_world_camera for frame in frames]))
    assert mapper.keyframes_version == version and mapper.store.refined == 0 and not mapper.is_refining


def test_poses_that_err_are_refined_and_all_that_came_from_them(box, frames, noisy, caplog, monkeypatch, tmp_path):
    mapper = mapped(box, noisy)
    store, version, given = mapper.store, mapper.keyframes_version, mapper.store.host_poses.copy()
    rematched = []
    monkeypatch.setattr(mapper.stereo, "move", rematched.extend)
    mapper.stereo.add_between(frames[0])
    for _ in range(5):
        mapper.step()
    assert mapper.is_refining and store.steps_since_news == 5
    before = errors(store, frames)
    with caplog.at_level("INFO"):
        mapper.refine_poses(wait=True)
    after = errors(store, frames)
    assert (after < 0.6 * before).all()
    assert f"poses of {store.refined} of 12 keyframes refined" in caplog.text and store.refined > 8
    np.testing.assert_array_equal(store.given_poses, given)
    np.testing.assert_array_equal(store.poses[:12].numpy(), store.host_poses)
    assert not mapper.stereo._known[16:].any()  # frames whose poses were not refined
    assert len(rematched) == store.refined and mapper.keyframes_version > version
    assert store.steps_since_news == 0 and int(store.recent_count) > 8  # they are trained on like new ones

    mapper.save(tmp_path / "map")
    loaded = Mapper(box.config, None, 0, "cpu")
    loaded.load(tmp_path / "map")
    refined = store.host_poses.copy()
    loaded.refine_poses(wait=True)  # starts where the other one ended
    np.testing.assert_array_equal(loaded.store.given_poses, given)
    shift, angle = pose_errors(loaded.store.host_poses, refined)
    assert np.median(shift) < 2e-3 and np.median(angle) < 0.1

    stamps = np.array(store.stamps_ns[:12])
    assert mapper.correct(Trajectory(stamps, given, 0.0, 0.0)).moved == 0  # it says nothing new
    np.testing.assert_array_equal(store.host_poses, refined)
    closed = given.copy()
    closed[:, 0, 3] += 0.2
    assert mapper.correct(Trajectory(stamps, closed, 0.0, 0.0)).moved == 12
    assert mapper.is_refining
    mapper.refine_poses(wait=True)
    np.testing.assert_array_equal(store.given_poses, closed)
    assert np.median(pose_errors(store.host_poses, refined)[1]) < 0.1 and errors(store, frames)[0] < 0.6 * before[0]


def test_given_poses_come_back_where_more_keyframes_show_no_errors(box, frames, room_depths, adjustments):
    store, adjustment = adjustments(box, frames)
    moved = with_noise(store.host_poses, 0.01, 0.3)
    store.refine(range(12), moved)  # as an adjustment of fewer keyframes might have done
    update = adjustment.update(wait=True)
    true_depths = [float(np.median(room_depths[slot])) for slot in update.depths]
    np.testing.assert_allclose(list(update.depths.values()), true_depths, rtol=1.0)  # corners are elsewhere
    assert update.refined == 0 and len(update.moved) == 12 and "given ones again" in str(update)
    np.testing.assert_array_equal(store.host_poses, store.given_poses)


def test_results_do_not_count_for_other_keyframes_or_other_given_poses(box, frames, noisy, adjustments):
    store, adjustment = adjustments(box, noisy, capacity=12)
    while adjustment._waiting:
        adjustment.update()
    adjustment._thread.wait()  # the result waits to be taken
    slot, _ = store.insert(frames[5])
    adjustment.add_keyframe(slot)
    other = (slot + 3) % 12
    corrected = store.host_poses[other].copy()
    corrected[0, 3] += 0.1
    store.move([other], corrected[None])
    adjustment.move([other])
    update = adjustment.update()
    assert len(update.moved) > 6 and not {slot, other} & set(update.moved)
    np.testing.assert_array_equal(store.host_poses[slot], frames[5].T_world_camera)
    np.testing.assert_array_equal(store.host_poses[other], corrected)


def test_an_adjustment_runs_after_so_many_keyframes_without_being_waited_for(box, noisy, adjustments):
    store, adjustment = adjustments(box, noisy[:11], every_keyframes=10, time_share=1.0)
    wait_until(lambda: adjustment.update() is not None)
    assert store.refined > 5 and adjustment.is_busy  # the eleventh
    store, adjustment = adjustments(box, noisy[:9], every_keyframes=10, time_share=1.0)
    while adjustment._waiting:
        adjustment.update()
    wait_until(lambda: not adjustment._thread._bundle.pending and adjustment._thread._is_idle)
    assert adjustment.update() is None and adjustment.is_busy


def test_few_images_wait_for_the_thread(box, noisy, adjustments, monkeypatch):
    gate = threading.Event()
    add = BundleAdjustment.add
    monkeypatch.setattr(BundleAdjustment, "add", lambda *args: gate.wait(TIMEOUT) and add(*args))
    _, adjustment = adjustments(box, noisy)
    for _ in range(5):
        adjustment.update()
    assert len(adjustment._thread._tasks) <= 2 and len(adjustment._waiting) >= 9
    gate.set()
    assert adjustment.update(wait=True) is not None and not adjustment._waiting


def test_the_thread_ends_with_its_map(box, noisy):
    gc.collect()
    there = adjustment_threads()
    mapper = mapped(box, noisy[:6])
    assert adjustment_threads() == there  # nobody has asked for poses to be refined
    mapper.refine_poses()
    (thread,) = set(adjustment_threads()) - set(there)
    del mapper
    gc.collect()
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_python_ends_while_the_thread_is_busy():
    program = """
import numpy as np
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import PRESETS, RefinementConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.pose_adjustment import PoseAdjustment

camera = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
store = KeyframeStore(PRESETS["cpu"], camera, 0, "cpu")
adjustment = PoseAdjustment(RefinementConfig(time_share=1.0), store)
for i in range(8):
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    adjustment.add_keyframe(store.insert(Frame(i, image, None, camera, np.eye(4)))[0])
adjustment.update()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_errors_are_counted_and_harm_nobody(box, noisy, adjustments, monkeypatch, caplog):
    match_next = BundleAdjustment.match_next
    failed = []

    def fails_twice(bundle):
        more = match_next(bundle)
        if len(failed) < 2:
            failed.append(bundle)
            raise RuntimeError("by chance")
        return more

    monkeypatch.setattr(BundleAdjustment, "match_next", fails_twice)
    store, adjustment = adjustments(box, noisy)
    assert adjustment.update(wait=True) is not None and adjustment.errors == 2
    assert "by chance" in caplog.text

    monkeypatch.setattr(BundleAdjustment, "add", lambda *args: 1 / 0)
    store, adjustment = adjustments(box, noisy)
    assert adjustment.update(wait=True) is None and adjustment.errors == 10 and not adjustment.is_busy
    adjustment.add_keyframe(0)
    assert adjustment.update(wait=True) is None  # it has given up
    np.testing.assert_array_equal(store.host_poses, store.given_poses)


@pytest.mark.parametrize(
    "settings", [{"refinement.enabled": False}, {"refinement.rotation": 0.0}, {"scene.units": "scene units"}]
)
def test_poses_are_left_alone_where_that_is_wanted_or_they_have_no_scale(box, noisy, settings):
    mapper = mapped(box, noisy, settings.items())
    mapper.refine_poses(wait=True)
    assert mapper.store.refined == 0 and not mapper.is_refining
