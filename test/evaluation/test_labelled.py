import json
import re

import numpy as np
import pytest

from lerf_ros.evaluation.labelled import (
    PUBLISHED,
    LabelOutcome,
    ViewQuality,
    accuracy,
    judge_view,
    main,
    scenes,
    table,
    training_frames,
)
from lerf_ros.world.annotations import read_labels
from lerf_ros.world.nerfstudio import NerfstudioFolder

STILL = np.eye(4)


def _oracle(room, move=STILL):
    """Relevancy from the room's truth, seen by a camera that is moved by `move` in its own axes."""

    def relevancy_view(camera, T_world_camera, texts, stride):
        instance = room.view(camera, T_world_camera @ move).instance[stride // 2 :: stride, stride // 2 :: stride]
        kinds = {thing.instance_id: thing.kind for thing in (*room.objects, *room.furniture)}
        of_pixel = np.array([kinds.get(i, "") for i in instance.ravel()]).reshape(instance.shape)
        return np.stack([(of_pixel == text).astype(np.float32) for text in texts])

    return relevancy_view


def _ask(scene, which, relevancy_view, stride=1):
    views = read_labels(getattr(scene, which), NerfstudioFolder(scene.data))
    return [outcome for view in views for outcome in judge_view("den", view, relevancy_view, stride)]


@pytest.mark.parametrize("which", ["lerf", "langsplat"])
def test_an_oracle_is_always_right_and_a_shifted_one_is_not(labelled_scene, which):
    outcomes = _ask(labelled_scene, which, _oracle(labelled_scene.room))
    assert len(outcomes) >= 8 and accuracy(outcomes) == 1.0
    assert (
        accuracy(_ask(labelled_scene, which, _oracle(labelled_scene.room), stride=3)) > 0.8
    )  # small things fall through
    angle = np.radians(25)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    assert accuracy(_ask(labelled_scene, which, _oracle(labelled_scene.room, turn))) < 0.4


def test_a_random_answer_is_right_by_the_share_of_the_picture_that_is_marked(labelled_scene):
    views = read_labels(labelled_scene.lerf, NerfstudioFolder(labelled_scene.data))
    v, u = np.mgrid[:120, :160]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2)
    chance = np.mean(
        [np.mean([view.is_right(text, uv) for uv in pixels[::7]]) for view in views for text in view.boxes]
    )
    rng = np.random.default_rng(0)

    def random(camera, T_world_camera, texts, stride):
        return rng.random((len(texts), camera.height, camera.width), dtype=np.float32)

    outcomes = [o for _ in range(60) for o in _ask(labelled_scene, "lerf", random)]
    assert accuracy(outcomes) == pytest.approx(chance, abs=4 * np.sqrt(chance / len(outcomes)))


def test_the_pixel_of_a_strided_view(labelled_scene):
    view = read_labels(labelled_scene.lerf, NerfstudioFolder(labelled_scene.data))[0]

    def peak(camera, T_world_camera, texts, stride):
        values = np.zeros((len(texts), 30, 40), np.float32)
        values[:, 7, 11] = 0.75
        return values

    outcome = judge_view("den", view, peak, stride=4)[0]
    assert outcome.uv == (46, 30) and outcome.relevancy == 0.75
    with pytest.raises(ValueError, match="no views"):
        judge_view("den", view, lambda *_: None)


def test_labelled_frames_do_not_train(labelled_scene):
    source = NerfstudioFolder(labelled_scene.data)
    views = read_labels(labelled_scene.langsplat, source)
    assert training_frames(source, views, train_on_labelled=False) == [0, 1, 2, 4, 5, 6, 7, 9, 10, 11]
    assert training_frames(source, views, train_on_labelled=True) == list(range(12))
    novel = read_labels(labelled_scene.lerf, source)
    assert training_frames(source, novel, train_on_labelled=False) == list(range(12))


def test_table():
    def outcome(scene, text, right):
        return LabelOutcome(scene, "0", text, (0, 0), 0.5, right)

    outcomes = [outcome("a", "x", True), outcome("a", "y", False), outcome("b", "x", True), outcome("b", "z", True)]
    lines = table(outcomes, [ViewQuality("a", "0", 20.0), ViewQuality("a", "1", 22.0)]).splitlines()
    assert lines[2] == "| a | 1 | 2 | 50.0% | 21.0 dB |" and lines[3] == "| b | 1 | 2 | 100.0% | - |"
    assert lines[4] == "| total | 2 | 4 | 75.0% | 21.0 dB |" and f"{PUBLISHED:.1%}" in lines[5]


def test_scenes_are_paired_by_name(labelled_scene, tmp_path):
    one = scenes(labelled_scene.data, labelled_scene.lerf)
    assert scenes(labelled_scene.data.parent, labelled_scene.lerf.parent) == one
    with pytest.raises(ValueError, match="den"):
        scenes(tmp_path, labelled_scene.lerf.parent)
    with pytest.raises(ValueError, match="holds labels"):
        scenes(labelled_scene.data, tmp_path)


def test_the_command(labelled_scene, tmp_path, capsys):
    """The whole way, with a little training: every label is asked of a real map, and the file says what was printed."""
    main(
        ["--data", str(labelled_scene.data.parent), "--labels", str(labelled_scene.langsplat.parent), "--preset", "cpu"]
        + ["--steps", "150", "--stride", "4", "--out", str(tmp_path / "sub" / "labelled.json")]
        + ["--set", "pyramid.fractions=[0.3,0.5]", "pyramid.strides=[0.6,0.6]"]
    )
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "sub" / "labelled.json").read_text())
    assert "10 of 12 frames trained" in printed
    source = NerfstudioFolder(labelled_scene.data)
    asked = [(view.name, text) for view in read_labels(labelled_scene.langsplat, source) for text in view.boxes]
    assert [(o["view"], o["text"]) for o in written["outcomes"]] == asked
    assert all(0 <= o["uv"][0] < 160 and 0 <= o["uv"][1] < 120 and 0 < o["relevancy"] < 1 for o in written["outcomes"])
    share = np.mean([o["right"] for o in written["outcomes"]])
    assert written["localization_accuracy_2d"] == pytest.approx(share)
    assert re.search(rf"\| total \| 2 \| {len(asked)} \| {share:.1%} \|", printed)
    assert len(written["rendered"]) == 2 and all(8 < quality["psnr"] < 40 for quality in written["rendered"])
