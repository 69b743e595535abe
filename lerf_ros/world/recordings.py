"""Recorded RGB-D folders in the layout of 7-Scenes and of the TSDF-fusion demos."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import check_pose
from lerf_ros.geometry.units import METRES, Units
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.registration import Registration, estimate_registration

SENSOR_RATE_HZ = 30.0  # frame numbers in such folders count the images of a Kinect
DEPTH_UNIT = 0.001  # m
NO_DEPTH = (0, 65535)
REGISTRATION_FRAMES = 25  # to tell from whether depth is registered
INTRINSICS = "camera-intrinsics.txt"


class RecordingError(ValueError):
    """A recording cannot be read; the message names the file and says what to do."""


class RgbdFolder:
    """A folder as a `FrameSource`.

    Per frame: `frame-000000.color.jpg` or `.png`; `.depth.png`, 16-bit millimetres, 0 and 65535 not measured (missing
    file: a frame without depth); `.pose.txt`, camera-to-world (4, 4), metres, optical axes. Once:
    `camera-intrinsics.txt`, (3, 3), pixels. Frames whose pose is not finite (tracking was lost) are left out and
    counted in `skipped`.

    Where the depth turns out not to be registered to the colour images, the camera matrix and the poses are taken for
    the depth camera's (as in 7-Scenes): the colour camera is estimated, and frames have its intrinsics, its poses and
    depth registered to it. `registration` says so, or is None.

    Raises:
        RecordingError: folder, frames, intrinsics or poses are missing or damaged (on construction), or a picture is
            (when its frame is read).
    """

    units: Units = METRES

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
        self._depth_camera = _read_camera(self._folder / INTRINSICS, width, height)
        self.registration = self._find_registration()
        self.camera = self._depth_camera if self.registration is None else self.registration.colour

    def __len__(self) -> int:
        return len(self._colour)

    def __getitem__(self, i: int) -> Frame:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, there is no frame {i}")
        image, depth_z, T_world_camera = self._read_image(i), self._read_depth(i), self._poses[i]
        stamp_ns = round(self._numbers[i] * 1e9 / SENSOR_RATE_HZ)
        if self.registration is not None:
            T_world_camera = T_world_camera @ self.registration.T_depth_colour()
            if depth_z is not None:
                depth_z = self.registration.register(depth_z, self._depth_camera)
        try:
            return Frame(stamp_ns, image, depth_z, self.camera, T_world_camera)
        except ValueError as error:
            raise RecordingError(f"{self._colour[i]}: {error}") from error

    def _read_image(self, i: int) -> np.ndarray:
        return cv2.cvtColor(_read_picture(self._colour[i], cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)

    def _read_depth(self, i: int) -> np.ndarray | None:
        path = _beside(self._colour[i], "depth.png")
        return _read_depth(path) if path.exists() else None

    def _find_registration(self) -> Registration | None:
        """From a few frames spread over the recording. Damaged ones are left for whoever asks for them."""
        pairs = []
        for i in np.unique(np.linspace(0, len(self) - 1, REGISTRATION_FRAMES).astype(int)):
            try:
                image, depth_z = self._read_image(i), self._read_depth(i)
            except RecordingError:
                continue
            if depth_z is not None and depth_z.shape == image.shape[:2]:
                pairs.append((image, depth_z))
        return estimate_registration(pairs, self._depth_camera)


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
