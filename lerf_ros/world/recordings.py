"""Recorded RGB-D folders in the layout of 7-Scenes and of the TSDF-fusion demos."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import check_pose
from lerf_ros.mapping.frame import Frame

SENSOR_RATE_HZ = 30.0  # frame numbers in such folders count the images of a Kinect
DEPTH_UNIT = 0.001  # m
NO_DEPTH = (0, 65535)
INTRINSICS = "camera-intrinsics.txt"


class RecordingError(ValueError):
    """A recording cannot be read; the message names the file and says what to do."""


class RgbdFolder:
    """A folder as a `FrameSource`.

    Per frame: `frame-000000.color.jpg` or `.png`; `.depth.png`, 16-bit millimetres, 0 and 65535 not measured (missing
    file: a frame without depth); `.pose.txt`, camera-to-world (4, 4), metres, optical axes. Once:
    `camera-intrinsics.txt`, (3, 3), pixels. Frames whose pose is not finite (tracking was lost) are left out and
    counted in `skipped`.

    Raises:
        RecordingError: folder, frames, intrinsics or poses are missing or damaged (on construction), or a picture is
            (when its frame is read).
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        if not self._folder.is_dir():
            raise RecordingError(f"there is no folder {self._folder}")
        colour = sorted(p for p in self._folder.iterdir() if re.fullmatch(r"frame-\d+\.color\.(jpg|png)", p.name))
        if not colour:
            raise RecordingError(f"{self._folder} has no frame-NNNNNN.color.jpg or .png: is it an RGB-D recording?")
        self.name = self._folder.resolve().name
        poses = [_read_pose(_beside(p, "pose.txt")) for p in colour]
        tracked = [pose is not None for pose in poses]
        self.skipped = tracked.count(False)
        self._colour = [p for p, kept in zip(colour, tracked, strict=True) if kept]
        self._poses = [pose for pose in poses if pose is not None]
        if not self._poses:
            raise RecordingError(f"none of the {len(colour)} poses in {self._folder} is finite")
        self._numbers = [int(p.name[len("frame-") :].split(".")[0]) for p in self._colour]
        steps = np.diff(self._numbers)
        self.rate_hz = SENSOR_RATE_HZ / float(np.median(steps)) if len(steps) else SENSOR_RATE_HZ
        height, width = _read_picture(self._colour[0], cv2.IMREAD_COLOR).shape[:2]
        self.camera = _read_camera(self._folder / INTRINSICS, width, height)

    def __len__(self) -> int:
        return len(self._colour)

    def __getitem__(self, i: int) -> Frame:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, there is no frame {i}")
        image = cv2.cvtColor(_read_picture(self._colour[i], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        depth_path = _beside(self._colour[i], "depth.png")
        depth_z = _read_depth(depth_path) if depth_path.exists() else None
        stamp_ns = round(self._numbers[i] * 1e9 / SENSOR_RATE_HZ)
        try:
            return Frame(stamp_ns, image, depth_z, self.camera, self._poses[i])
        except ValueError as error:
            raise RecordingError(f"{self._colour[i]}: {error}") from error


def _beside(colour: Path, ending: str) -> Path:
    return colour.with_name(f"{colour.name.split('.')[0]}.{ending}")


def _read_picture(path: Path, flags: int) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), flags)
    if picture is None:
        raise RecordingError(f"{path} is damaged: it cannot be decoded")
    return picture


def _read_depth(path: Path) -> np.ndarray:
    """depth_z (H, W) float32 in metres, NaN where not measured."""
    raw = _read_picture(path, cv2.IMREAD_UNCHANGED)
    if raw.dtype != np.uint16 or raw.ndim != 2:
        raise RecordingError(
            f"{path} must be a 16-bit picture of one channel (millimetres), it is {raw.dtype} {raw.shape}"
        )
    return np.where(np.isin(raw, NO_DEPTH), np.nan, raw * np.float32(DEPTH_UNIT)).astype(np.float32)


def _read_numbers(path: Path, rows: int) -> np.ndarray:
    """A square matrix from a text file."""
    try:
        numbers = np.array(path.read_text().split(), dtype=np.float64)
    except (ValueError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path} does not hold numbers: {error}") from error
    if len(numbers) != rows * rows:
        raise RecordingError(f"{path} must hold a {rows}x{rows} matrix, it has {len(numbers)} numbers")
    return numbers.reshape(rows, rows)


def _read_pose(path: Path) -> np.ndarray | None:
    """T_world_camera (4, 4), or None where tracking was lost."""
    if not path.exists():
        raise RecordingError(f"{path} is missing: every colour image needs its camera-to-world pose")
    pose = _read_numbers(path, 4)
    if not np.isfinite(pose).all():
        return None
    try:
        return check_pose(pose)
    except ValueError as error:
        raise RecordingError(f"{path}: {error}") from error


def _read_camera(path: Path, width: int, height: int) -> Camera:
    if not path.exists():
        raise RecordingError(
            f"{path} is missing. 7-Scenes comes without it: write the 3x3 camera matrix there "
            '("585 0 320  0 585 240  0 0 1" is what its authors give for the Kinect)'
        )
    matrix = _read_numbers(path, 3)
    try:
        fx, fy, cx, cy = map(float, matrix[[0, 1, 0, 1], [0, 1, 2, 2]])
        return Camera(fx, fy, cx, cy, width, height)
    except ValueError as error:
        raise RecordingError(f"{path}: {error}") from error
