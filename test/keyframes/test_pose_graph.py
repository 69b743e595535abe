import numpy as np

from lerf_ros.keyframes.pose_graph import RelativeConstraint, optimise_pose_graph
from test.keyframes.conftest import moved, pose_errors, rigidly_aligned, with_noise

INFORMATION = np.diag(np.repeat([0.002, 0.001], 3) ** -2.0)


def test_poses_agree_with_the_constraints_and_a_contradicting_one_is_found():
    truth = np.stack([moved(np.eye(4), [0.2 * i, 0.0, 0.0], [0.0, 0.1 * i, 0.0]) for i in range(10)])
    given = with_noise(truth, 0.02, 1.0)
    pairs = [(a, b) for b in range(10) for a in range(max(0, b - 3), b)]
    constraints = [RelativeConstraint(a, b, np.linalg.inv(truth[b]) @ truth[a], INFORMATION) for a, b in pairs]
    wrong = constraints[7]
    constraints[7] = wrong._replace(T_b_a=moved(wrong.T_b_a, [0.02, 0.0, 0.0], [0.0, np.radians(4.0), 0.0]))
    result = optimise_pose_graph(given, given, constraints, 0.03, 0.03)
    assert result.consistent.sum() == len(pairs) - 1 and not result.consistent[7]
    shift, angle = pose_errors(rigidly_aligned(result.T_world_camera, truth), truth)
    assert shift.max() < 0.002 and angle.max() < 0.05


def test_without_constraints_poses_stay():
    given = with_noise(np.tile(np.eye(4), (3, 1, 1)), 0.1, 5.0)
    assert (optimise_pose_graph(given, given, [], 0.03, 0.03).T_world_camera == given).all()
