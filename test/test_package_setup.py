"""tools/setup_env.py and tools/pin_requirements.py: what they refuse, recover from and repair."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOOD = {"version_info": [3, 12], "venv": True, "headers": True}


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def setup(monkeypatch, tmp_path) -> ModuleType:
    """The tool, looking at an environment in a temporary folder and at no ROS 2."""
    module = load("setup_env")
    monkeypatch.setattr(module, "ROS_DISTRO", "")
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / "venv")
    for name in ("INSTALLED", "INSTALLING"):
        monkeypatch.setattr(module, name, tmp_path / "venv" / getattr(module, name).name)
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    return module


def fake_python(setup: ModuleType, script: str) -> None:
    path = setup.ENVIRONMENT / "bin" / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_interpreter_is_described(setup):
    facts = setup.ask_python(sys.executable)
    assert tuple(facts["version_info"]) == sys.version_info[:2]
    assert setup.ask_python("/bin/false") is None


def test_missing_packages_are_named_in_one_command(setup, monkeypatch):
    setup.check_machine(GOOD)
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    with pytest.raises(setup.SetupError, match=re.escape("apt-get install python3.12-venv python3.12-dev g++")):
        setup.check_machine({**GOOD, "venv": False, "headers": False})


def test_machine_without_wheels_is_sent_to_the_distribution(setup, monkeypatch):
    monkeypatch.setattr(setup.platform, "machine", lambda: "aarch64")
    with pytest.raises(setup.SetupError, match="Install ROS 2 from its own distribution"):
        setup.check_machine(GOOD)


@pytest.mark.parametrize(
    ("distro", "facts", "message"),
    [
        ("", {"version": "3.9.2", "version_info": [3, 9]}, r"3\.10 to 3\.13 is needed.* is Python 3\.9\.2"),
        ("", {"version": "3.14.0", "version_info": [3, 14]}, r"is Python 3\.14\.0"),
        ("", None, "there is no python3"),
        ("jazzy", {"version": "3.12.1", "version_info": [3, 12], "rclpy": False}, "source /opt/ros/jazzy/setup.bash"),
    ],
)
def test_unsuitable_interpreters_are_refused(setup, monkeypatch, distro, facts, message):
    monkeypatch.setattr(setup, "ROS_DISTRO", distro)
    monkeypatch.setattr(setup, "ask_python", lambda path: facts)
    with pytest.raises(setup.SetupError, match=message):
        setup.find_python("python3")


def test_environment_that_cannot_be_built_upon(setup):
    wanted = {"root": "/here", "requirements": "x"}
    assert "no longer runs" in setup.unusable(wanted)
    fake_python(setup, "exit 0")
    assert setup.unusable(wanted) == ""
    setup.INSTALLED.write_text('{"root": "/elsewhere", "requirements": "x"}')
    assert "another folder" in setup.unusable(wanted)
    setup.INSTALLING.touch()
    assert "interrupted" in setup.unusable(wanted)


def test_cmake_paths_are_repaired(setup):
    fake_python(setup, "echo /usr/include/python3.12; echo /venv/numpy/include")
    path = setup.ENVIRONMENT / "share" / "std_msgs" / "cmake" / "export.cmake"
    path.parent.mkdir(parents=True)
    built_at = "/opt/python/cp312-cp312"
    headers = f"{built_at}/include/python3.12;{built_at}/lib/python3.12/site-packages/numpy/_core/include"
    path.write_text(f'INTERFACE_INCLUDE_DIRECTORIES "{headers};/other"')
    setup.repair_cmake_paths()
    assert path.read_text() == 'INTERFACE_INCLUDE_DIRECTORIES "/usr/include/python3.12;/venv/numpy/include;/other"'


def test_failed_installation_names_the_log(setup):
    fake_python(setup, "exit 1")
    with pytest.raises(setup.SetupError, match=r"pip\.log"):
        setup.pip(["torch"], "constraints.txt")


@pytest.mark.parametrize(
    ("pythons", "marker"),
    [
        (["3.10", "3.11", "3.12", "3.13"], ""),
        (["3.12", "3.13"], ' ; python_version >= "3.12"'),
        (["3.10", "3.12"], ' ; python_version == "3.10" or python_version == "3.12"'),
    ],
)
def test_markers(pythons, marker):
    assert load("pin_requirements").marker(pythons) == marker
