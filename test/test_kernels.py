"""Where our Triton kernels run, and the switch that keeps them from running. A GPU is claimed, not needed."""

import importlib
import pkgutil
import sys

import pytest
import torch

import lerf_ros
from lerf_ros import kernels
from lerf_ros.features.encoder import load_encoder
from lerf_ros.features.vision_transformer import TORCH, passes_on
from lerf_ros.field import encoding
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.targets import find_targets
from lerf_ros.world.room import Room

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SMALL = {
    "pyramid.fractions": [0.18, 0.5],
    "pyramid.strides": [1.0, 0.5],
    "close_up.crops": 20,
    "radiance.grid.log2_table": 12,
    "language.coarse_grid.log2_table": 12,
    "language.fine_grid.log2_table": 12,
    "sampling.rays": 256,
    "keyframe.translation": 1e-4,
}


@pytest.fixture(autouse=True)
def asked_afresh(monkeypatch):
    """What a process asks once is asked in every test, and again after it."""

    def forget():
        kernels.why_no_kernels.cache_clear()
        encoding.fastest_backend.cache_clear()

    monkeypatch.delenv("LERF_TRITON", raising=False)
    forget()
    yield
    forget()


@pytest.fixture
def able(monkeypatch):
    """Every device is said to be able to run kernels, the CPU included."""
    monkeypatch.setattr(kernels, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(kernels, "is_installed", lambda package: True)


@pytest.mark.parametrize(("value", "runs"), [(None, True), ("1", True), ("0", False)])
def test_switch(able, monkeypatch, caplog, value, runs):
    if value is not None:
        monkeypatch.setenv("LERF_TRITON", value)
    with caplog.at_level("INFO"):
        assert encoding.fastest_backend(GPU, torch.float32) == ("triton" if runs else "torch")
    assert kernels.runs_kernels(GPU) == runs
    assert ("LERF_TRITON is 0" in caplog.text) == (not runs)


def test_a_switch_that_is_neither_on_nor_off_is_refused(able, monkeypatch):
    monkeypatch.setenv("LERF_TRITON", "off")
    with pytest.raises(ValueError, match="LERF_TRITON must be 1 .* or 0 .*, not 'off'"):
        kernels.runs_kernels(CPU)


def test_a_gpu_alone_is_not_enough(able, monkeypatch):
    monkeypatch.setattr(kernels, "is_installed", lambda package: package != "triton")
    assert kernels.why_no_kernels(GPU) == "not installed"


def test_a_cpu_is_not_enough():
    assert "compute capability" in kernels.why_no_kernels(CPU)


@pytest.fixture
def no_kernels(able, monkeypatch):
    """Modules of kernels that cannot be imported: whoever runs one fails, whatever the device."""
    names = [module.name for module in pkgutil.walk_packages(lerf_ros.__path__, "lerf_ros.")]
    modules = [name for name in names if name.endswith("_triton")]
    assert len(modules) > 10
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)
        package, _, module = name.rpartition(".")
        monkeypatch.delattr(importlib.import_module(package), module, raising=False)


@pytest.fixture
def online():
    """Keyframes of a room, of which nothing is encoded or trained yet."""
    room = Room(10_001, width=96, height=72, frames=24)
    online = OnlineMapper(PRESETS["cpu"].override(SMALL), load_encoder("mini"), "cpu")
    for index in range(0, 24, 6):
        online.ingest(room[index])
    return online


def work_and_ask(online):
    """All that has kernels: training, crops, and a question with its closer look."""
    while online.pyramid_progress < 1 or online.mapper.steps < 60:
        online.advance()
    online.mapper.render(online.mapper.store.camera, online.mapper.store.host_poses[0], features=True)
    return find_targets(online.surface(500), online.encoder, ["a chair", "a table"])


def test_all_is_done_by_torch_when_kernels_are_switched_off(no_kernels, online, monkeypatch):
    monkeypatch.setenv("LERF_TRITON", "0")
    assert [answer.text for answer in work_and_ask(online)] == ["a chair", "a table"]
    assert online.mapper.fields.radiance.grid.backend == "numba"  # on a CPU
    assert passes_on(CPU) is TORCH


def test_kernels_that_are_missing_are_noticed(no_kernels, online):
    for work in (lambda: online.advance(may_step=False), online.mapper.step, lambda: passes_on(CPU)):
        with pytest.raises(ImportError, match="_triton"):
            work()
