"""The order of docs/architecture.md holds: imports point back along the data, and only ros/ knows ROS."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "lerf_ros"
ROS_MODULES = re.compile(
    r"rclpy|ament_index_python|builtin_interfaces|cv_bridge|launch(_\w+)?|message_filters|rosidl_runtime_py|tf2_\w+|tf_transformations"
    r"|\w+_msgs|\w+_srvs|\w+_interfaces"
    rf"|{PACKAGE}\.(msg|srv|action)"
)


def folder_order(architecture: str) -> dict[str, int]:
    """Folder -> place in the line `a -> b, c -> d` of docs/architecture.md; folders of one place are strangers."""
    line = re.search(r"^\s*\w+(, \w+)*( -> \w+(, \w+)*)+\s*$", architecture, re.MULTILINE)
    assert line, "docs/architecture.md has no line 'geometry -> ...'"
    places = line.group().strip().split(" -> ")
    return {folder: place for place, folders in enumerate(places) for folder in folders.split(", ")}


def imported_modules(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a file imports, in functions too; relative imports made absolute."""
    package = module.rpartition(".")[0] if path.name != "__init__.py" else module
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, base]).rstrip(".")
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def violations(root: Path, order: dict[str, int]) -> list[str]:
    """What in root/lerf_ros breaks the rules, as 'file:line: reason'."""
    found = []
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        folder = parts[1] if len(parts) > 2 else ""
        if folder and folder not in order:
            found.append(f"{path}: folder {folder} has no place in docs/architecture.md")
            continue
        for line, name in imported_modules(path, module):
            first, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if folder != "ros" and re.match(rf"({ROS_MODULES.pattern})(\.|$)", name):
                found.append(f"{path}:{line}: {name} belongs to ROS, and only ros/ knows ROS")
            elif first == PACKAGE and target in order and target != folder and order[target] >= order.get(folder, -1):
                found.append(f"{path}:{line}: {folder or PACKAGE} must not import {target}: it does not come before")
    return found


@pytest.fixture
def order() -> dict[str, int]:
    return folder_order((ROOT / "docs" / "architecture.md").read_text())


def test_order_names_every_folder(order):
    folders = {path.name for path in (ROOT / PACKAGE).iterdir() if (path / "__init__.py").exists()}
    assert folders == set(order)
    assert order["geometry"] < order["field"] == order["render"] < order["mapping"] < order["ros"]


def test_imports_follow_the_order(order):
    assert not violations(ROOT, order)


@pytest.mark.parametrize(
    ("file", "source", "caught"),
    [
        ("mapping/a.py", "import rclpy", True),
        ("mapping/a.py", "from sensor_msgs.msg import Image", True),
        ("world/a.py", "def f():\n    from std_srvs.srv import Trigger", True),
        ("query/a.py", "from lerf_ros.srv import Query", True),
        ("query/a.py", "from lerf_ros import msg", True),
        ("query/a.py", "from ..msg import Target", True),
        ("world/a.py", "import cv_bridge", True),
        ("world/deeper/a.py", "import tf2_ros.buffer", True),
        ("geometry/a.py", "from lerf_ros.field.radiance import RadianceField", True),
        ("geometry/a.py", "from lerf_ros import ros", True),
        ("render/a.py", "import lerf_ros.field.encoding", True),
        ("field/a.py", "from ..render import volume", True),
        ("a.py", "from lerf_ros.geometry import camera", True),
        ("elsewhere/a.py", "import math", True),
        ("ros/a.py", "import rclpy\nfrom lerf_ros.srv import Query\nfrom lerf_ros.query import targets", False),
        ("query/a.py", "import numpy\nfrom lerf_ros.mapping.frame import Frame\nfrom . import b", False),
        ("world/a.py", "import rosbags.image\nimport launcher", False),
    ],
)
def test_checker_sees_each_kind_of_violation(tmp_path, order, file, source, caught):
    path = tmp_path / PACKAGE / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert bool(violations(tmp_path, order)) == caught
