"""Every benchmark runs through, on tiny sizes, and writes what it measured. Its figures mean nothing here."""

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.mapping.config import PRESETS
from lerf_ros.world.room import Room

TINY = {
    "pyramid.fractions": [0.18, 0.5],
    "pyramid.strides": [1.0, 0.5],
    "close_up.crops": 20,
    "radiance.grid.log2_table": 12,
    "language.coarse_grid.log2_table": 12,
    "language.fine_grid.log2_table": 12,
    "sampling.rays": 256,
    "sampling.proposal_bins": 16,
    "sampling.proposal_resolution": 32,
    "proposal.bins": [24, 12],
    "proposal.log2_table": 12,
}
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def frames():
    room = Room(10_001, width=96, height=72, frames=24)
    return [room[i] for i in range(0, 24, 6)]


@pytest.fixture
def run(monkeypatch, tmp_path, frames, capsys):
    """Runs main() of a benchmark on the frames with small settings: its JSON, and what it printed."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setitem(PRESETS, "cpu", PRESETS["cpu"].override(TINY))

    def run(name, *arguments):
        module = importlib.import_module(name)
        monkeypatch.setattr(module, "load_frames", lambda spec, count: frames[:count], raising=False)
        monkeypatch.setattr(module, "held_out_frames", lambda folder, training: frames[:1], raising=False)
        path = tmp_path / "figures.json"
        module.main(["--device", "cpu", "--preset", "cpu", "--json", str(path), *arguments])
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


def test_train_step(run):
    small = ["--encoder", "mini", "--frames", "2", "--steps", "10", "--seconds", "1"]
    figures, table = run("train_step", *small, "--heldout", "there", "--psnr-steps", "2")
    assert figures["kernels"] == "numba"
    rows = {row["name"]: row for row in figures["rows"] if "steps_per_s" in row}
    assert {"with depth", "colours only", "with depth, keyframes arriving"} <= rows.keys()
    assert all(row["steps_per_s"] > 0 for row in rows.values())
    assert 0 < rows["with depth, without language"]["limit_ms"] < rows["with depth"]["limit_ms"]
    shares = [row["share"] for row in figures["rows"] if "launches" in row]
    assert sum(shares) == pytest.approx(2)  # of two kinds of step
    arrival = next(row for row in figures["rows"] if "keyframes_per_s" in row)
    assert 0 <= arrival["all_share"] <= arrival["coarse_share"] <= 1
    assert re.search(r"^coarse scales ready .* 100 +\d+$", table, re.MULTILINE)
    assert re.search(r"^all scales ready .* 1000 +\d+$", table, re.MULTILINE)
    assert "held-out PSNR" in table


def test_how_long_keyframes_wait_for_their_scales(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    train_step = importlib.import_module("train_step")
    coarse, every = (train_step.Readiness(np.array(scales)) for scales in ([False, True], [True, True]))
    store = SimpleNamespace(generations=[1, 1, 1], host_valid=np.zeros((3, 2), bool))

    def look(now):
        coarse.look(store, now)
        every.look(store, now)

    for slot, now in enumerate((10.0, 10.5, 11.0)):
        coarse.arrived(slot, 1, now)
        every.arrived(slot, 1, now)
    look(11.0)
    assert coarse.timing is None and coarse.late(11.0, 100.0) == 2  # the third has only just come
    store.host_valid[:2, 1] = True
    look(11.2)
    assert coarse.timing.median_ms == pytest.approx((1200 + 700) / 2) and every.timing is None
    store.host_valid[0, 0] = True
    store.generations[1], store.host_valid[1] = 2, True  # another keyframe's
    look(12.0)
    assert every.timing.median_ms == pytest.approx(2000)
    look(20.0)
    assert every.timing.median_ms == pytest.approx(2000)  # counted once
    assert (coarse.late(12.0, 1000.0), every.late(12.0, 1000.0), every.late(12.1, 1000.0)) == (0, 1, 2)


def test_pyramid(run):
    figures, table = run("pyramid", "--frames", "2", "--encoders", "mini", "--batches", "16", "--repeats", "1")
    works = [row["work"] for row in figures["rows"] if "work" in row]
    assert works == ["cut and resize", "encode", "both"]
    coarse, every = (row for row in figures["rows"] if row.get("scales") and row["batch"] == 64)
    assert 0 < coarse["crops"] < every["crops"]
    assert coarse["timing"]["median_ms"] <= every["timing"]["median_ms"]
    assert "crops/s" in table


def test_query(run):
    small = ["--steps", "60", "--questions", "1", "--points", "500", "--pictures", "1", "--stride", "8"]
    figures, table = run("query", "--frames", "2", *small)
    rows = {row["name"]: row for row in figures["rows"]}
    assert all(0 < row["p50_ms"] <= row["worst_ms"] for row in rows.values())
    assert rows["relevancy picture 96x72, stride 8"]["limit_ms"] > 0
    assert "closer looks" in table


def test_memory_is_measured_on_a_gpu_only(run, capsys):
    with pytest.raises(SystemExit):
        run("memory")
    assert "there is no GPU here" in capsys.readouterr().err


@pytest.mark.parametrize("enough", [True, False])
def test_memory_of_a_case(run, frames, monkeypatch, enough):
    """With the counters of a GPU that is not there."""
    memory = importlib.import_module("memory")
    counters = {"memory_reserved": 1, "max_memory_allocated": 2, "max_memory_reserved": 3, "mem_get_info": (6, 10)}
    for name, value in {**counters, "synchronize": None, "reset_peak_memory_stats": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", lambda: None, raising=False)
    if not enough:
        monkeypatch.setattr(memory.OnlineMapper, "surface", out_of_memory)
    device = torch.device("cpu")
    case, encoder = memory.Case("cpu", 5, "mini"), memory.build_encoder("mini", device)
    row = memory.measure_case(case, frames, encoder, device, steps=30, max_points=300)
    works = ["training", "question", "rendering"]
    assert row.uses == dict.fromkeys(works if enough else works[:1], memory.Use(2, 3, 4))
    assert (row.failed, row.surface_points > 0) == (("", True) if enough else ("too little", False))
    assert row.encoder > 1e6 and row.predicted.keyframes > 5 * 96 * 72 * 5


def out_of_memory(*_):
    raise torch.OutOfMemoryError("too little")


def test_memory_rows(run, frames):
    memory = importlib.import_module("memory")
    cases = memory.cases_of(["robot", "base"], [50, 200, 300], ["mini", "RN50"])
    assert [(case.preset, case.keyframes) for case in cases] == 2 * [
        ("robot", 50),
        ("robot", 200),  # holds no more
        *(("base", count) for count in (50, 200, 300)),
    ]
    assert [case.encoder for case in cases] == 5 * ["mini"] + 5 * ["RN50"]
    assert [case.config(frames).keyframe.capacity for case in cases[:3]] == [50, 200, 50]
    assert len({frame.T_world_camera.tobytes() for frame in memory.repeated(frames, 11)}) == 11

    gb = 10**9
    kept, uses = memory.MapMemory(gb, gb, 0, 0, 0), {"training": memory.Use(3 * gb, 4 * gb, 5 * gb)}
    target = memory.Case("base", 300, "ViT-B-16")
    done = memory.Row(target, gb // 2, gb // 4, kept, uses, 100, 10, target.target_bytes)
    failed = memory.Row(cases[0], gb // 2, gb // 4, kept, {}, 0, 0, cases[0].target_bytes, "no more")
    assert done.reserved == 4 * gb and failed.reserved == 0
    _, first, second = memory.table_of([done, failed]).splitlines()
    assert first.split() == "base 300 ViT-B-16 0.50 3.00 (4.00) - - 5.00 2.25 = 2.00 + 0.25 6.00 100 10".split()
    assert second.endswith("-       0       0  out of memory: no more")


@pytest.fixture
def node_options(monkeypatch):
    """The node runs in a process of its own, to which the small settings go as parameters."""
    pytest.importorskip("rclpy", reason="needs ROS 2")
    monkeypatch.setenv("ROS_DOMAIN_ID", "86")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(FOLDER.parent / "config" / "fastdds.xml"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    overrides = ",".join(f"'{name}={json.dumps(value)}'" for name, value in TINY.items())
    parameters = [f"map.overrides:=[{overrides}]", "query.max_points:=500", "training.threads:=1"]
    return [part for value in parameters for part in ("--parameter", value)]


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("camera", [[], ["--colours-only"]])
def test_end_to_end(run, node_options, camera):
    small = [*camera, *"--width 160 --frames 10 --questions 1 --quiet 0.5 --limit 0 --settle 0".split()]
    figures, table = run("end_to_end", *small, *node_options)
    walk, *asked = figures["rows"]
    assert walk["published"] == 10 and 1 <= walk["keyframes"] <= walk["taken"] <= 10 - walk["dropped"]
    assert 0 <= walk["end_right"] <= walk["end_seen"] and walk["end_seen"] > 0
    assert all(0 <= right <= seen <= walk["end_seen"] for _, right, seen in walk["progress"])
    assert [row["questions"] for row in asked] == [1, 1]
    assert all(0 < row["p50_ms"] <= row["worst_ms"] and row["quiet_steps_per_s"] > 0 for row in asked)
    assert "right at the end of the walk" in table


@pytest.mark.ros
@pytest.mark.slow
def test_soak(run, node_options):
    small = ["--minutes", "0.1", "--width", "160", "--frames", "6", "--rate", "10", "--questions", "1", "--every", "1"]
    figures, table = run("soak", *small, *node_options)
    rows = {row["name"]: row for row in figures["rows"]}
    assert rows["callbacks watched"]["value"] > 0 < rows["keyframes"]["value"]
    alive = next(row for name, row in rows.items() if name.startswith("messages alive"))
    assert 0 < alive["value"] < alive["most"]
    assert table.splitlines()[-1].startswith(("broken: ", "every bound held"))


def test_a_broken_bound_of_a_soak(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    pytest.importorskip("rclpy", reason="needs ROS 2")
    bound = importlib.import_module("soak").Bound
    assert bound("told", 1e9, "").holds and bound("late", 100.0, "ms", most=100.0).holds
    assert not bound("late", 100.1, "ms", most=100.0).holds and not bound("steps", 0, "", least=1).holds


@pytest.mark.ros
def test_assembly(monkeypatch, tmp_path, capsys):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    monkeypatch.syspath_prepend(str(FOLDER))
    assembly = importlib.import_module("assembly")
    assembly.main(["--size", "64x48", "--repeats", "3", "--json", str(tmp_path / "figures.json")])
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert [row["name"] for row in rows] == [case.name for case in assembly.CASES]
    assert all(row["matching"]["median_ms"] > 0 and row["building"]["median_ms"] > 0 for row in rows)
    assert "matching" in capsys.readouterr().out
