"""What is installed: interfaces, resource index, scripts, data; and that the descriptions of the package agree."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
INTERFACES = sorted(str(path.relative_to(ROOT)) for folder in ("msg", "srv") for path in (ROOT / folder).iterdir())
DATA_FILES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "lerf_ros").rglob("*")
    if path.is_file() and path.suffix not in {".py", ".pyc"} and "__pycache__" not in path.parts
)


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def prefix() -> Path:
    """Where colcon has installed the package."""
    index = pytest.importorskip("ament_index_python.packages", reason="needs ROS 2")
    try:
        return Path(index.get_package_prefix("lerf_ros"))
    except index.PackageNotFoundError:
        pytest.skip("needs the built workspace: source tools/env.sh")


# Installed by colcon


@pytest.mark.ros
def test_resource_index_lists_the_interfaces(prefix):
    listed = (prefix / "share/ament_index/resource_index/rosidl_interfaces/lerf_ros").read_text().split()
    assert set(INTERFACES) <= set(listed)
    assert "srv/Query.srv" in listed


@pytest.mark.ros
@pytest.mark.parametrize("interface", INTERFACES)
def test_interface_is_installed(prefix, interface):
    installed = prefix / "share/lerf_ros" / interface
    assert installed.read_text() == (ROOT / interface).read_text()
    assert installed.with_suffix(".idl").exists()
    module = __import__(f"lerf_ros.{Path(interface).parent}", fromlist=[installed.stem])
    assert hasattr(module, installed.stem)


@pytest.mark.ros
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "scripts").iterdir()))
def test_script_is_installed_and_executable(prefix, script):
    installed = prefix / "lib/lerf_ros" / script
    assert os.access(installed, os.X_OK)
    assert installed.read_text().startswith("#!/usr/bin/env python3\n")  # follows the active virtual environment


@pytest.mark.ros
@pytest.mark.parametrize("folder", ["config", "launch", "rviz"])
def test_shared_folder_is_installed(prefix, folder):
    wanted = {path.name for path in (ROOT / folder).iterdir() if path.is_file()}
    assert wanted and wanted <= {path.name for path in (prefix / "share/lerf_ros" / folder).iterdir()}


@pytest.mark.ros
def test_data_files_are_installed(prefix):
    site = next(path.parent.parent for path in prefix.glob("**/lerf_ros/__init__.py"))  # .../site- or dist-packages
    assert not [name for name in DATA_FILES if not (site / name).exists()]


# Installed by pip, without ROS


def test_wheel_carries_code_and_data_but_no_interfaces(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "package.xml", "README.md", "requirements", "lerf_ros"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "lerf_ros").rglob("*.py")}
    assert not (code | set(DATA_FILES)) - names
    assert not {name for name in names if name.startswith(("lerf_ros/msg", "lerf_ros/srv"))}


# Descriptions that must agree


def test_versions_agree(manifest):
    version = manifest.findtext("version")
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest.group(1) == version
    question = [sys.executable, "setup.py", "--version"]
    printed = subprocess.run(question, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert printed.split()[-1] == version


def test_package_init_files_are_empty():
    """The generated interfaces bring an __init__.py of the same name, and either may win."""
    assert not [path for path in (ROOT / "lerf_ros").glob("**/__init__.py") if path.stat().st_size]


def test_every_import_is_declared(manifest):
    """package.xml names the ROS packages, requirements/ the others."""
    declared = {element.text for element in manifest if element.tag.endswith("depend")} | sys.stdlib_module_names
    declared |= {"lerf_ros"} | ({"cv2"} if "python3-opencv" in declared else set())
    for name in ("runtime.txt", "images.txt"):
        for requirement in re.findall(r"^[\w.-]+", (ROOT / "requirements" / name).read_text(), re.MULTILINE):
            declared |= modules_of(requirement)
    sources = [*(ROOT / "lerf_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]
    assert not {module for path in sources for module in top_level_imports(path)} - declared


def modules_of(distribution: str) -> set[str]:
    """Top-level modules that an installed distribution brings; none when it is not installed."""
    try:
        return {path.parts[0].removesuffix(".py") for path in files(distribution) or ()}
    except PackageNotFoundError:
        return set()


def top_level_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found
