import numpy as np
import pytest

from lerf_ros.keyframes.epipolar import perturbed, refine_relative_pose, segment_distances, segment_errors
from test.keyframes.conftest import moved, pose_errors

PRIOR = np.repeat([0.04, 0.04], 3)
NOISE = 0.3 / 500.0


def correspondences(T_b_a, count=150, seed=0):
    """Bearings (count, 3) of the same points in both images."""
    rng = np.random.default_rng(seed)
    x_a = rng.uniform([-1, -0.8, 1.5], [1, 0.8, 3.5], (count, 3))
    x_b = x_a @ T_b_a[:3, :3].T + T_b_a[:3, 3]
    noise = rng.normal(0, NOISE / 2, (2, count, 3)) * [1, 1, 0]
    return x_a / x_a[:, 2:] + noise[0], x_b / x_b[:, 2:] + noise[1]


@pytest.fixture
def T_b_a():
    return moved(np.eye(4), [0.2, 0.02, -0.05], [0.03, -0.1, 0.05])


def test_correct_correspondences_lie_on_their_segments(T_b_a):
    assert segment_distances(T_b_a, *correspondences(T_b_a)).max() < 5 * NOISE


def test_points_behind_and_too_near_are_off_their_segments(T_b_a):
    p_a = np.array([[0.0, 0.0, 1.0]])
    for depth, on in ((2.0, True), (-2.0, False), (0.05, False)):
        x_b = depth * (T_b_a[:3, :3] @ p_a[0]) + T_b_a[:3, 3]
        assert (segment_distances(T_b_a, p_a, x_b[None] / x_b[2])[0] < 1e-9) == on


@pytest.mark.parametrize("baseline", [1.0, 0.0])
def test_jacobians_of_segment_errors_are_finite_differences(T_b_a, baseline):
    p_a, p_b = correspondences(T_b_a)
    T = perturbed(T_b_a, np.array([0.01, -0.02, 0.01, 0.01, 0.0, -0.01]))
    T[:3, 3] *= baseline
    errors, h = segment_errors(T, p_a, p_b), 1e-6
    across, along = errors.offset.T
    for k in range(3 if baseline == 0.0 else 0, 6):
        step = h * np.eye(6)[k]
        plus, minus = (segment_distances(perturbed(T, s), p_a, p_b) for s in (step, -step))
        # The length of the offset does not depend on the choice of axes.
        length = np.hypot(across, along)
        expected = (errors.jacobian[..., k] * errors.offset).sum(axis=1) / length
        clear = length > 1e-3
        assert clear.sum() > 20
        np.testing.assert_allclose(expected[clear], ((plus - minus) / (2 * h))[clear], atol=0.02)


def test_a_relative_pose_is_found_among_wrong_correspondences(T_b_a):
    p_a, p_b = correspondences(T_b_a)
    p_b[:60] = p_b[np.random.default_rng(1).permutation(60)]
    given = perturbed(T_b_a, np.array([0.03, -0.02, 0.02, 0.03, -0.03, 0.02]))
    refined = refine_relative_pose(given, PRIOR, p_a, p_b, np.full(len(p_a), NOISE**2))
    _, angle = pose_errors(refined.T_b_a[None], T_b_a[None])
    assert angle[0] < 0.2


def test_a_camera_that_only_turns_keeps_the_baseline_of_the_given_pose():
    truth = moved(np.eye(4), [0.0, 0.0, 0.0], [0.02, 0.2, 0.0])
    p_a, p_b = correspondences(truth)
    given = perturbed(truth, np.array([0.0, 0.0, 0.0, 0.02, -0.02, 0.02]))
    refined = refine_relative_pose(given, PRIOR, p_a, p_b, np.full(len(p_a), NOISE**2))
    shift, angle = pose_errors(refined.T_b_a[None], truth[None])
    assert angle[0] < 0.1 and shift[0] < 0.02
