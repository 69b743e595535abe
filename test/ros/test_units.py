"""Units over real DDS: a folder without depth has no metres, and every answer about its map says so, also later."""

from __future__ import annotations

import signal

import pytest

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from lerf_ros.ros.answer_words import YOUNG_MAP  # noqa: E402
from lerf_ros.ros.client import LerfClient  # noqa: E402
from lerf_ros.world.nerfstudio_export import write_nerfstudio  # noqa: E402
from lerf_ros.world.source import open_source  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.slow]
TIMEOUT = 90.0  # s, for a loaded machine


def test_a_map_without_metres_says_so_and_is_saved_as_such(processes, tiny, recording, tmp_path):
    folder = tmp_path / "images"
    write_nerfstudio(open_source(str(recording)), folder, depth=False)
    where = ("autostart:=true", f"map.path:={tmp_path / 'map'}")
    node = processes.start("lerf_node", *where, "map.units:=scene units", *tiny, remap=True)
    camera = processes.start("camera_node", f"source:={folder}", "pace:=consumed", "rate:=100.0", "loop:=true")
    with LerfClient(timeout=TIMEOUT) as client:
        status = client.wait_for_status(lambda status: status.steps > 3 and "colours alone" in status.message)
        assert status.units == "scene units" and status.message.endswith("the scale of this scene is unknown")
        camera.send_signal(signal.SIGINT)  # until now: without a camera, the status says that there is none
        assert camera.wait(TIMEOUT) == 0, camera.log.read_text()
        said = camera.log.read_text()
        assert "no depth is published" in said and "map.units is 'scene units'" in said
        answer = client.query("a chair", min_relevancy=0.0)
        assert (answer.success or YOUNG_MAP in answer.message) and answer.units == "scene units"
        assert client.save_map().success
        node.send_signal(signal.SIGINT)
        assert node.wait(TIMEOUT) == 0, node.log.read_text()

    answering = processes.start("lerf_node", *where, "training.enabled:=false", "map.load:=true", *tiny)
    with LerfClient(timeout=TIMEOUT) as client:
        status = client.wait_for_status(lambda status: status.state == "active")
        assert status.units == client.query("a chair").units == "scene units"  # the map's, not the parameter's
        assert client.reset().success
        assert client.wait_for_status(lambda status: status.keyframes == 0).units == "m"
        answering.send_signal(signal.SIGINT)
        assert answering.wait(TIMEOUT) == 0, answering.log.read_text()
