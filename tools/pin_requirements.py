"""Writes requirements/constraints.txt afresh: one resolution per supported Python, merged with markers.

    python3 tools/pin_requirements.py

Needs python3.10 to python3.13 on PATH and a network; nothing is installed except pip into four temporary environments.
"""

import json
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
HEADER = "# Written by tools/pin_requirements.py: what was installed together and tested, for each supported Python.\n"


def resolve(python: str, scratch: Path) -> dict[str, str]:
    """Name -> version of everything that pip would install for this Python."""
    environment, report = scratch / python, scratch / f"{python}.json"
    subprocess.run([f"python{python}", "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip"], check=True)
    files = [part for name in ("runtime", "images", "ros", "dev") for part in ("-r", REQUIREMENTS / f"{name}.txt")]
    subprocess.run([*pip, "--dry-run", "--report", report, *files], check=True)
    found = [install["metadata"] for install in json.loads(report.read_text())["install"]]
    pins = {metadata["name"].lower().replace("_", "-"): metadata["version"] for metadata in found}
    version = subprocess.run([*pip[:3], "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    return {**pins, "pip": version}


def marker(pythons: list[str]) -> str:
    """The shortest environment marker for some of PYTHONS."""
    if pythons == list(PYTHONS):
        return ""
    if pythons == list(PYTHONS[-len(pythons) :]):
        return f' ; python_version >= "{pythons[0]}"'
    return " ; " + " or ".join(f'python_version == "{python}"' for python in pythons)


def main() -> None:
    pins: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as scratch:
        for python in PYTHONS:
            print(f"Python {python} ...", flush=True)
            for name, version in resolve(python, Path(scratch)).items():
                pins[name][version].append(python)
    lines = [f"{name}=={version}{marker(pythons)}" for name in sorted(pins) for version, pythons in pins[name].items()]
    (REQUIREMENTS / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
