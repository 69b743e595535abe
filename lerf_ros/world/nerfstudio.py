"""Folders of nerfstudio and instant-ngp: pictures with a `transforms.json`.

Format: https://docs.nerf.studio/quickstart/data_conventions.html. That pixel centres are at (0.5, 0.5) there is what
`Cameras.get_image_coords` of https://github.com/nerfstudio-project/nerfstudio does.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.lens import Lens, Rectification
from lerf_ros.geometry.poses import Pose, check_pose
from lerf_ros.geometry.units import METRES, SCENE_UNITS, Units
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.lens import colmap_lens
from lerf_ros.world.recordings import RecordingError

TRANSFORMS = "transforms.json"
RATE_HZ = 5.0  # such folders have no times: frames follow each other at the pace of a walking robot's camera
DEPTH_UNIT = 0.001  # of 16- and 32-bit depth pictures: scene units per count, nerfstudio's `depth_unit_scale_factor`
MAX_PX = 1600  # larger pictures are made smaller, as nerfstudio does
PIXEL_CENTRE = 0.5  # nerfstudio, instant-ngp and COLMAP: centre of the top-left pixel; here it is 0

_LOG = logging.getLogger(__name__)
_ENDINGS = ("", ".png", ".jpg", ".jpeg", ".JPG", ".PNG")  # instant-ngp's file_path may lack its own
_OPTICAL_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes: x right, y up, z backwards there


class NerfstudioFolder:
    """A folder with a `transforms.json` (or the path of such a file) as a `FrameSource`.

    Read are intrinsics for all frames or per frame (`fl_x`, `fl_y`, `cx`, `cy`, `w`, `h`, or `camera_angle_x` alone),
    `camera_model` and its distortion (see `colmap_lens`), and per frame `file_path` (with or without ending),
    `transform_matrix` (camera to world, OpenGL camera axes) and `depth_file_path` (16- or 32-bit picture in
    thousandths, 0: not measured; or `.npy` in whole units), depth along the optical axis. Frames come in the natural
    order of their paths; those without a picture on disk are left out and counted in `skipped`. Transparent pixels
    are white.

    Distortion is removed on reading, and pictures larger than `MAX_PX` are made smaller: every frame has a pinhole
    camera of its own intrinsics and of one common size. Masks (`mask_path`) are not used; the log says so.

    The world is that of the file as it stands: `applied_transform` and `applied_scale` say how that came about and
    change nothing here. COLMAP's reconstructions have no metre: without depth and without `world_scale`, lengths are
    in scene units, and settings such as `scene.far` or `keyframe.translation`, which are in metres, suit them only
    when `world_scale` makes them about as large as the place is.

    Args:
        world_scale: metres per unit of the file; multiplies positions and depth. None: 1 with depth; without depth the
            scale at which the largest coordinate of a camera, from the mean of all, is 1 (as nerfstudio scales); a
            warning is logged.

    Attributes:
        file_names: paths of the pictures as the file has them, in the order of the frames.
        world_scale: factor on positions and depth, as used.
        units: "m" with depth or a given `world_scale`, else "scene units".
        distorted: whether distortion is removed, so that pixels of frames are not those of the pictures.

    Raises:
        RecordingError: the file or all pictures are missing, it is damaged or says something unknown (on
            construction), or a picture is damaged or of another size (when its frame is read).
    """

    rate_hz = RATE_HZ

    def __init__(self, path: str | Path, world_scale: float | None = None) -> None:
        path = Path(path)
        self._file = path if path.suffix == ".json" else path / TRANSFORMS
        self._folder = self._file.parent
        self.name = self._folder.resolve().name
        self._meta = _read_json(self._file)
        listed = self._meta.get("frames")
        if not isinstance(listed, list) or not listed or not all(isinstance(f, dict) for f in listed):
            raise RecordingError(f'{self._file} lists no "frames"')
        listed = sorted(listed, key=lambda f: _natural(str(self._value(f, "file_path"))))
        found = [(f, p) for f in listed if (p := self._picture(str(f["file_path"]))) is not None]
        self.skipped = len(listed) - len(found)
        if not found:
            raise RecordingError(f"none of the {len(listed)} pictures of {self._file} exists: {listed[0]['file_path']}")
        if self.skipped:
            _LOG.warning("%d of %d pictures of %s do not exist", self.skipped, len(listed), self._file)
        if any("mask_path" in f for f in listed):
            _LOG.warning("%s has masks; they are not used", self._file)
        self._frames = [f for f, _ in found]
        self._pictures = [p for _, p in found]
        self.file_names = [str(f["file_path"]) for f in self._frames]
        self._size_of_first = read_picture(self._pictures[0]).shape[1::-1]
        self._lenses = [self._lens(f) for f in self._frames]
        if len({lens.size for lens in self._lenses}) > 1:
            raise RecordingError(f"{self._file}: its pictures have several sizes; a map needs one")
        self.distorted = any(lens.distorted for lens in self._lenses)
        self._cameras = [_no_larger(lens.pinhole()) for lens in self._lenses]
        self.camera = self._cameras[0]

        self._T_scene_opengl = [self._pose(f) for f in self._frames]
        self.units: Units = METRES
        if world_scale is None:
            world_scale = 1.0
            if not self.has_depth:
                self.units, world_scale = SCENE_UNITS, nerfstudio_normalisation(self)[1]
                _LOG.warning(
                    "%s has no depth and no known scale: positions are multiplied by %.4g, so that the largest camera "
                    "coordinate is 1, and lengths are in scene units, not metres; world_scale gives metres",
                    self._file,
                    world_scale,
                )
        if not (math.isfinite(world_scale) and world_scale > 0):
            raise RecordingError(f"world_scale must be a positive number of metres per scene unit, not {world_scale}")
        self.world_scale = world_scale

    @property
    def has_depth(self) -> bool:
        """Whether any frame names a depth picture."""
        return any("depth_file_path" in frame for frame in self._frames)

    @property
    def orientation_method(self) -> str:
        """How nerfstudio turns this scene before it shows it."""
        return str(self._meta.get("orientation_override", "up"))

    @property
    def scene_poses(self) -> NDArray[np.float64]:
        """(N, 4, 4) camera to world of all frames as in the file: OpenGL camera axes, scene units."""
        return np.stack(self._T_scene_opengl)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, i: int) -> Frame:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.name} has {len(self)} frames, there is no frame {i}")
        i %= len(self)
        camera, rectification = self._cameras[i], Rectification(self._lenses[i])
        image = rectification.colour(self._checked(read_picture(self._pictures[i]), i))
        depth_z = self._read_depth(i)
        if depth_z is not None:
            depth_z = rectification.depth(depth_z)
        if camera != rectification.camera:
            size = camera.width, camera.height
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            if depth_z is not None:
                depth_z = np.asarray(cv2.resize(depth_z, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
        return Frame(round(i * 1e9 / RATE_HZ), image, depth_z, camera, self.to_world(self._T_scene_opengl[i]))

    def to_world(self, T_scene_opengl: NDArray[np.float64]) -> Pose:
        """T_world_camera (4, 4), optical axes, in `units`, of a pose as in the file."""
        T = T_scene_opengl @ _OPTICAL_FROM_OPENGL
        T[:3, 3] *= self.world_scale
        return check_pose(T)

    def _checked(self, image: NDArray[Any], i: int) -> NDArray[Any]:
        if image.shape[1::-1] != self._lenses[i].size:
            raise RecordingError(
                f"{self._pictures[i]} is {image.shape[1]}x{image.shape[0]}, but {self._file} says "
                f"{self._lenses[i].size[0]}x{self._lenses[i].size[1]}"
            )
        return image

    def _read_depth(self, i: int) -> NDArray[np.float32] | None:
        """depth_z in `units`, of the picture's size, NaN where not measured; None: the frame has none."""
        name = self._frames[i].get("depth_file_path")
        if name is None:
            return None
        path = self._folder / str(name)
        if not path.exists():
            raise RecordingError(f"{path} is missing, but {self._file} names it")
        if path.suffix == ".npy":
            depth_z = np.load(path).squeeze().astype(np.float32)
        else:
            raw = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
            if raw is None or raw.ndim != 2 or raw.dtype not in (np.uint16, np.int32):
                raise RecordingError(f"{path} must be a 16- or 32-bit picture of one channel, or an .npy file")
            depth_z = raw * np.float32(DEPTH_UNIT)
        if depth_z.ndim != 2:
            raise RecordingError(f"{path} must hold one channel, it has the shape {depth_z.shape}")
        return np.where(depth_z > 0, depth_z * np.float32(self.world_scale), np.float32(np.nan))

    def _picture(self, name: str) -> Path | None:
        return next((p for ending in _ENDINGS if (p := self._folder / (name + ending)).is_file()), None)

    def _value(self, frame: Mapping[str, Any], key: str) -> Any:
        value = frame.get(key, self._meta.get(key))
        if value is None:
            raise RecordingError(f'{self._file}: a frame has no "{key}"')
        return value

    def _number(self, frame: Mapping[str, Any], key: str, default: float | None = None) -> float:
        value = frame.get(key, self._meta.get(key, default))
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise RecordingError(f'{self._file}: "{key}" must be a number, not {value!r}')
        return float(value)

    def _lens(self, frame: Mapping[str, Any]) -> Lens:
        width, height = self._size_of_first
        width, height = int(self._number(frame, "w", width)), int(self._number(frame, "h", height))
        if "fl_x" in frame or "fl_x" in self._meta:
            fx = self._number(frame, "fl_x")
        elif "camera_angle_x" in frame or "camera_angle_x" in self._meta:
            fx = 0.5 * width / math.tan(0.5 * self._number(frame, "camera_angle_x"))
        else:
            raise RecordingError(f'{self._file} says neither "fl_x" nor "camera_angle_x": the focal length is unknown')
        fy = self._number(frame, "fl_y", fx)
        cx, cy = self._number(frame, "cx", width / 2), self._number(frame, "cy", height / 2)
        listed = frame.get("distortion_params", self._meta.get("distortion_params"))
        names = ("k1", "k2", "k3", "k4", "p1", "p2")
        if listed is not None and len(listed) != len(names):
            raise RecordingError(f'{self._file}: "distortion_params" must be {", ".join(names)}')
        numbers = [self._number(frame, name, 0.0) for name in names] if listed is None else map(float, listed)
        k = dict(zip(names, numbers, strict=True))
        try:
            camera = Camera(fx, fy, cx - PIXEL_CENTRE, cy - PIXEL_CENTRE, width, height)
            return colmap_lens(str(self._meta.get("camera_model", "OPENCV")), camera, **k)
        except ValueError as error:
            raise RecordingError(f"{self._file}: {error}") from error

    def _pose(self, frame: Mapping[str, Any]) -> NDArray[np.float64]:
        try:
            T = np.array(self._value(frame, "transform_matrix"), dtype=np.float64)
            return check_pose(np.vstack([T, [0.0, 0.0, 0.0, 1.0]]) if T.shape == (3, 4) else T)
        except ValueError as error:
            raise RecordingError(f"{self._file}: transform_matrix of {frame['file_path']}: {error}") from error


