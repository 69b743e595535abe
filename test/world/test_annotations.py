import json
import shutil

import numpy as np
import pytest

from lerf_ros.world.annotations import has_labels, read_labels
from lerf_ros.world.nerfstudio import NerfstudioFolder
from lerf_ros.world.recordings import RecordingError


@pytest.mark.parametrize("world_scale", [1.0, 0.25])
def test_lerf_views_are_where_they_were_rendered(labelled_scene, world_scale):
    source = NerfstudioFolder(labelled_scene.data, world_scale)
    views = read_labels(labelled_scene.lerf, source)
    assert [view.name for view in views] == ["0_rgb.json", "1_rgb.json", "2_rgb.json"]
    for view, pose in zip(views, labelled_scene.poses, strict=True):
        np.testing.assert_allclose(view.T_world_camera[:3, :3], pose[:3, :3], atol=1e-9)
        np.testing.assert_allclose(view.T_world_camera[:3, 3], world_scale * pose[:3, 3], atol=1e-9)
        want = labelled_scene.camera
        for name in ("fx", "fy", "cx", "cy", "width", "height"):
            assert getattr(view.camera, name) == pytest.approx(getattr(want, name))
        np.testing.assert_array_equal(view.image, labelled_scene.room.view(want, pose).image)
        assert view.frame is None


def test_langsplat_views_are_frames(labelled_scene):
    source = NerfstudioFolder(labelled_scene.data)
    views = read_labels(labelled_scene.langsplat, source)
    assert [view.frame for view in views] == [3, 8]
    for view in views:
        np.testing.assert_array_equal(view.image, source[view.frame].image)
        np.testing.assert_allclose(view.T_world_camera, source[view.frame].T_world_camera)
        assert view.camera == source.camera


def test_boxes_include_their_edges_and_any_of_several_counts(labelled_scene, tmp_path):
    folder = shutil.copytree(labelled_scene.lerf, tmp_path / "labels")
    file = folder / "0_rgb.json"
    shapes = [
        {"label": "mug", "shape_type": "rectangle", "points": [[30, 8], [10, 20]]},
        {"label": "mug", "shape_type": "rectangle", "points": [[100, 100], [110, 104.5]]},
    ]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shapes": shapes}))
    view = read_labels(folder, NerfstudioFolder(labelled_scene.data))[0]
    inside = [(10, 8), (30, 20), (20, 14), (100, 104), (110, 100)]
    outside = [(9, 14), (31, 14), (20, 7), (20, 21), (60, 50), (105, 105)]
    assert all(view.is_right("mug", uv) for uv in inside) and not any(view.is_right("mug", uv) for uv in outside)


def _edit(path, change):
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


LERF_DAMAGE = [
    ("keyframes.json", lambda m: m["keyframes"].pop(), "2_rgb.json has no camera"),
    ("keyframes.json", lambda m: m.update(camera_type="fisheye"), "camera_type"),
    ("keyframes.json", lambda m: m.pop("render_width"), '"render_width" must be'),
    ("keyframes.json", lambda m: m.update(render_width=500), "another shape"),
    ("keyframes.json", lambda m: m["keyframes"][1].update(matrix="[1, 2]"), "keyframe 1"),
    ("keyframes.json", lambda m: m["keyframes"][1].update(properties="[]"), "FOV"),
    ("keyframes.json", lambda m: m.update(keyframes=None), 'no list of "keyframes"'),
    ("1_rgb.json", lambda m: m["shapes"][0].update(shape_type="polygon"), "not a rectangle"),
    ("1_rgb.json", lambda m: m["shapes"][0].update(points=[[1, 2]]), "two corners"),
    ("1_rgb.json", lambda m: m["shapes"][0].update(points=[[1, 2], [3]]), "two corners"),
    ("1_rgb.json", lambda m: m["shapes"][0].update(label=" "), "without a name"),
    ("1_rgb.json", lambda m: m.update(shapes=[]), "marks nothing"),
    ("1_rgb.json", lambda m: m.update(imageWidth=80, imageHeight=60), "its labels are for"),
]
LANGSPLAT_DAMAGE = [
    ("frame_00004.json", lambda m: m["info"].update(name="frame_00099.jpg"), "has 0"),
    ("frame_00004.json", lambda m: m["info"].update(width=80), "another shape"),
    ("frame_00004.json", lambda m: m.pop("info"), '"info"'),
    ("frame_00004.json", lambda m: m["objects"][0].pop("bbox"), "two corners"),
    ("frame_00004.json", lambda m: m.pop("objects"), 'no list of "objects"'),
]


@pytest.mark.parametrize(
    ("which", "name", "change", "said"),
    [("lerf", *damage) for damage in LERF_DAMAGE] + [("langsplat", *damage) for damage in LANGSPLAT_DAMAGE],
)
def test_labels_that_do_not_fit_are_refused(labelled_scene, tmp_path, which, name, change, said):
    folder = shutil.copytree(getattr(labelled_scene, which), tmp_path / "labels")
    _edit(folder / name, change)
    with pytest.raises(RecordingError, match=said):
        read_labels(folder, NerfstudioFolder(labelled_scene.data))


def test_labels_need_a_source_that_they_can_belong_to(labelled_scene, tmp_path):
    for folder, said in (
        (labelled_scene.lerf, "belongs to a nerfstudio folder"),
        (labelled_scene.langsplat, "no names"),
    ):
        with pytest.raises(RecordingError, match=said):
            read_labels(folder, labelled_scene.room)
    bent = shutil.copytree(labelled_scene.data, tmp_path / "bent")
    _edit(bent / "transforms.json", lambda m: m.update(camera_model="OPENCV", k1=0.1))
    with pytest.raises(RecordingError, match="distorted"):
        read_labels(labelled_scene.langsplat, NerfstudioFolder(bent))
    assert has_labels(labelled_scene.lerf) and has_labels(labelled_scene.langsplat)
    assert not has_labels(labelled_scene.data) and not has_labels(tmp_path / "nowhere")
    with pytest.raises(RecordingError, match="neither"):
        read_labels(labelled_scene.data, NerfstudioFolder(labelled_scene.data))
