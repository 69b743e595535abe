import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lerf_ros.evaluation.frame_changes import every_nth, pose_noise, without_depth
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame

CAMERA = Camera(fx=4.0, fy=4.0, cx=1.5, cy=1.0, width=4, height=3)


@pytest.fixture
def frames():
    made = []
    for number in range(400):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("xyz", [0.5, 0.01 * number, 1.0]).as_matrix()
        T[:3, 3] = [0.1 * number, 2.0, -1.0]
        made.append(Frame(number, np.zeros((3, 4, 3), np.uint8), np.ones((3, 4), np.float32), CAMERA, T))
    return made


def noise(frames, changed):
    """What was put between: rotation vectors in degrees and translations in m, both in the camera's own frame."""
    between = [np.linalg.inv(a.T_world_camera) @ b.T_world_camera for a, b in zip(frames, changed, strict=True)]
    turns = Rotation.from_matrix([N[:3, :3] for N in between]).as_rotvec(degrees=True)
    return turns, np.array([N[:3, 3] for N in between])


def test_without_depth_only_depth_goes(frames):
    changed = without_depth(frames, np.random.default_rng(0))
    assert all(frame.depth_z is None for frame in changed) and frames[0].depth_z is not None
    assert changed[7].stamp_ns == 7 and np.array_equal(changed[7].T_world_camera, frames[7].T_world_camera)


def test_pose_noise_has_its_size_in_the_cameras_own_frame(frames):
    turns, moves = noise(frames, pose_noise(0.03, 2.0)(frames, np.random.default_rng(1)))
    np.testing.assert_allclose(moves.std(axis=0), 0.03, rtol=0.12)
    np.testing.assert_allclose(turns.std(axis=0), 2.0, rtol=0.12)
    assert np.abs(moves.mean(axis=0)).max() < 0.005 and np.abs(turns.mean(axis=0)).max() < 0.35
    assert abs(np.corrcoef(moves[1:, 0], moves[:-1, 0])[0, 1]) < 0.15  # each frame by itself


def test_only_what_is_asked_for_is_noisy(frames):
    turns, moves = noise(frames, pose_noise(metres=0.01)(frames, np.random.default_rng(1)))
    np.testing.assert_allclose(turns, 0.0, atol=1e-9)
    assert np.linalg.norm(moves, axis=1).min() > 0
    turns, moves = noise(frames, pose_noise(degrees=1.0)(frames, np.random.default_rng(1)))
    np.testing.assert_allclose(moves, 0.0, atol=1e-9)


def test_the_same_seed_gives_the_same_noise_at_every_size(frames):
    def draw(change):
        return noise(frames, change(frames, np.random.default_rng(3)))

    (turns, moves), (turns_3, moves_3) = draw(pose_noise(0.01, 1.0)), draw(pose_noise(0.03, 3.0))
    np.testing.assert_allclose(moves_3, 3 * moves, atol=1e-9)
    np.testing.assert_allclose(turns_3, 3 * turns, atol=1e-6)


def test_every_nth(frames):
    assert [frame.stamp_ns for frame in every_nth(150)(frames, np.random.default_rng(0))] == [0, 150, 300]


def test_changes_are_told_apart_by_their_names():
    changes = pose_noise(0.01), pose_noise(0.03), pose_noise(degrees=1.0), every_nth(2), without_depth
    assert len({change.__qualname__ for change in changes}) == len(changes)
