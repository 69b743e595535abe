"""The demo: its options, and what it says of a recording without depth."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

from lerf_ros.ros import demo  # noqa: E402
from lerf_ros.world.nerfstudio_export import write_nerfstudio  # noqa: E402
from lerf_ros.world.room import Room  # noqa: E402
from lerf_ros.world.source import open_source  # noqa: E402

pytestmark = pytest.mark.ros
SCRIPT = Path(__file__).parents[2] / "scripts" / "demo"
TIMEOUT = 180.0  # s, for a loaded machine


@pytest.mark.parametrize(
    ("environment", "arguments", "depth"),
    [("", [], "on"), ("off", [], "off"), ("OFF", [], "off"), ("off", ["--depth", "on"], "on")],
)
def test_depth_is_switched_by_the_environment_or_an_option(monkeypatch, environment, arguments, depth):
    monkeypatch.setenv("DEPTH", environment)
    assert demo._options(arguments).depth == depth


def test_another_value_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("DEPTH", "0")
    with pytest.raises(SystemExit):
        demo._options([])
    assert "--depth: it is '0', and can be on or off" in capsys.readouterr().err


def test_what_is_mapped_is_said(recording, tmp_path):
    room = Room(10_003, width=64, height=48, frames=2)
    assert demo.remarks(room, 0, with_depth=True) == []
    (said,) = demo.remarks(room, 0, with_depth=False)
    assert said.startswith("Depth is off: the room is mapped from colours alone")
    write_nerfstudio(open_source(str(recording)), tmp_path, depth=False)
    kept_back, no_depth, units = demo.remarks(open_source(str(tmp_path)), 8, with_depth=True)
    assert kept_back.startswith("2 of the 12 frames are kept back") and no_depth.startswith("There is no depth")
    assert units == "Lengths are in scene units, not metres: the scale of this scene is unknown."


def test_a_known_scale_gives_metres(domain, recording, tmp_path, monkeypatch):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "")  # the demo sets it where it is not set
    folder = tmp_path / "images"
    write_nerfstudio(open_source(str(recording)), folder, depth=False)
    given = {}

    @contextlib.contextmanager
    def started(executable, parameters, *_):
        given[executable] = parameters
        yield None

    def stop(*_):
        raise demo.DemoError("that is all")

    monkeypatch.setattr(demo, "_process", started)
    monkeypatch.setattr(demo, "_follow_mapping", stop)
    monkeypatch.setattr(demo, "LerfClient", lambda **_: contextlib.nullcontext())
    out = ["--out", str(tmp_path / "out")]
    assert demo.main(["--source", str(folder), "--world-scale", "2.5", "--depth", "off", *out]) == 1
    assert {"world_scale:=2.5", "depth_encoding:=none", "holdout:=8"} <= set(given["camera_node"])
    assert "map.units:=m" in given["lerf_node"]
    assert demo.main(["--source", str(folder), *out]) == 1
    assert "map.units:=scene units" in given["lerf_node"]
    assert not any(part.startswith(("world_scale", "depth")) for part in given["camera_node"])
    assert demo.main(["--source", "room:7", "--world-scale", "2.5", *out]) == 2  # it is metric


@pytest.mark.slow
def test_a_folder_without_depth(processes, recording, tmp_path):
    folder = tmp_path / "images"
    write_nerfstudio(open_source(str(recording)), folder, depth=False)
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--source", str(folder), "--seconds", "1", "--out", str(out)]
    process = processes.run("demo", command)
    assert process.wait(TIMEOUT) == 0, process.log.read_text()
    said = process.log.read_text()
    assert "mapped from colours alone" in said and "position [scene units]" in said
    assert "[m]" not in said and " nan" not in said and "no depth to compare with" in said
    assert "no depth is published" in (out / "camera_node.log").read_text()
