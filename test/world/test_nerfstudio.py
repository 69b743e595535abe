import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import lerf_ros.world.nerfstudio as nerfstudio
from lerf_ros.world.nerfstudio import NerfstudioFolder, nerfstudio_normalisation
from lerf_ros.world.nerfstudio_export import main as export
from lerf_ros.world.nerfstudio_export import write_nerfstudio
from lerf_ros.world.poses import look_at
from lerf_ros.world.recordings import RecordingError
from lerf_ros.world.room import Room
from lerf_ros.world.source import open_source

WIDTH, HEIGHT = 48, 36
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def shade(x, y):
    """Smooth colours (.., 3) in [20, 235] of viewing directions (x, y, 1)."""
    return 127.5 + 107.5 * np.sin(np.stack([3 * x + y, 2 * y - x + 1, 2 * x + 2 * y + 2], axis=-1))


def poses(count):
    return [look_at(np.array([0.3 * i, -2.0, 1.0 + 0.1 * i]), np.array([0.1, 1.0, 0.5])) for i in range(count)]


def write(folder, meta, frames=3, picture=None):
    """A folder of `frames` pictures; `meta` wins over what is usual."""
    listed = []
    for i, pose in enumerate(poses(frames)):
        colours = np.full((HEIGHT, WIDTH, 3), 20 * i + 30, np.uint8) if picture is None else picture
        cv2.imwrite(str(folder / f"frame_{i}.png"), colours)
        listed.append({"file_path": f"frame_{i}.png", "transform_matrix": (pose @ OPENGL).tolist()})
    usual = {"fl_x": 40.0, "fl_y": 41.0, "cx": 24.0, "cy": 18.0, "w": WIDTH, "h": HEIGHT, "frames": listed}
    (folder / "transforms.json").write_text(json.dumps(usual | meta))
    return folder


def edit(folder, change):
    meta = json.loads((folder / "transforms.json").read_text())
    change(meta)
    (folder / "transforms.json").write_text(json.dumps(meta))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    room = Room(10_003, width=64, height=48, frames=5)
    write_nerfstudio(room, folder)
    return SimpleNamespace(room=room, folder=folder, source=open_source(str(folder)))


def test_round_trip(exported):
    room, source = exported.room, exported.source
    assert isinstance(source, NerfstudioFolder) and len(source) == len(room)
    assert source.camera == room.camera and source.world_scale == 1.0 and not source.distorted
    stamps = [source[i].stamp_ns for i in range(len(source))]
    assert stamps == [round(i * 1e9 / source.rate_hz) for i in range(5)]
    for i in range(len(room)):
        want, have = room[i], source[i]
        np.testing.assert_allclose(have.T_world_camera, want.T_world_camera, atol=1e-9)
        np.testing.assert_array_equal(have.image, want.image)
        np.testing.assert_array_equal(np.isnan(have.depth_z), np.isnan(want.depth_z))
        np.testing.assert_allclose(have.depth_z, want.depth_z, atol=0.0005 + 1e-6)


def test_without_depth_and_scale_lengths_are_in_scene_units(exported, tmp_path, caplog):
    assert exported.source.units == exported.room.units == "m"
    write_nerfstudio(exported.room, tmp_path, depth=False)
    assert not caplog.records
    source = open_source(str(tmp_path))
    assert source.units == "scene units" and "scene units, not metres" in caplog.text
    largest = max(np.abs(source[i].T_world_camera[:3, 3] - mean_centre(source)).max() for i in range(len(source)))
    assert largest == pytest.approx(1.0, rel=0.5)  # exactly so once the cameras' mean up direction is turned into z
    assert open_source(str(tmp_path), world_scale=1.0).units == "m"


def mean_centre(source):
    return np.mean([source[i].T_world_camera[:3, 3] for i in range(len(source))], axis=0)


def test_points_project_as_the_file_says(exported):
    """OpenCV with what the file says, in its convention of pixel centres, against our camera and pose."""
    meta = json.loads((exported.folder / "transforms.json").read_text())
    K = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1]])
    for i, listed in enumerate(meta["frames"]):
        T_opencv_world = OPENGL @ np.linalg.inv(np.array(listed["transform_matrix"]))
        frame = exported.source[i]
        x_camera = np.random.default_rng(i).uniform([-1, -1, 1], [1, 1, 4], (20, 3))
        x_world = x_camera @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
        rvec, _ = cv2.Rodrigues(T_opencv_world[:3, :3])
        uv_file, _ = cv2.projectPoints(x_world, rvec, T_opencv_world[:3, 3], K, None)
        camera = frame.camera
        ours = x_camera[:, :2] / x_camera[:, 2:] * [camera.fx, camera.fy] + [camera.cx, camera.cy]
        np.testing.assert_allclose(uv_file[:, 0] - 0.5, ours, atol=1e-6)


