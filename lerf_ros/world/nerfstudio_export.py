"""Writes any source of frames as a folder that nerfstudio, instant-ngp and `NerfstudioFolder` read.

python -m lerf_ros.world.nerfstudio_export room:7 FOLDER
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.nerfstudio import DEPTH_UNIT, PIXEL_CENTRE, TRANSFORMS
from lerf_ros.world.source import FrameSource, open_source

_OPENGL_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])


def write_nerfstudio(source: FrameSource, folder: Path, depth: bool = True) -> None:
    """Writes `transforms.json`, `images/` (PNG, lossless) and, where the source has it, `depth/` (16-bit, mm; 0 where
    not measured or beyond 65 m).

    Raises:
        OSError: the folder cannot be written.
    """
    for name in ("images", "depth") if depth else ("images",):
        (folder / name).mkdir(parents=True, exist_ok=True)
    listed = []
    for i in range(len(source)):
        frame, name = source[i], f"frame_{i + 1:05d}.png"
        entry: dict[str, Any] = {
            "file_path": f"images/{name}",
            "transform_matrix": (frame.T_world_camera @ _OPENGL_FROM_OPTICAL).tolist(),
        }
        _write(folder / "images" / name, cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
        if depth and frame.depth_z is not None:
            counts = np.round(np.nan_to_num(frame.depth_z, nan=0.0) / DEPTH_UNIT)
            _write(folder / "depth" / name, np.where(counts < 2**16, counts, 0).astype(np.uint16))
            entry["depth_file_path"] = f"depth/{name}"
        if frame.camera != source.camera:
            entry |= _intrinsics(frame.camera)
        listed.append(entry)
    if any("fl_x" in entry for entry in listed):  # nerfstudio wants them in all frames, or in none
        meta: dict[str, Any] = {"camera_model": "PINHOLE"}
        listed = [_intrinsics(source.camera) | entry for entry in listed]
    else:
        meta = {"camera_model": "PINHOLE"} | _intrinsics(source.camera)
    (folder / TRANSFORMS).write_text(json.dumps(meta | {"frames": listed}, indent=1), encoding="utf-8")


def _intrinsics(camera: Camera) -> dict[str, float]:
    return {
        "fl_x": camera.fx,
        "fl_y": camera.fy,
        "cx": camera.cx + PIXEL_CENTRE,
        "cy": camera.cy + PIXEL_CENTRE,
        "w": camera.width,
        "h": camera.height,
    }


def _write(path: Path, picture: np.ndarray) -> None:
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"cannot write {path}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Export a generated room or a recording as a nerfstudio folder")
    parser.add_argument("source", help="room:SEED or the folder of a recording")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-depth", action="store_true", help="pictures and poses only")
    options = parser.parse_args(arguments)
    source = open_source(options.source)
    write_nerfstudio(source, options.folder, depth=not options.no_depth)
    print(f"{len(source)} frames of {source.name} in {options.folder}")


if __name__ == "__main__":
    main()
