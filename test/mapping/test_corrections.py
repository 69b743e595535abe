"""Poses that are corrected when they are in the map already."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from lerf_ros.mapping.corrections import Drift, Trajectory
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.training import rate_share

MS = 1_000_000  # ns


def poses(count, seed=0):
    rng = np.random.default_rng(seed)
    T = np.tile(np.eye(4), (count, 1, 1))
    T[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    T[:, :3, 3] = rng.normal(size=(count, 3))
    return T


def drifted(T, metres=0.1, degrees=5.0):
    """As by odometry that turned and slipped."""
    T = T.copy()
    T[:3, 3] += metres * np.array([0.8, 0.0, 0.6])
    T[:3, :3] = Rotation.from_rotvec([0.0, np.radians(degrees), 0.0]).as_matrix() @ T[:3, :3]
    return T


def test_a_trajectory_is_exact_or_interpolated_and_ends_where_it_ends():
    given, stamps = poses(3), np.array([100, 300, 900]) * MS
    trajectory = Trajectory(stamps[::-1], given[::-1], gap=0.25, tolerance=0.01)
    for stamp, pose in zip(stamps, given, strict=True):
        np.testing.assert_array_equal(trajectory.at(int(stamp)), pose)
    between = trajectory.at(150 * MS)
    turned = Slerp([100, 300], Rotation.from_matrix(given[:2, :3, :3]))(150).as_matrix()
    np.testing.assert_allclose(between[:3, :3], turned)
    np.testing.assert_allclose(between[:3, 3], 0.75 * given[0, :3, 3] + 0.25 * given[1, :3, 3])
    assert trajectory.at(600 * MS) is None  # the gap is too wide
    np.testing.assert_array_equal(trajectory.at(309 * MS), given[1])
    np.testing.assert_array_equal(trajectory.at(909 * MS), given[2])
    assert trajectory.at(911 * MS) is None and trajectory.at(89 * MS) is None
    assert Trajectory(np.empty(0, np.int64), np.empty((0, 4, 4)), 1.0, 1.0).at(0) is None


def test_of_two_poses_with_one_stamp_the_later_one_counts():
    given = poses(2)
    np.testing.assert_array_equal(Trajectory(np.array([7, 7]), given, 1.0, 0.0).at(7), given[1])


def erring(T, seconds):
    """Poses that err by up to 3 cm and 2 degrees, slowly."""
    T = T.copy()
    T[:, :3, 3] += 0.03 * np.stack([np.sin(seconds), np.cos(0.7 * seconds), np.sin(0.4 * seconds)], axis=1)
    turns = np.radians(2) * np.stack([np.cos(seconds), np.sin(0.5 * seconds), np.sin(0.8 * seconds)], axis=1)
    T[:, :3, :3] = Rotation.from_rotvec(turns).as_matrix() @ T[:, :3, :3]
    return T


def pose_errors(T, truth):
    """m and degrees, the largest."""
    turns = Rotation.from_matrix(T[:, :3, :3] @ truth[:, :3, :3].transpose(0, 2, 1)).magnitude()
    return np.linalg.norm(T[:, :3, 3] - truth[:, :3, 3], axis=1).max(), np.degrees(turns.max())


def test_errors_that_change_slowly_are_corrected_between_keyframes():
    truth, seconds = poses(101), 0.1 * np.arange(101)
    given, stamps = erring(truth, seconds), np.round(1e9 * seconds).astype(np.int64)
    order = np.random.default_rng(0).permutation(np.arange(0, 101, 2))  # keyframes, in any order
    drift = Drift(stamps[order], given[order], truth[order])
    others = np.arange(1, 101, 2)
    found = np.stack([drift.corrected(given[i], int(stamps[i])) for i in others])
    before, after = pose_errors(given[others], truth[others]), pose_errors(found, truth[others])
    assert drift.is_slow and before[0] > 0.03 and before[1] > 2.0
    assert after[0] < 0.001 and after[1] < 0.05
    last = drift.corrected(given[100], int(stamps[100] + 10**9))  # beyond the last one its error stays
    np.testing.assert_allclose(last, truth[100], atol=1e-9)


def test_errors_that_are_noise_correct_nothing_else():
    rng, truth, stamps = np.random.default_rng(0), poses(50), np.arange(50) * 100 * MS
    given = truth.copy()
    given[:, :3, 3] += 0.02 * rng.normal(size=(50, 3))
    given[:, :3, :3] = Rotation.from_rotvec(0.02 * rng.normal(size=(50, 3))).as_matrix() @ truth[:, :3, :3]
    drift = Drift(stamps, given, truth)
    assert not drift.is_slow and np.array_equal(drift.corrected(given[3], 350 * MS), given[3])


@pytest.mark.parametrize("count", [1, 2])
def test_a_few_keyframes_say_nothing_about_drift(count):
    truth, stamps = poses(count), np.arange(count)
    assert not Drift(stamps, erring(truth, np.arange(count)), truth).is_slow


def test_frames_come_to_where_the_refined_keyframes_around_them_are(box):
    frames = box.walk(10)
    truth = np.stack([frame.T_world_camera for frame in frames])
    given = erring(truth, 0.1 * np.arange(10))
    frames = [
        replace(frame, T_world_camera=T, stamp_ns=i * 100 * MS) for i, (frame, T) in enumerate(zip(frames, given))
    ]
    mapper = Mapper(box.config, box.camera, 0, "cpu")
    for frame in frames[:9]:
        assert mapper.add_frame(frame).accepted
    assert np.array_equal(mapper.corrected(given[9], 900 * MS), given[9])
    mapper.store.refine(range(9), truth[:9])
    mapper._adjustment = SimpleNamespace(update=lambda wait: SimpleNamespace(moved=(), depths={}, is_large=False))
    mapper.refine_poses()
    mapper._adjustment = None
    slot = mapper.add_frame(frames[9]).slot
    before, after = (pose_errors(T[None], truth[9:]) for T in (given[9], mapper.store.host_poses[slot]))
    assert after[0] < 0.2 * before[0] and after[1] < 0.2 * before[1]
    np.testing.assert_array_equal(mapper.store.given_poses[slot], given[9])
    np.testing.assert_array_equal(mapper.corrected(given[9], 900 * MS), mapper.store.host_poses[slot])


def test_a_store_whose_keyframes_were_moved_is_like_one_that_had_them_there(box):
    """Poses, distances, cells, and which keyframe is redundant."""
    frames = box.walk(8)
    config = box.config.override({"keyframe.unseen_voxel": 0.27})  # no wall lies between two cells
    wrong, right = (KeyframeStore(config, box.camera, 0, "cpu") for _ in range(2))
    for number, frame in enumerate(frames):
        right.insert(frame)
        wrong.insert(replace(frame, T_world_camera=drifted(frame.T_world_camera)) if number >= 4 else frame)
    assert not np.array_equal(wrong.seen, right.seen)
    wrong.move(range(4, 8), np.stack([frame.T_world_camera for frame in frames[4:]]))
    assert torch.equal(wrong.poses, right.poses) and np.array_equal(wrong.host_poses, right.host_poses)
    np.testing.assert_allclose(wrong._distances, right._distances)
    np.testing.assert_allclose(wrong.seen_points(), right.seen_points())
    # 16-bit depth may move a point across the border of a cell
    assert len(np.setxor1d(wrong.seen, right.seen)) < 0.05 * len(right.seen)
    assert wrong._most_redundant() == right._most_redundant()


def test_moved_keyframes_count_as_new_however_many(box):
    config = box.config.override({"replay.recent_keyframes": 2, "replay.recent_steps": 3})
    store = KeyframeStore(config, box.camera, 0, "cpu")
    for frame in box.walk(8):
        store.insert(frame)
    for _ in range(5):
        store.tick()
    assert int(store.recent_count) == 0 and store.steps_since_news == 5
    store.move([1, 2, 3, 5], store.host_poses[[1, 2, 3, 5]])
    store.tick()
    assert set(store.recent[: int(store.recent_count)].tolist()) == {1, 2, 3, 5} and store.steps_since_news == 1
    store.insert(box.frame(box.pose(0.1)))
    assert set(store.recent[: int(store.recent_count)].tolist()) == {1, 2, 3, 5, 8}
    store.tick()
    store.tick()
    assert store.recent[: int(store.recent_count)].tolist() == [8]


def stamped(box, count, wrong_from=None):
    """(frames of a walk, the trajectory of a loop closure): from one frame on, they have drifted."""
    frames = [replace(frame, stamp_ns=100 * MS * number) for number, frame in enumerate(box.walk(count))]
    truth = np.stack([frame.T_world_camera for frame in frames])
    trajectory = Trajectory(np.array([frame.stamp_ns for frame in frames]), truth, gap=0.25, tolerance=0.0)
    for number in range(count if wrong_from is None else wrong_from, count):
        frames[number] = replace(frames[number], T_world_camera=drifted(truth[number]))
    return frames, trajectory


def test_only_keyframes_that_were_wrong_are_moved_and_late_frames_follow(box):
    frames, trajectory = stamped(box, 10, wrong_from=5)
    mapper = Mapper(box.config, box.camera, 0, "cpu")
    assert mapper.correct(trajectory).keyframes == 0
    mapper = Mapper(box.config, box.camera, 0, "cpu")
    for frame in frames[:9]:
        mapper.add_frame(frame)
    version = mapper.keyframes_version
    early = Trajectory(np.array([500, 600]) * MS, poses(2), 0.0, 0.0)
    assert mapper.correct(early).matched == 2
    correction = mapper.correct(trajectory)
    assert (correction.keyframes, correction.matched, correction.moved) == (9, 9, 4)
    assert correction.translation > 0.1 and mapper.keyframes_version > version
    again = mapper.correct(trajectory)
    assert (again.matched, again.moved) == (9, 0)
    assert mapper.add_frame(frames[9]).accepted
    np.testing.assert_array_equal(mapper.store.host_poses[9], box.walk(10)[9].T_world_camera)


def test_learning_is_quicker_after_a_correction(box):
    frames, trajectory = stamped(box, 4, wrong_from=2)
    mapper = Mapper(box.config, box.camera, 0, "cpu")
    for frame in frames:
        mapper.add_frame(frame)
    mapper._trainer.steps = 100_000
    rates = []
    for _ in range(2):
        mapper.step()
        rates.append(float(mapper._trainer._rates[0][0]["lr"]))
        mapper.correct(trajectory)
    optimiser = box.config.optimiser
    assert rates == pytest.approx([optimiser.grid_rate * rate_share(n, optimiser) for n in (100_000, 2_000)])


def depth_error(box, mapper):
    """m, mean over views from places where no keyframe was."""
    held_out = [box.pose(yaw, 0.2 * np.cos(yaw), 0.1) for yaw in np.linspace(0.2, 6.4, 9)]
    errors = [np.abs(mapper.render(box.camera, T).depth_z.numpy() - box.view(T)[1]) for T in held_out]
    return float(np.mean(errors))


def test_a_map_heals_when_half_of_its_keyframes_were_wrong(box):
    """By 10 cm and 5 degrees; 150 steps later it is as good as one that was never wrong."""

    def trained(wrong_from=None, corrected=False):
        frames, trajectory = stamped(box, 12, wrong_from)
        mapper = Mapper(box.config, box.camera, 0, "cpu", seed=0)
        for frame in frames:
            mapper.add_frame(frame)
        for _ in range(150):
            mapper.step()
        if corrected:
            assert mapper.correct(trajectory).moved == 6
        for _ in range(150):
            mapper.step()
        return depth_error(box, mapper)

    right, wrong, healed = trained(), trained(wrong_from=6), trained(wrong_from=6, corrected=True)
    print(f"right {right:.4f} wrong {wrong:.4f} healed {healed:.4f} m")
    assert healed < 1.25 * right and healed < 0.5 * wrong
