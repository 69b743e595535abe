import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lerf_ros.world.truth import Box


def _box() -> Box:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("z", 30, degrees=True).as_matrix()
    pose[:3, 3] = [1, 2, 0.5]
    return Box(pose, np.array([0.4, 0.2, 1.0]))


def test_contains_agrees_with_coordinates_along_the_boxes_axes():
    box, rng = _box(), np.random.default_rng(0)
    local = rng.uniform(-0.7, 0.7, (500, 3))
    world = Rotation.from_euler("z", 30, degrees=True).apply(local) + [1, 2, 0.5]
    inside = (np.abs(local[:, 0]) <= 0.2) & (np.abs(local[:, 1]) <= 0.1) & (np.abs(local[:, 2]) <= 0.5)
    assert inside.any() and not inside.all()
    np.testing.assert_array_equal(box.contains(world), inside)


def test_growing_moves_every_side_out():
    box = _box()
    just_outside = box.T_world_box @ [0.2 + 0.03, 0, 0, 1]
    assert not box.contains(just_outside[:3])
    assert box.contains(just_outside[:3], grow=0.031)


def test_grown_uses_five_centimetres_or_a_quarter_whichever_is_less():
    np.testing.assert_allclose(_box().grown().size, [0.4 + 0.1, 0.2 + 0.1, 1.0 + 0.1])
    thin = Box(np.eye(4), np.array([0.04, 0.2, 0.3]))
    np.testing.assert_allclose(thin.grown().size, [0.06, 0.3, 0.4])


def test_around_is_tight_and_keeps_the_frame():
    pose = _box().T_world_box
    points = np.random.default_rng(1).normal(size=(50, 3))
    box = Box.around(points, pose)
    world = points @ pose[:3, :3].T + pose[:3, 3]
    assert box.contains(world, 1e-9).all()
    np.testing.assert_allclose(box.size, np.ptp(points, axis=0))
    assert len(np.unique(np.round(box.corners(), 6), axis=0)) == 8


@pytest.mark.parametrize(
    ("pose", "size"), [(np.eye(3), np.ones(3)), (np.full((4, 4), np.nan), np.ones(3)), (np.eye(4), [-1, 1, 1])]
)
def test_bad_boxes_are_refused(pose, size):
    with pytest.raises(ValueError):
        Box(pose, np.array(size))
