"""The life of the node: every transition, what a failed one leaves behind, and an end in every state. Real nodes over
real DDS; those that have to be looked into run in a thread of the test."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from lerf_ros.srv import Query  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402

from lerf_ros.ros.client import LerfClient  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
TIMEOUT = 90.0  # s, for a loaded machine


def test_a_failed_configure_is_mended_and_every_transition_can_be_repeated(processes, tiny, set_parameters):
    node = processes.start(
        "lerf_node",
        "encoder.model:=ViT-Z-99",
        "keyframe.translaton:=0.3",
        *tiny,
        remapped=("__ns:=/robot", "__node:=mapper", "~/image:=front/image", "~/query:=/where_is"),
    )
    with LerfClient("/robot/mapper", TIMEOUT) as client:
        assert client._node.create_client(Query, "/where_is").wait_for_service(TIMEOUT)
        assert not client.change_state("configure") and client.state() == "unconfigured"
        said = client.wait_for_status().message
        assert "could not be configured" in said and "ViT-Z-99" in said
        assert said.endswith("ros2 lifecycle set /robot/mapper configure, then activate")
        assert "pose.axes is 'sideways'" in set_parameters(client, encoder__model="mini", pose__axes="sideways")
        assert not client.change_state("configure")  # all or nothing
        assert set_parameters(client, encoder__model="mini") == ""
        for _ in range(2):
            assert client.change_state("configure") and client.state() == "inactive"
            assert not client.change_state("configure") and client.state() == "inactive"
            reason = set_parameters(client, encoder__model="ViT-B-16")
            assert reason.endswith("ros2 lifecycle set /robot/mapper cleanup first")
            assert client.change_state("activate")
            status = client.wait_for_status(lambda status: status.state == "active")
            assert "/robot/front/image" in status.message and "/robot/mapper/pose" in status.message
            assert not client.change_state("cleanup") and client.state() == "active"
            assert client.change_state("deactivate") and client.change_state("cleanup")
            assert client.state() == "unconfigured"
        assert client.change_state("shutdown") and client.state() == "finalized"
        assert not client.change_state("configure")
        assert "start it anew" in client.wait_for_status().message
    node.send_signal(signal.SIGINT)
    assert node.wait(TIMEOUT) == 0, node.log.read_text()
    assert "Traceback" not in node.log.read_text()
    mistyped = "parameter keyframe.translaton does not exist and has no effect: did you mean keyframe.translation?"
    assert mistyped in node.log.read_text()


def test_sigint_ends_the_node_in_every_state(processes, tiny, tmp_path):
    """The one that is configuring reads a map from a pipe that nobody writes to."""
    (tmp_path / "endless").mkdir()
    os.mkfifo(tmp_path / "endless" / "map.json")
    loads = ("map.load:=true", f"map.path:={tmp_path / 'endless'}", "autostart:=true")
    nodes = {
        state: processes.start("lerf_node", *parameters, *tiny, remapped=(f"__node:={state}",))
        for state, parameters in (("unconfigured", ()), ("configuring", loads), ("inactive", ()), ("active", ()))
    }
    for state, node in nodes.items():
        with LerfClient(f"/{state}", TIMEOUT) as client:
            if state in ("inactive", "active"):
                assert client.change_state("configure")
            if state == "active":
                assert client.change_state("activate")
            client.wait_for_status(lambda status, state=state: status.state == state)
        node.send_signal(signal.SIGINT)
        assert node.wait(TIMEOUT) == 0, f"{state}: {node.log.read_text()}"
        assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_shutdown_from_every_state_ends_the_worker(lerf, state):
    node, client = lerf.node, lerf.client
    for transition in {"unconfigured": (), "inactive": ("configure",), "active": ("configure", "activate")}[state]:
        assert client.change_state(transition)
    assert client.change_state("shutdown") and client.state() == "finalized"
    assert node._worker is None and node._inputs is None
    assert not any(thread.name == "lerf_worker" for thread in threading.enumerate())


def test_while_it_configures_the_node_answers_and_a_shutdown_waits_for_its_turn(lerf, tmp_path, set_parameters):
    client = lerf.client
    os.mkfifo(tmp_path / "map.json")
    assert set_parameters(client, map__load=True, map__path=str(tmp_path)) == ""
    changes = [
        client._clients["change_state"].call_async(ChangeState.Request(transition=Transition(label=label)))
        for label in ("configure", "shutdown")
    ]
    status = client.wait_for_status(lambda status: status.state == "configuring")
    assert status.message == "lerf is configuring: wait"
    assert client.query("a chair").message == status.message
    assert "cleanup first" in set_parameters(client, encoder__model="ViT-B-16")
    assert not any(change.done() for change in changes)
    (tmp_path / "map.json").write_text(json.dumps({}))  # no map: configuring fails
    deadline = time.monotonic() + TIMEOUT
    configured, shut_down = (client._result("change_state", change, deadline) for change in changes)
    assert not configured.success and shut_down.success and client.state() == "finalized"


def test_a_dead_worker_is_an_error_until_it_is_configured_again(lerf):
    client = lerf.client
    for transition in ("configure", "activate"):
        assert client.change_state(transition)
    lerf.kill_worker()
    status = client.wait_for_status(lambda status: status.state == "error")
    failed = "the mapper has failed (out of memory)"
    assert status.message == f"{failed}: ros2 lifecycle set /lerf deactivate, then configure"
    assert client.query("a chair").message == status.message
    assert not client.change_state("deactivate") and client.state() == "unconfigured"
    assert client.wait_for_status().message == f"{failed}: ros2 lifecycle set /lerf configure, then activate"
    assert client.change_state("configure") and client.change_state("activate")
    assert client.wait_for_status(lambda status: status.state == "active")
    lerf.kill_worker()
    client.wait_for_status(lambda status: status.state == "error")
    assert not client.change_state("deactivate")
    assert client.change_state("configure")
    lerf.kill_worker()
    client.wait_for_status(lambda status: status.state == "error")
    assert not client.change_state("activate") and client.state() == "unconfigured"


def test_what_nobody_expected_fails_the_transition_and_not_the_node(lerf, monkeypatch):
    def fail(*_):
        raise RuntimeError("no driver")

    client = lerf.client
    for part, transition, participle in (
        ("MapSetup.of", "configure", "configured"),
        ("CameraInputs", "activate", "activated"),
    ):
        with monkeypatch.context() as broken:
            broken.setattr(f"lerf_ros.ros.node.{part}", fail)
            assert not client.change_state(transition)
        status = client.wait_for_status()
        assert status.message.startswith(f"lerf could not be {participle}: no driver: ros2 lifecycle set /lerf ")
        assert client.change_state(transition)
    assert client.wait_for_status(lambda status: status.state == "active")
