"""Answers as messages and back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from lerf_ros.srv import Query
from scipy.spatial.transform import Rotation
from visualization_msgs.msg import Marker

from lerf_ros.mapping.surface import MapState
from lerf_ros.query.targets import Answer, Target
from lerf_ros.ros import messages as m
from lerf_ros.ros.client import table
from lerf_ros.ros.conversions import header
from lerf_ros.ros.drops import DropCounter, DropReason
from lerf_ros.ros.input_health import InputHealth, InputReport  # noqa: E402
from lerf_ros.ros.memory_use import memory_mb  # noqa: E402
from lerf_ros.ros.snapshot import Learning, Snapshot  # noqa: E402
from lerf_ros.ros.status import status_message
from lerf_ros.ros.worker import WorkerStatistics

pytestmark = pytest.mark.ros
STAMPED = header(5_000_000_001, "map")
VARIANCES = np.array([0.09, 0.0004, 0.01])  # m^2, along the columns of ROTATION
ROTATION = Rotation.from_euler("xyz", [0.4, -0.9, 1.7]).as_matrix()
COVARIANCE = ROTATION @ np.diag(VARIANCES) @ ROTATION.T
TARGETS = tuple(
    Target(
        position=np.array([1.0, 2.0, 0.5 * i]),
        quaternion_xyzw=Rotation.random(random_state=i).as_quat(),
        size=np.array([0.1, 0.2, 0.0]),
        relevancy=0.9 - 0.1 * i,
        scale=0.25,
        support=12,
        covariance=(i + 1) * COVARIANCE,
    )
    for i in range(3)
)
FOUND = Answer("a red mug", TARGETS, 0.9)


def test_answer_survives_the_response():
    response = m.fill_response(Query.Response(), FOUND, STAMPED)
    assert response.success and response.found and response.message
    assert response.targets[0].pose.header == STAMPED and response.targets[0].text == "a red mug"
    back = m.answer_from_response("a red mug", response)
    assert back.text == FOUND.text and back.best_relevancy == pytest.approx(0.9)
    for target, expected in zip(back.targets, TARGETS, strict=True):
        np.testing.assert_array_equal(target.position, expected.position)
        np.testing.assert_allclose(target.quaternion_xyzw, expected.quaternion_xyzw)
        np.testing.assert_array_equal(target.size, expected.size)
        assert target.relevancy == pytest.approx(expected.relevancy)
        assert (target.scale, target.support) == (0.25, 12)
        np.testing.assert_array_equal(target.covariance, expected.covariance)


def test_covariance_of_a_target_is_row_major_in_the_map_frame():
    """A matrix that is no covariance shows a transposition; the true one shows the axes."""
    numbers = np.arange(9.0).reshape(3, 3)
    message = m.target_message(replace(TARGETS[0], covariance=numbers), "a red mug", STAMPED)
    assert message.covariance.dtype == np.float64 and message.covariance.tolist() == list(range(9))
    assert [float(message.covariance[3 * row + column]) for row, column in ((0, 1), (2, 0))] == [1.0, 6.0]
    covariance = m.target_message(TARGETS[0], "a red mug", STAMPED).covariance.reshape(3, 3)
    for variance, axis in zip(VARIANCES, ROTATION.T, strict=True):  # whatever the orientation of the target is
        np.testing.assert_allclose(covariance @ axis, variance * axis, atol=1e-12)


def test_target_with_covariance_has_the_order_of_rep_103():
    message = m.target_with_covariance(TARGETS[1], STAMPED)
    assert message.header == STAMPED
    assert message.pose.pose == m.pose_array(FOUND, STAMPED).poses[1]
    covariance = np.array(message.pose.covariance).reshape(6, 6)
    np.testing.assert_allclose(covariance[:3, :3], 2 * COVARIANCE)
    np.testing.assert_allclose(covariance[3:, 3:], np.pi**2 / 3 * np.eye(3))  # unknown: uniform over a full turn
    assert not covariance[:3, 3:].any() and not covariance[3:, :3].any()
    numbers = m.target_with_covariance(replace(TARGETS[0], covariance=np.arange(9.0).reshape(3, 3)), STAMPED)
    assert numbers.pose.covariance[:9].tolist() == [0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 3.0, 4.0, 5.0]


def test_not_found_is_a_successful_answer():
    response = m.fill_response(Query.Response(), Answer("a zebra", (), 0.41), STAMPED)
    assert response.success and not response.found and "0.41" in response.message


def test_a_map_without_any_surface_point_cannot_answer():
    empty = MapState(steps=3, keyframes=1, points=0, language_points=0, depth_uncertainty=1.4)
    response = m.fill_response(Query.Response(), Answer("a zebra", (), 0.0, map_state=empty), STAMPED)
    assert not response.success and not response.found and "not found" not in response.message
    assert "the map is young: after 3 training steps on 1 keyframe its geometry" in response.message


def test_an_answer_says_its_units():
    assert m.fill_response(Query.Response(), FOUND, STAMPED).units == "m"
    response = m.fill_response(Query.Response(), FOUND, STAMPED, "scene units")
    assert response.units == "scene units" and "scene units, not metres" in response.message
    assert "(m)" not in table([(FOUND.text, response)]) and "not metres" in table([(FOUND.text, response)])
    response = m.fill_response(Query.Response(), FOUND, STAMPED, "m")
    assert "units" not in response.message
    assert "position (m)" in table([(FOUND.text, response), ("refused", Query.Response(message="wait"))])


def test_unknown_words_are_named():
    response = m.fill_response(Query.Response(), Answer("a zorble", (), 0.0, ("zorble",)), STAMPED)
    assert not response.success and response.unknown_words == ["zorble"] and "'zorble'" in response.message


def test_pose_array_is_best_first():
    poses = m.pose_array(FOUND, STAMPED)
    assert poses.header == STAMPED
    assert [pose.position.z for pose in poses.poses] == [0.0, 0.5, 1.0]
    assert m.pose_array(Answer("a zebra", (), 0.4), STAMPED).poses == []


def test_markers_replace_those_before_and_point_along_the_approach():
    markers = m.marker_array(FOUND, STAMPED).markers
    assert markers[0].action == Marker.DELETEALL
    assert len({(marker.ns, marker.id) for marker in markers[1:]}) == 9
    assert all(marker.header == STAMPED for marker in markers)
    boxes = [marker for marker in markers if marker.type == Marker.CUBE]
    assert all(min(box.scale.x, box.scale.y, box.scale.z) > 0 for box in boxes)
    tail, tip = next(marker.points for marker in markers if marker.ns == "approach")
    np.testing.assert_allclose([tip.x, tip.y, tip.z], TARGETS[0].position)
    outward = Rotation.from_quat(TARGETS[0].quaternion_xyzw).as_matrix()[:, 0]
    step = np.array([tail.x - tip.x, tail.y - tip.y, tail.z - tip.z])
    np.testing.assert_allclose(step / np.linalg.norm(step), outward)
    labels = [marker.text for marker in markers if marker.type == Marker.TEXT_VIEW_FACING]
    assert labels[0] == "a red mug 0.90"


def test_status():
    drops = DropCounter()
    drops.add(DropReason.NO_POSE, "nothing on ~/pose")
    drops.add(DropReason.OVERRUN)
    drops.add(DropReason.OVERRUN)
    statistics = WorkerStatistics(frames_taken=3, steps=40, loss=0.5, steps_skipped=1, keyframes=2, keyframe_capacity=8)
    report = InputReport("image", "/camera/image", False, 40, 2, 29.5, 0.1, 0.02, math.nan, 1, (), "")
    snapshot = Snapshot(
        state="active",
        message="mapping",
        failed=False,
        device="cpu",
        gpu=None,
        statistics=statistics,
        learning=Learning(2.0, 30.0, 0.5),
        health=InputHealth((report,)),
        drops=drops.snapshot(),
        mistyped=[],
        last_query="a mug",
    )
    status = status_message(STAMPED, snapshot)
    assert (status.steps_per_second, status.map_age, status.map_unchanged) == (2.0, 30.0, 0.5)
    assert [(each.name, each.rate, each.lost) for each in status.inputs] == [("image", 29.5, 2)]
    assert (status.frames_received, status.steps, status.keyframes, status.keyframe_capacity) == (3, 40, 2, 8)
    assert list(zip(status.drop_reasons, status.drop_counts, strict=True)) == [
        ("no_pose: nothing on ~/pose", 1),
        ("overrun", 2),
    ]
    assert np.isnan(status.prequential_psnr_db) and status.state == "active" and status.steps_skipped == 1
    assert 1.0 < memory_mb(None) < 1e6
