"""Pictures of recorded scenes in which somebody marked where things are: the labels of LERF, and those of LangSplat.

**LERF** (section 4.3: 72 objects in 5 scenes, marked in rendered novel views). One folder per scene, the "Localization
eval dataset" that the authors name in https://github.com/kerrj/lerf/issues/27, which also describes its use:

- `keyframes.json`, the camera path of nerfstudio's former viewer: `render_width`, `render_height`, `keyframes`, each
  with `matrix` (16 numbers as a JSON string, column by column: camera to world, OpenGL camera axes) and the vertical
  field of view in degrees (`properties`, a JSON string of pairs, "FOV" among them; or `fov`). It is written by
  `CameraPanel.jsx` of https://github.com/nerfstudio-project/nerfstudio (viewer_legacy) in the space that nerfstudio
  turns, centres and scales every scene into: `nerfstudio_normalisation`.
- `0_rgb.json`, `1_rgb.json`, ... in LabelMe's format: `imageWidth`, `imageHeight` (480 x 270 where the renderings are
  1920 x 1080), `shapes`, each a "rectangle" with `label` and two opposite corners, in any order, as `points`. File i
  belongs to keyframe i. `0_rgb.png`, the picture that was labelled, lies beside it.

How the two files fit together was learnt from public code that evaluates on them: `parse_keyframes` and
`evaluate_scene` of Efficient-LERF, and a loader of the rectangles in another repository; the files themselves were not
at hand. Where the labelled picture is there, the evaluation compares it with the map's rendering from the same camera,
so that a wrong reading cannot go unnoticed.

**LangSplat**, `lerf_ovs/label/<scene>/frame_00041.json` (ISAT's format; seen in
https://github.com/HanyangChan/langsplat_os, read as `eval/evaluate_iou_loc.py` of
https://github.com/minghanqin/LangSplat does): `info` with `name`, `width`, `height` of a frame of the recording, and
`objects` with `category`, `segmentation` (a polygon, not used here) and `bbox` (x, y of two opposite corners).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose, check_pose
from lerf_ros.world.nerfstudio import PIXEL_CENTRE, NerfstudioFolder, nerfstudio_normalisation, read_picture
from lerf_ros.world.recordings import RecordingError
from lerf_ros.world.source import FrameSource

KEYFRAMES = "keyframes.json"
_LERF_FILE, _LANGSPLAT_FILE = re.compile(r"(\d+)_rgb\.json"), re.compile(r"frame_\d+\.json")
_SAME_SHAPE = 0.01  # relative difference of aspect ratios that rounding to whole pixels explains


@dataclass(frozen=True, eq=False)
class LabelledView:
    """A view and what is marked in it.

    Attributes:
        name: of the file with the labels.
        camera: pinhole, of the size in which the boxes are given.
        T_world_camera: (4, 4), optical axes, in the world of the source.
        boxes: text -> (B, 4) left, top, right, bottom in pixels; each of the B is a right place.
        image: (H, W, 3) uint8 RGB, the labelled picture, of the camera's size; None: not there.
        frame: which frame of the source it is; None: a view of its own.
    """

    name: str
    camera: Camera
    T_world_camera: Pose
    boxes: dict[str, NDArray[np.float64]]
    image: NDArray[np.uint8] | None = None
    frame: int | None = None

    def is_right(self, text: str, uv: Sequence[float]) -> bool:
        """Whether the pixel uv lies in one of the text's boxes, edges included: its indices are compared with the
        numbers of the file, as the evaluations named above do."""
        boxes = self.boxes[text]
        return bool(((boxes[:, :2] <= uv) & (uv <= boxes[:, 2:])).all(axis=1).any())


def has_labels(folder: Path) -> bool:
    """Whether a folder holds labels of one of the two formats."""
    if (folder / KEYFRAMES).is_file():
        return True
    return folder.is_dir() and any(_LANGSPLAT_FILE.fullmatch(path.name) for path in folder.iterdir())


def read_labels(folder: Path, source: FrameSource) -> list[LabelledView]:
    """The labelled views of a scene.

    Args:
        source: the scene's frames; for LERF's labels a `NerfstudioFolder` with all frames that its authors had.
    Raises:
        RecordingError: no labels, damaged ones, or ones that do not fit the source; the message names the file.
    """
    if (folder / KEYFRAMES).is_file():
        return _read_lerf(folder, source)
    files = sorted(p for p in folder.glob("*.json") if _LANGSPLAT_FILE.fullmatch(p.name))
    if not files:
        raise RecordingError(
            f"{folder} has neither {KEYFRAMES} with 0_rgb.json, ... (LERF) nor frame_00001.json, ... (LangSplat)"
        )
    return [_read_langsplat(path, source) for path in files]


def _read_lerf(folder: Path, source: FrameSource) -> list[LabelledView]:
    path = folder / KEYFRAMES
    if not isinstance(source, NerfstudioFolder):
        raise RecordingError(f"{path} belongs to a nerfstudio folder (transforms.json), {source.name} is none")
    cameras = _read_camera_path(path, source)
    views = []
    for file in sorted(folder.glob("*_rgb.json"), key=lambda p: (len(p.name), p.name)):
        match = _LERF_FILE.fullmatch(file.name)
        if match is None:
            continue
        number = int(match[1])
        if number >= len(cameras):
            raise RecordingError(f"{file} has no camera: {path} has {len(cameras)} keyframes, counted from 0")
        labels = _read_object(file)
        camera, T_world_camera = cameras[number]
        size = int(_number(labels, "imageWidth", file)), int(_number(labels, "imageHeight", file))
        boxes: dict[str, list[NDArray[np.float64]]] = {}
        for shape in _list(labels, "shapes", file):
            if shape.get("shape_type", "rectangle") != "rectangle":
                raise RecordingError(f'{file}: the shape "{shape.get("label")}" is not a rectangle')
            boxes.setdefault(str(shape.get("label", "")), []).append(_box(shape.get("points"), file))
        picture = file.with_suffix(".png")
        image = read_picture(picture) if picture.is_file() else None
        if image is not None and image.shape[1::-1] != size:
            raise RecordingError(f"{picture} is {image.shape[1]}x{image.shape[0]}, its labels are for {size}")
        views.append(
            LabelledView(file.name, _resized(camera, size, file), T_world_camera, _stacked(boxes, file), image)
        )
    if not views:
        raise RecordingError(f"{folder} has {KEYFRAMES}, but no labels (0_rgb.json, ...)")
    return views


def _read_camera_path(path: Path, source: NerfstudioFolder) -> list[tuple[Camera, Pose]]:
    meta = _read_object(path)
    if meta.get("camera_type", "perspective") != "perspective":
        raise RecordingError(f'{path}: camera_type "{meta["camera_type"]}" is not supported, only perspective is')
    width, height = int(_number(meta, "render_width", path)), int(_number(meta, "render_height", path))
    T_viewer_scene, scale = nerfstudio_normalisation(source)
    cameras = []
    for number, keyframe in enumerate(_list(meta, "keyframes", path)):
        try:
            T = np.array(_decoded(keyframe["matrix"]), dtype=np.float64).reshape(4, 4).T
            fov = float(dict(_decoded(keyframe["properties"]))["FOV"] if "properties" in keyframe else keyframe["fov"])
            T[:3, 3] /= scale
            T_world_camera = source.to_world(np.linalg.inv(T_viewer_scene) @ check_pose(T))
            f = 0.5 * height / math.tan(math.radians(fov) / 2)
            camera = Camera(f, f, width / 2 - PIXEL_CENTRE, height / 2 - PIXEL_CENTRE, width, height)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordingError(f"{path}: keyframe {number}: {error!r}") from error
        cameras.append((camera, T_world_camera))
    return cameras


def _read_langsplat(path: Path, source: FrameSource) -> LabelledView:
    meta = _read_object(path)
    info = meta.get("info")
    if not isinstance(info, dict) or "name" not in info:
        raise RecordingError(f'{path} has no "info" with the "name" of its picture')
    if not isinstance(source, NerfstudioFolder):
        raise RecordingError(f"{path} names the frame {info['name']}, but frames of {source.name} have no names")
    if source.distorted:
        raise RecordingError(
            f"{path} marks pixels of a picture, but {source.name} has distorted pictures, which are read undistorted: "
            "use the pictures that were labelled (those of lerf_ovs are undistorted)"
        )
    stem = Path(str(info["name"])).stem
    frames = [i for i, name in enumerate(source.file_names) if Path(name).stem == stem]
    if len(frames) != 1:
        raise RecordingError(f"{path} is about {info['name']}, of which {source.name} has {len(frames)}")
    frame = source[frames[0]]
    size = int(_number(info, "width", path)), int(_number(info, "height", path))
    camera = _resized(frame.camera, size, path)
    boxes: dict[str, list[NDArray[np.float64]]] = {}
    for thing in _list(meta, "objects", path):
        flat = thing.get("bbox")
        points = [flat[:2], flat[2:]] if isinstance(flat, list) else flat
        boxes.setdefault(str(thing.get("category", "")), []).append(_box(points, path))
    image = frame.image if frame.camera == camera else None
    return LabelledView(path.name, camera, frame.T_world_camera, _stacked(boxes, path), image, frames[0])


def _resized(camera: Camera, size: tuple[int, int], path: Path) -> Camera:
    """The camera of the same view in another size."""
    width, height = size
    if abs(width * camera.height / (height * camera.width) - 1.0) > _SAME_SHAPE:
        raise RecordingError(
            f"{path} labels a picture of {width}x{height}, its camera takes {camera.width}x{camera.height}: "
            "another shape"
        )
    if size == (camera.width, camera.height):
        return camera
    sx, sy = width / camera.width, height / camera.height  # pixel edges scale, see Camera.scaled
    cx, cy = (camera.cx + 0.5) * sx - 0.5, (camera.cy + 0.5) * sy - 0.5
    return Camera(camera.fx * sx, camera.fy * sy, cx, cy, width, height)


def _box(points: Any, path: Path) -> NDArray[np.float64]:
    try:
        corners = np.array(points, dtype=np.float64)
    except (TypeError, ValueError):
        corners = np.empty(0)
    if corners.shape != (2, 2) or not np.isfinite(corners).all():
        raise RecordingError(f"{path}: a box needs two corners (x, y), it has {points}")
    return np.concatenate([corners.min(axis=0), corners.max(axis=0)])


def _stacked(boxes: dict[str, list[NDArray[np.float64]]], path: Path) -> dict[str, NDArray[np.float64]]:
    if not boxes or any(not text.strip() for text in boxes):
        raise RecordingError(f"{path} marks nothing, or something without a name")
    return {text: np.stack(several) for text, several in boxes.items()}


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RecordingError(f"{path} must hold an object, not a {type(value).__name__}")
    return value


def _number(meta: dict[str, Any], key: str, path: Path) -> float:
    value = meta.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise RecordingError(f'{path}: "{key}" must be a positive number, not {value!r}')
    return value


def _list(meta: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    value = meta.get(key)
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise RecordingError(f'{path} has no list of "{key}"')
    return value