def perspective(x, y, k):
    """Where the ideal point (x, y) is in a picture with radial k1, k2, k3 and tangential p1, p2."""
    r2 = x * x + y * y
    radial = 1 + k["k1"] * r2 + k["k2"] * r2**2 + k.get("k3", 0) * r2**3
    p1, p2 = k.get("p1", 0), k.get("p2", 0)
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def fisheye(x, y, k):
    r = np.maximum(np.hypot(x, y), 1e-9)
    angle = np.arctan(r)
    bent = angle * sum(k[name] * angle ** (2 * n) for n, name in enumerate(("one", "k1", "k2", "k3", "k4")))
    return x * bent / r, y * bent / r


@pytest.mark.parametrize(
    ("model", "bend", "k", "max_px"),
    [
        ("OPENCV", perspective, {"k1": -0.12, "k2": 0.03, "k3": -0.004, "p1": 0.01, "p2": -0.006}, 1600),
        ("OPENCV", perspective, {"k1": 0.10, "k2": -0.02}, 160),
        ("OPENCV_FISHEYE", fisheye, {"k1": 0.02, "k2": -0.01, "k3": 0.003, "k4": -0.001}, 1600),
        ("PINHOLE", perspective, {"k1": 0.0, "k2": 0.0}, 160),
    ],
)
def test_distortion_is_removed(tmp_path, monkeypatch, model, bend, k, max_px):
    """A picture painted through the lens's own equations comes back as a pinhole would have painted it."""
    width, height = 320, 240
    v, u = np.mgrid[:height, :width]
    x_bent, y_bent = (u + 0.5 - 163) / 260, (v + 0.5 - 117) / 255  # the file's centre of the first pixel is (0.5, 0.5)
    x, y = x_bent.copy(), y_bent.copy()
    for _ in range(60):  # the lens's equations, solved for the ideal point
        x_now, y_now = bend(x, y, {"one": 1.0} | k)
        x, y = x + x_bent - x_now, y + y_bent - y_now
    picture = np.round(shade(x, y)[..., ::-1]).astype(np.uint8)
    intrinsics = {"fl_x": 260.0, "fl_y": 255.0, "cx": 163.0, "cy": 117.0, "w": width, "h": height}
    write(tmp_path, intrinsics | {"camera_model": model} | k, frames=1, picture=picture)
    monkeypatch.setattr(nerfstudio, "MAX_PX", max_px)
    source = NerfstudioFolder(tmp_path)
    camera, image = source.camera, source[0].image
    assert source.distorted == (model != "PINHOLE") and camera.width == min(width, max_px)
    v, u = np.mgrid[: camera.height, : camera.width]
    want = shade((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy)
    assert np.abs(image - want).max() < 2.0


def test_depth_follows_the_picture_and_the_scale(tmp_path):
    write(tmp_path, {"k1": 0.05})
    rng = np.random.default_rng(1)
    counts = rng.integers(500, 3000, (HEIGHT // 2, WIDTH // 2)).astype(np.uint16)
    counts[:4] = 0
    cv2.imwrite(str(tmp_path / "d0.png"), counts)
    np.save(tmp_path / "d1.npy", np.full((HEIGHT, WIDTH), 1.25))
    edit(
        tmp_path,
        lambda meta: [meta["frames"][i].update(depth_file_path=f"d{i}.{e}") for i, e in ((0, "png"), (1, "npy"))],
    )
    source = NerfstudioFolder(tmp_path, world_scale=2.0)
    depth_z = source[0].depth_z
    measured = depth_z[np.isfinite(depth_z)]  # never a mixture of two
    assert np.isin(np.round(measured * 500).astype(int), counts).all() and len(measured) > 0.7 * depth_z.size
    assert np.isnan(depth_z[:6]).all()  # half the size in the file: 4 rows are 8
    np.testing.assert_allclose(source[1].depth_z, 2.5)
    assert source[2].depth_z is None
    np.testing.assert_allclose(source[1].T_world_camera[:3, 3], 2 * poses(2)[1][:3, 3], atol=1e-12)
    assert NerfstudioFolder(tmp_path).world_scale == 1.0  # depth is in metres, so the scene is


def test_instant_ngp_and_blender_style(tmp_path):
    """The focal length as an angle, no size, paths without ending, transparent pixels, unpadded numbers."""
    picture = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    picture[..., 0], picture[:, 24:, 3] = 200, 255  # BGRA, blue; the left half is transparent
    listed = []
    for i in (10, 9, 2):
        cv2.imwrite(str(tmp_path / f"r_{i}.png"), picture)
        listed.append({"file_path": f"./r_{i}", "transform_matrix": (poses(11)[i] @ OPENGL)[:3].tolist()})
    listed.append(listed[0] | {"file_path": "./lost"})
    (tmp_path / "transforms.json").write_text(json.dumps({"camera_angle_x": 2 * np.arctan(0.5), "frames": listed}))
    source = open_source(str(tmp_path / "transforms.json"), world_scale=1.0)
    assert (source.camera.fx, source.camera.cx, source.camera.cy) == (pytest.approx(WIDTH), 23.5, 17.5)
    assert source.file_names == ["./r_2", "./r_9", "./r_10"] and source.skipped == 1
    np.testing.assert_allclose(source[1].T_world_camera, poses(11)[9], atol=1e-12)
    np.testing.assert_array_equal(source[0].image[0, [0, -1]], [[255, 255, 255], [0, 0, 200]])


def test_intrinsics_of_single_frames(tmp_path):
    write(tmp_path, {})
    edit(tmp_path, lambda meta: meta["frames"][1].update(fl_x=55.0, cx=20.5))
    source = NerfstudioFolder(tmp_path)
    assert (source[1].camera.fx, source[1].camera.cx) == (55.0, 20.0) and source[2].camera.fx == 40.0
    again = tmp_path / "again"
    write_nerfstudio(source, again)
    copied = NerfstudioFolder(again)
    assert [copied[i].camera for i in range(3)] == [source[i].camera for i in range(3)]


def test_without_depth_cameras_fill_the_unit_box(tmp_path):
    source = NerfstudioFolder(write(tmp_path, {}, frames=7))
    centres = np.stack([source[i].T_world_camera[:3, 3] for i in range(7)])
    T, scale = nerfstudio_normalisation(source)
    assert source.world_scale == pytest.approx(scale)
    shown = scale * (T @ source.scene_poses)[:, :3]  # in nerfstudio's viewer
    np.testing.assert_allclose(shown[:, :, 3].mean(axis=0), 0.0, atol=1e-12)
    assert np.abs(shown[:, :, 3]).max() == pytest.approx(1.0)
    up = shown[:, :, 1].mean(axis=0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-12)
    extent = np.linalg.norm(centres - centres.mean(axis=0), axis=1).max()
    assert extent == pytest.approx(np.linalg.norm(shown[:, :, 3], axis=1).max())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(frames=[]), "lists no"),
        (lambda m: m.update(camera_model="EQUIRECTANGULAR"), "EQUIRECTANGULAR is not supported"),
        (lambda m: m.update(k4=0.1), "k4 is not supported"),
        (lambda m: m.update(fl_x="far"), '"fl_x" must be a number'),
        (lambda m: m.update(fl_x=-3), "focal lengths must be positive"),
        (lambda m: m.pop("fl_x"), "the focal length is unknown"),
        (lambda m: m["frames"][1].update(w=20), "several sizes"),
        (lambda m: m["frames"][1].pop("transform_matrix"), 'no "transform_matrix"'),
        (lambda m: m["frames"][1].update(transform_matrix=(2 * np.eye(4)).tolist()), "frame_1.png"),
        (lambda m: [f.update(file_path="none/" + f["file_path"]) for f in m["frames"]], "none of the 3 pictures"),
        (lambda m: m.update(distortion_params=[0.1]), "distortion_params"),
    ],
)
def test_what_is_wrong_is_said_at_once(tmp_path, change, said):
    edit(write(tmp_path, {}), change)
    with pytest.raises(RecordingError, match=said):
        NerfstudioFolder(tmp_path)