def nerfstudio_normalisation(source: NerfstudioFolder) -> tuple[NDArray[np.float64], float]:
    """The space that nerfstudio's viewer and LERF's test cameras live in: ``x_viewer = scale * (T @ x_scene)``.

    That of nerfstudio's default settings: the mean of the cameras' y axes is turned into z, the mean camera becomes
    the origin, and the largest coordinate of a camera becomes 1. Learnt from `auto_orient_and_center_poses` and
    `Nerfstudio._generate_dataparser_outputs` in https://github.com/nerfstudio-project/nerfstudio.

    Returns:
        T (4, 4) rigid, and scale.
    Raises:
        RecordingError: the scene overrides how it is turned by something other than "up" or "none".
    """
    poses = source.scene_poses
    method = source.orientation_method
    if method not in ("up", "none"):
        raise RecordingError(f'"orientation_override": "{method}" is not supported, only "up" and "none" are')
    T = np.eye(4)
    if method == "up":
        up = poses[:, :3, 1].mean(axis=0)
        T[:3, :3] = _rotation_to_z(up / np.linalg.norm(up))
    T[:3, 3] = -T[:3, :3] @ poses[:, :3, 3].mean(axis=0)
    largest = float(np.abs((T @ poses)[:, :3, 3]).max())
    return T, 1.0 / largest if largest > 1e-9 else 1.0


