"""For several folders: a generated room as a recorded and labelled scene, which is what people download when they
reproduce a paper's figures; and a test module run once more under Triton's interpreter."""

import json
import re
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from test.interpreter import InterpreterRuns
from test.kernels import INTERPRETED

INTERPRETER_RUNS = pytest.StashKey[InterpreterRuns]()
FOV_DEG, RENDERED, LABELLED = 62.0, (320, 240), (160, 120)  # vertical field of view; sizes of LERF's labelled views
ENOUGH_PX = 40  # of a thing in a picture of 160x120, to be labelled


def pytest_collection_finish(session):
    """Begins at once with what runs beside the tests."""
    runs = session.config.stash[INTERPRETER_RUNS] = InterpreterRuns()
    if INTERPRETED or session.config.option.collectonly:
        return
    for item in session.items:
        if item.name == "test_under_the_interpreter" and not any(mark.args[0] for mark in item.iter_markers("skipif")):
            runs.start(item.path, options_of(item.module))


def pytest_sessionfinish(session):
    if INTERPRETER_RUNS in session.config.stash:
        session.config.stash[INTERPRETER_RUNS].end()


def options_of(module):
    """Of pytest, under the interpreter."""
    return getattr(module, "INTERPRETER_OPTIONS", ())


@pytest.fixture
def passed_under_the_interpreter(request):
    """() -> how many tests of the module pass in a process of their own, in which Triton interprets kernels; none may
    fail."""

    def passed():
        run = request.config.stash[INTERPRETER_RUNS].start(request.path, options_of(request.module))
        status, output = run.result()
        assert status == 0, output
        return int(re.search(r"(\d+) passed", output).group(1))

    return passed


@pytest.fixture(scope="session")
def labelled_scene(tmp_path_factory):
    """A nerfstudio folder of a room, and labels from truth in both formats (see `world/annotations.py`)."""
    from lerf_ros.geometry.camera import Camera
    from lerf_ros.world.nerfstudio_export import write_nerfstudio
    from lerf_ros.world.room import Room

    root = tmp_path_factory.mktemp("labelled")
    room = Room(10_007, width=160, height=120, frames=12)
    data, lerf, langsplat = root / "data" / "den", root / "lerf" / "den", root / "langsplat" / "den"
    write_nerfstudio(room, data)
    lerf.mkdir(parents=True)
    langsplat.mkdir(parents=True)

    f = LABELLED[1] / 2 / np.tan(np.radians(FOV_DEG) / 2)
    camera = Camera(f, f, LABELLED[0] / 2 - 0.5, LABELLED[1] / 2 - 0.5, *LABELLED)
    rng = np.random.default_rng(0)
    poses = [room.random_viewpoint(rng) for _ in range(3)]
    keyframes = []
    for i, pose in enumerate(poses):
        view = room.view(camera, pose)
        shapes = []
        for n, (text, box) in enumerate(marked(room, view)):
            corners = [box[:2], box[2:]] if n % 2 else [box[2:], box[:2]]  # people draw them either way
            shapes.append({"label": text, "points": corners, "shape_type": "rectangle", "group_id": None, "flags": {}})
        size = {"imageWidth": LABELLED[0], "imageHeight": LABELLED[1], "imagePath": f"{i}_rgb.png", "imageData": None}
        (lerf / f"{i}_rgb.json").write_text(json.dumps({"version": "5.2.1", "shapes": shapes} | size))
        cv2.imwrite(str(lerf / f"{i}_rgb.png"), view.image[..., ::-1])
        matrix = in_viewer(room, pose).T.ravel().tolist()  # column by column
        properties = [["FOV", FOV_DEG], ["NAME", f"Camera {i}"]]
        keyframes.append({"matrix": json.dumps(matrix), "properties": json.dumps(properties), "aspect": 4 / 3})
    path = {"keyframes": keyframes, "camera_type": "perspective", "camera_path": [], "fps": 24}
    path |= {"render_width": RENDERED[0], "render_height": RENDERED[1]}
    (lerf / "keyframes.json").write_text(json.dumps(path))

    for i in (3, 8):
        things = [
            {"category": text, "bbox": box, "segmentation": [], "group": n}
            for n, (text, box) in enumerate(marked(room, room.truth_view(i)))
        ]
        info = {"name": f"frame_{i + 1:05d}.jpg", "width": 160, "height": 120, "depth": 3}
        (langsplat / f"frame_{i + 1:05d}.json").write_text(json.dumps({"info": info, "objects": things}))
    return SimpleNamespace(room=room, data=data, lerf=lerf, langsplat=langsplat, camera=camera, poses=poses)


def marked(room, view):
    """(kind, [left, top, right, bottom]) of every object and piece of furniture that is well visible."""
    for thing in (*room.objects, *room.furniture):
        v, u = np.nonzero(view.instance == thing.instance_id)
        if len(v) >= ENOUGH_PX:
            yield thing.kind, [float(u.min()), float(v.min()), float(u.max()), float(v.max())]


def in_viewer(room, T_world_camera):
    """The OpenGL pose (4, 4) that nerfstudio's viewer has for a camera: up is z, the middle camera the origin, the
    largest coordinate of a camera 1."""
    flip = np.diag([1.0, -1.0, -1.0, 1.0])
    frames = room.trajectory @ flip
    up = frames[:, :3, 1].mean(axis=0)
    axis, angle = np.cross(up, [0, 0, 1]), np.arctan2(np.hypot(up[0], up[1]), up[2])
    turn = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()
    origin = frames[:, :3, 3].mean(axis=0)
    scale = 1 / np.abs((frames[:, :3, 3] - origin) @ turn.T).max()
    pose = T_world_camera @ flip
    shown = np.eye(4)
    shown[:3, :3] = turn @ pose[:3, :3]
    shown[:3, 3] = scale * turn @ (pose[:3, 3] - origin)
    return shown
