"""Sparse views: an oracle that answers in the frame of the map, which it finds by itself, is right about everything."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from lerf_ros.evaluation import methods, sparse_views
from lerf_ros.evaluation.pacing import Budget
from lerf_ros.evaluation.sparse_views import Similarity, SparseViews, evaluate_sparse_views, evenly, shown_well
from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import PRESETS
from lerf_ros.world.nerfstudio import RATE_HZ, NerfstudioFolder
from lerf_ros.world.room import WELL_VISIBLE

IMAGES = 12
SMALL = PRESETS["cpu"].override({"pyramid.fractions": (0.5,), "pyramid.strides": (1.0,)})


def umeyama(a, b):
    """The similarity transform of points (N, 3) a to b, by least squares (Umeyama 1991)."""
    a0, b0 = a - a.mean(axis=0), b - b.mean(axis=0)
    U, d, Vt = np.linalg.svd(b0.T @ a0 / len(a))
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])
    R = U @ sign @ Vt
    scale = float((d * np.diag(sign)).sum() / a0.var(axis=0).sum())
    return Similarity(scale, R, b.mean(axis=0) - scale * R @ a.mean(axis=0))


class OracleInMap:
    """Knows the truth in the frame of the map, by aligning the keyframes with the walk."""

    def __init__(self, oracle, online):
        store, room = online.mapper.store, oracle.exam.room
        indices = evenly(IMAGES, len(room))
        walk = [room.trajectory[indices[round(stamp * 1e-9 * RATE_HZ)]] for stamp in store.stamps_ns[: len(store)]]
        self.T_map_room = umeyama(np.stack(walk)[:, :3, 3], store.host_poses[:, :3, 3])
        self.oracle = oracle

    def answer(self, texts, min_relevancy=None, max_targets=1):
        return [self.T_map_room.answer(answer) for answer in self.oracle.answer(texts, min_relevancy, max_targets)]


@pytest.mark.parametrize(("shift", "right"), [(0.0, True), (1.0, False)])
def test_answers_are_judged_in_the_room(exam, oracle, monkeypatch, tmp_path, shift, right):
    monkeypatch.setitem(methods.METHODS, "field", lambda online: OracleInMap(oracle(exam, shift), online))
    result = evaluate_sparse_views(
        exam, IMAGES, SMALL, Budget(steps=2), load_encoder(), torch.device("cpu"), tmp_path / "folder"
    )
    assert result.images == IMAGES and 4 <= result.keyframes <= IMAGES and result.steps == 2
    assert len(result.texts) >= 5 and set(result.correct) == {right}
    np.testing.assert_allclose(result.errors, shift, atol=1e-4)
    assert f"room {exam.room.seed}: {len(result.texts) if right else 0} of {len(result.texts)} right" in str(result)


def test_the_folder_has_no_depth_and_no_metres(exam, tmp_path):
    T_scene_room = Similarity(0.37, np.eye(3)[[1, 2, 0]], np.array([1.0, -2.0, 3.0]))
    views = SparseViews(exam.room, [0, 5], T_scene_room)
    sparse_views.write_nerfstudio(views, tmp_path, depth=False)
    source = NerfstudioFolder(tmp_path, world_scale=1.0)
    assert not source.has_depth and len(source) == 2 and NerfstudioFolder(tmp_path).units == views.units
    np.testing.assert_array_equal(source[1].image, exam.room[5].image)
    for i, index in enumerate((0, 5)):
        T, truth = source[i].T_world_camera, exam.room.trajectory[index]
        np.testing.assert_allclose(T[:3, 3], 0.37 * truth[[1, 2, 0], 3] + [1.0, -2.0, 3.0])
        np.testing.assert_allclose(T[:3, :3], truth[[1, 2, 0], :3], atol=1e-9)


def test_a_similarity_and_its_inverse_undo_each_other(oracle, exam):
    rng = np.random.default_rng(3)
    there = Similarity.random(rng)
    back = there.inverse()
    x = rng.normal(size=(5, 3))
    np.testing.assert_allclose(back.points(there.points(x)), x, atol=1e-12)
    np.testing.assert_allclose(there.scaled(2.0).points(x), 2.0 * there.points(x))
    (answer,) = oracle(exam).answer([exam.queries[0].text])
    there_and_back = back.answer(there.answer(answer))
    for was, now in zip(answer.targets, there_and_back.targets, strict=True):
        np.testing.assert_allclose(now.position, was.position, atol=1e-9)
        np.testing.assert_allclose(now.size, was.size)
        np.testing.assert_allclose(np.abs(now.quaternion_xyzw @ was.quaternion_xyzw), 1.0)
        assert now.scale == pytest.approx(was.scale)
        np.testing.assert_allclose(now.covariance, was.covariance, atol=1e-12)
        assert (now.relevancy, now.support) == (was.relevancy, was.support)


def test_only_things_that_three_of_the_images_show_are_asked_for(exam):
    indices = evenly(IMAGES, len(exam.room))
    counts = Counter()
    for index in indices:
        ids, pixels = np.unique(exam.room.truth_view(index).instance, return_counts=True)
        counts.update(int(i) for i, n in zip(ids, pixels) if n >= WELL_VISIBLE * 160 * 120)
    asked = shown_well(exam, indices)
    assert 0 < len(asked) < len([query for query in exam.queries if query.category in sparse_views.THINGS])
    for query in asked:
        assert max(counts[i] for i in query.instance_ids) >= 3
    assert evenly(3, 9) == [0, 4, 8] and evenly(20, 4) == [0, 1, 2, 3]


def test_the_command_adds_up_rooms(tmp_path, monkeypatch, capsys):
    def made_up(exam, images, config, budget, encoder, device, folder):
        correct = [exam.room.seed % 2 == 0, True]
        return sparse_views.SparseViewsResult(
            exam.room.seed,
            images,
            3,
            budget.steps,
            ["a", "b"],
            ["object", "attribute"],
            correct,
            [True] * 2,
            [0.1, np.inf],
        )

    monkeypatch.setattr(sparse_views, "evaluate_sparse_views", made_up)
    sparse_views.main(["--seeds", "6-7", "--steps", "9", "--images", "5", "--out", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    assert "room 6: 2 of 2 right (1 of 1 of those" in said and "all 2 rooms: 3 of 4 right, 75.0 %" in said
    written = json.loads((tmp_path / "out.json").read_text())
    assert [result["seed"] for result in written] == [6, 7] and written[0]["errors"] == [0.1, None]
