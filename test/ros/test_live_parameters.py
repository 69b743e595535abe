"""Parameters of a node that maps, changed over the services that `ros2 param set` uses."""

from __future__ import annotations

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rcl_interfaces.srv import DescribeParameters, ListParameters  # noqa: E402

from lerf_ros.ros.declarations import Read  # noqa: E402
from lerf_ros.ros.parameters import LERF_PARAMETERS  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]


@pytest.fixture
def mapping(lerf):
    """The node, active, with one keyframe at the origin."""
    for transition in ("configure", "activate"):
        assert lerf.client.change_state(transition)
    lerf.frame()
    assert lerf.client.wait_for_status(lambda status: status.frames_received == 1).keyframes == 1
    return lerf


def config(lerf):
    """The map's settings, after all that was asked for before."""
    return lerf.node._worker.request(lambda online: online.mapper.config).result(lerf.client.timeout)


def test_another_threshold_changes_the_next_answer(mapping, set_parameters):
    client = mapping.client
    assert set_parameters(client, query__min_relevancy=0.0) == ""
    status = client.wait_for_status()
    while not (answer := client.query("a chair")).found:
        assert status.steps < 3000, "training brought up no surface"
        status = client.wait_for_status(lambda now, before=status.steps: now.steps > before + 100)
    assert set_parameters(client, query__max_targets=1) == ""
    assert len(client.query("a chair").targets) == 1
    assert set_parameters(client, query__min_relevancy=1.0) == ""
    answer = client.query("a chair")
    assert answer.success and not answer.found
    assert "out of range" in set_parameters(client, query__min_relevancy=1.5)
    assert set_parameters(client, query__max_points=123, query__max_age=0.0) == ""
    assert (mapping.node._worker._max_points, mapping.node._worker._max_age) == (123, 0.0)


def test_keyframe_thresholds_and_replay_change_while_mapping(mapping, set_parameters):
    client = mapping.client
    preset = config(mapping)
    assert set_parameters(client, keyframe__translation=0.5, keyframe__rotation=0.4, replay__recent=0.9) == ""
    changed = config(mapping)
    assert (changed.keyframe.translation, changed.keyframe.rotation, changed.replay.recent) == (0.5, 0.4, 0.9)
    mapping.frame((0.3, 0.0, 0.0))  # sees little that is new, and has not moved far enough
    assert client.wait_for_status(lambda status: status.frames_received == 2).keyframes == 1
    assert set_parameters(client, keyframe__translation=0.2) == ""
    mapping.frame((0.3, 0.0, 0.0))
    assert client.wait_for_status(lambda status: status.frames_received == 3).keyframes == 2
    assert client.reset().success and config(mapping).keyframe.translation == 0.2
    assert set_parameters(client, keyframe__translation=0.0, keyframe__rotation=0.0, replay__recent=-1.0) == ""
    assert config(mapping) == preset


def test_what_cannot_change_now_is_refused_and_the_rate_of_status_changes(mapping, set_parameters):
    client = mapping.client
    reason = set_parameters(client, keyframe__capacity=9)
    assert reason == (
        "parameter keyframe.capacity is read when the node is configured: "
        "ros2 lifecycle set /lerf deactivate, then cleanup first"
    )
    assert set_parameters(client, sync__slop=0.5).endswith("ros2 lifecycle set /lerf deactivate first")
    assert "read-only" in set_parameters(client, autostart=True)
    assert set_parameters(client, status__rate=4.0) == ""
    assert mapping.node._status._timer.timer_period_ns == 250_000_000
    assert client.change_state("deactivate")
    assert set_parameters(client, sync__slop=0.5) == ""
    assert client.change_state("cleanup")
    assert set_parameters(client, keyframe__capacity=9) == ""
    assert client.change_state("configure") and client.wait_for_status().keyframe_capacity == 9


def test_every_parameter_describes_itself(lerf):
    client = lerf.client

    def called(kind, name, request):
        service = client._node.create_client(kind, f"/lerf/{name}")
        assert service.wait_for_service(client.timeout)
        future = service.call_async(request)
        client._executor.spin_until_future_complete(future, client.timeout)
        return future.result()

    listed = called(ListParameters, "list_parameters", ListParameters.Request()).result.names
    rows = {row.name: row for row in LERF_PARAMETERS}
    assert set(rows) <= set(listed)
    request = DescribeParameters.Request(names=list(rows))
    for described in called(DescribeParameters, "describe_parameters", request).descriptors:
        row = rows[described.name]
        assert described.description and described.read_only == (row.read is Read.START)
        assert row.read.value in described.additional_constraints
        is_number = isinstance(row.default, (int, float)) and not isinstance(row.default, bool)
        assert bool(described.floating_point_range or described.integer_range) == is_number