def read_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; what is transparent is white. Raises RecordingError."""
    picture = cv2.imdecode(np.frombuffer(path.read_bytes() or b"\0", np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.dtype != np.uint8:
        raise RecordingError(f"{path} is damaged, or not a picture of 8 bits per channel")
    if picture.ndim == 2:
        picture = picture[..., None].repeat(3, axis=2)
    if picture.shape[2] == 4:
        alpha = picture[..., 3:] / 255.0
        picture = np.round(picture[..., :3] * alpha + 255.0 * (1.0 - alpha))
    return np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def _no_larger(camera: Camera) -> Camera:
    longest = max(camera.width, camera.height)
    return camera if longest <= MAX_PX else camera.scaled(MAX_PX / longest)


def _rotation_to_z(up: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shortest rotation that turns a unit vector into (0, 0, 1) (Rodrigues)."""
    axis, cosine = np.array([up[1], -up[0], 0.0]), up[2]  # up x z
    if cosine < -1.0 + 1e-12:
        return np.diag([1.0, -1.0, -1.0])
    skew = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    return np.eye(3) + skew + skew @ skew / (1.0 + cosine)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame_9 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordingError(f"there is no {path}") from error
    except (ValueError, OSError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error
    if not isinstance(meta, dict):
        raise RecordingError(f"{path} must hold an object, not a {type(meta).__name__}")
    return meta