def test_damaged_files(tmp_path):
    with pytest.raises(RecordingError, match="there is no"):
        NerfstudioFolder(tmp_path)
    (tmp_path / "transforms.json").write_text("{")
    with pytest.raises(RecordingError, match="cannot be read"):
        NerfstudioFolder(tmp_path)
    source = NerfstudioFolder(write(tmp_path, {}))
    (tmp_path / "frame_1.png").write_bytes(b"nothing")
    with pytest.raises(RecordingError, match=r"frame_1.png is damaged"):
        source[1]
    cv2.imwrite(str(tmp_path / "frame_2.png"), np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    with pytest.raises(RecordingError, match="49x36, but"):
        source[2]
    with pytest.raises(IndexError):
        source[3]
    with pytest.raises(RecordingError, match="world_scale"):
        NerfstudioFolder(tmp_path, world_scale=0.0)
    with pytest.raises(RecordingError, match="depth"):
        edit(tmp_path, lambda meta: meta["frames"][0].update(depth_file_path="depth/0.png"))
        NerfstudioFolder(tmp_path)[0]


def test_only_such_folders_have_a_scale(tmp_path):
    with pytest.raises(ValueError, match="metric"):
        open_source("room:7", world_scale=2.0)


def test_export_from_the_command_line(exported, tmp_path, capsys):
    export([str(exported.folder), str(tmp_path / "copy"), "--no-depth"])
    assert "5 frames" in capsys.readouterr().out
    copy = NerfstudioFolder(tmp_path / "copy", world_scale=1.0)
    assert copy[0].depth_z is None
    np.testing.assert_allclose(copy[4].T_world_camera, exported.source[4].T_world_camera, atol=1e-12)
