import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.evaluation.demo_report import drift_of, is_as_promised, outcome_table, summary, upright, write_pictures
from lerf_ros.evaluation.heldout import HeldOutResult
from lerf_ros.evaluation.localization import Outcome, judge
from lerf_ros.geometry.camera import Camera
from lerf_ros.query.targets import Answer
from lerf_ros.world.poses import look_at
from lerf_ros.world.truth import TruthQuery


def camera_with_up(up):
    pose = np.eye(4)
    pose[:3, 1] = -np.asarray(up, float)  # the camera's y axis points down
    return pose


@pytest.mark.parametrize("up", [(0, 0, 1), (0, -1, 0), (1, 0, 0), (0, 0, -1)])
def test_upright_turns_the_cameras_up_into_z(up):
    rotation = upright(np.stack([camera_with_up(up)] * 3))
    assert rotation @ np.array(up) == pytest.approx([0, 0, 1])
    assert rotation.T @ rotation == pytest.approx(np.eye(3)) and np.linalg.det(rotation) == pytest.approx(1.0)


def test_upright_leaves_a_map_with_z_up_alone_also_when_cameras_look_down_a_little():
    assert upright(np.stack([camera_with_up((0.3, 0.2, 0.9))])) == pytest.approx(np.eye(3))


def test_table_names_unknown_words_and_keeps_verdicts_to_where_there_is_truth():
    outcomes = [judge(TruthQuery("a zeppelin"), Answer("a zeppelin", (), 0.0, ("zeppelin",)))]
    with_truth, without = outcome_table(outcomes, truth=True), outcome_table(outcomes, truth=False)
    assert "does not know: zeppelin" in with_truth and "rightly not found" in with_truth
    assert "rightly" not in without and "box" not in without


def test_table_has_the_unit_of_its_positions():
    outcomes = outcomes_of(1, 0, 0, 0, 0)
    assert "position [m]" in outcome_table(outcomes, truth=True)
    table = outcome_table(outcomes, truth=False, units="scene units")
    assert "position [scene units]" in table and "[m]" not in table and " m" not in table


def test_held_out_views_without_depth_have_no_depth_error():
    assert str(HeldOutResult(20.0, 0.012)) == "held-out PSNR 20.00 dB, median depth error 1.2 cm"
    assert str(HeldOutResult(20.0, math.nan)) == "held-out PSNR 20.00 dB, no depth to compare with"


def outcomes_of(right, elsewhere, not_found, rejected, wrongly_found):
    """So many of each kind."""
    target = SimpleNamespace(position=np.zeros(3))
    kinds = [
        (right, True, True, True),
        (elsewhere, True, False, True),
        (not_found, True, False, False),
        (rejected, False, True, False),
        (wrongly_found, False, False, True),
    ]
    return [
        Outcome(Answer(f"thing {kind}", (target,) if found else (), 0.5), present, correct, np.nan)
        for kind, (count, present, correct, found) in enumerate(kinds)
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "good"),
    [
        ((10, 0, 0, 5, 0), True),
        ((8, 1, 1, 5, 0), True),
        ((7, 3, 0, 5, 0), False),
        ((7, 0, 3, 5, 0), False),
        ((10, 0, 0, 4, 1), False),  # a single wrong "found"
    ],
)
def test_the_summary_names_what_is_wrong_and_says_when_it_is_too_much(counts, good):
    outcomes = outcomes_of(*counts)
    *lines, last = summary(outcomes).splitlines()
    assert is_as_promised(outcomes) == good == (not any("FAILED" in line for line in lines))
    assert lines.count("'thing 1' was found at a wrong place") == counts[1]
    assert lines.count("'thing 2' is in the room, but was not found") == counts[2]
    assert lines.count("'thing 4' was found, but is not in the room") == counts[4]
    assert len(lines) == counts[1] + counts[2] + counts[4] + (not good)
    assert last == f'localized {counts[0]} of 10 present queries; {counts[3]} of 5 absent queries answered "not found"'


@pytest.mark.parametrize("depth", [2.0, np.nan])
def test_a_map_from_above_needs_depth(tmp_path, depth):
    camera = Camera(20.0, 20.0, 15.5, 11.5, 32, 24)
    images, depth_z = torch.zeros(2, 24, 32, 3, dtype=torch.uint8), torch.full((2, 24, 32), depth)
    poses = np.stack([look_at(np.array([0.0, 0.0, 1.0]), np.array([3.0, y, 0.5])) for y in (0.0, 0.5)])

    class Store(SimpleNamespace):
        def __len__(self):
            return 2

    store = Store(images=images, depth_z=depth_z, host_poses=poses, camera=camera)
    write_pictures(SimpleNamespace(mapper=SimpleNamespace(store=store)), [], tmp_path, truth=False)
    assert [path.name for path in tmp_path.iterdir()] == (["map.png"] if np.isfinite(depth) else [])


def test_drift_of_a_map_is_told_at_the_stamps_of_the_recording():
    """The map has the stamps at which its frames were published."""
    seconds = np.arange(9)
    poses = np.tile(np.eye(4), (9, 1, 1))
    poses[:, 0, 3] = 0.2 * seconds
    frames = [SimpleNamespace(T_world_camera=T, stamp_ns=int(1e9 * s)) for T, s in zip(poses, seconds, strict=True)]
    refined = poses.copy()
    refined[:, 1, 3] = 0.01 * seconds  # m
    keyframes = [8, 0, 2, 6, 4]
    given = poses[keyframes] + 1e-9  # as messages round them
    store = SimpleNamespace(given_poses=given, host_poses=refined[keyframes], stamps_ns=[7, 1, 3, 9, 5])
    drift = drift_of(store, frames)
    for i in (1, 3, 5):
        np.testing.assert_allclose(drift.corrected(poses[i], int(1e9 * i)), refined[i], atol=1e-8)
