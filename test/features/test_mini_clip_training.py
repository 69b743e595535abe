"""The training tool: its labels, its loss against plain loops, and a tiny run of all of it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lerf_ros.features.pyramid import PyramidLayout

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


def test_the_loss_is_what_its_docstring_says():
    from mini_clip_loss import contrastive_loss

    torch.manual_seed(0)
    images, texts, canonical = (
        torch.nn.functional.normalize(torch.randn(n, 8, dtype=torch.float64), dim=1) for n in (5, 6, 2)
    )
    kind = torch.rand(5, 6)
    true, false, scale = kind < 0.3, kind > 0.5, torch.tensor(7.0, dtype=torch.float64)
    true[0, 0], true[4], true[:, 5] = True, False, False  # a crop and a text without any true pair
    false &= ~true
    exp = lambda a, b: math.exp(7.0 * float(a @ b))  # noqa: E731
    to_text, to_image, middle = [], [], []
    for i in range(5):
        wrong = sum(exp(images[i], texts[t]) for t in range(6) if false[i, t])
        rivals = wrong + sum(exp(images[i], c) for c in canonical)
        losses = [math.log1p(rivals / exp(images[i], texts[t])) for t in range(6) if true[i, t]]
        to_text += [np.mean(losses)] if losses else []
        middle += [math.log1p(wrong / exp(images[i], c)) for c in canonical]
    for t in range(6):
        wrong = sum(exp(images[i], texts[t]) for i in range(5) if false[i, t])
        losses = [math.log1p(wrong / exp(images[i], texts[t])) for i in range(5) if true[i, t]]
        to_image += [np.mean(losses)] if losses else []
    expected = np.mean(to_text) + np.mean(to_image) + np.mean(middle)
    assert contrastive_loss(images, texts, canonical, true, false, scale).item() == pytest.approx(expected, rel=1e-9)


def half_and_half(more_texts=()):
    """One view, 160x120: a red mug with a handle fills the left half, wall the right."""
    from mini_clip_views import RoomViews, ViewStore

    image, mask = np.zeros((1, 120, 160, 3), np.uint8), np.zeros((1, 120, 160), np.uint8)
    image[..., 0] = np.linspace(0, 255, 160)
    mask[:, :, :80], mask[:, 80:, :20], mask[:, :, 80:] = 1, 2, 3
    visible = np.array([[[0, 9600, 9600, 9600]], [[0, 8800, 800, 9600]]], dtype=float)
    mug, wall = [39.5, 59.5, 80, 120], [119.5, 59.5, 80, 120]
    boxes = np.array([[[[0, 0, 0, 0], mug, mug, wall]], [[[0, 0, 0, 0], mug, [9.5, 99.5, 20, 40], wall]]])
    said = ["mug", "red mug", "red"]
    room = RoomViews(
        7, image, mask, np.array([0, 1, 1, 2]), [[], said, said, ["wall", "grey wall", "grey"]],
        [[], [], ["mug handle", "mug grip"], []], ["", "red", "red", ""], np.array([False, False, False, True]),
        visible, np.ones((1, 4)), boxes,
    )  # fmt: skip
    texts = ["mug", "red mug", "mug handle", "mug grip", "wall", "bear", "red", "grey", "blue", *more_texts]
    store = ViewStore(2, 120, 160, texts, torch.device("cpu"))
    store.add(room)
    return room, store


def test_crops_are_labelled_by_what_is_in_their_middle():
    _, store = half_and_half()
    centre = torch.tensor([[40.0, 60.0], [79.5, 60.0], [120.0, 60.0], [10.0, 100.0], [40.0, 30.0]])
    crop_px = torch.tensor([60.0, 60.0, 60.0, 30.0, 12.0])
    crops = store.cut(torch.zeros(5, dtype=torch.int64), centre, crop_px, 16)
    names = list(store.texts)
    said = [{names[t] for t in row.nonzero()[:, 0].tolist()} for row in crops.true]
    mug, wall = {"mug", "red mug", "red"}, {"wall", "grey"}
    assert said == [mug, set(), wall, {"mug handle"}, set()]
    denied = [{names[t] for t in row.nonzero()[:, 0].tolist()} for row in crops.false]
    handle = {"mug handle", "mug grip"}
    assert denied[0] == {"bear", "grey", "blue", *handle} | {"wall"} and denied[2] == {"bear", "blue", *handle} | mug
    assert denied[1] == {"bear", *handle}  # half of each: neither true nor false, and so no colour either
    assert denied[3] == {"bear", "wall"}  # the handle is part of the grip: no proof against that
    assert "mug" not in denied[4]  # a patch too small to know the mug by is no proof against it either


def test_crops_are_drawn_around_wholes_and_parts():
    from mini_clip_views import ANYWHERE, AROUND_WHOLES

    _, store = half_and_half()
    view, centre, crop_px = store.draw(4000, torch.Generator().manual_seed(3))
    on_handle = (centre[:, 0] < 20) & (centre[:, 1] >= 80)
    assert view.eq(0).all() and crop_px.min() >= 6 and crop_px.max() <= 60
    # Of the crops around parts, half go to the handle; anywhere and around the mug it gets its area's share.
    parts = 1 - ANYWHERE - AROUND_WHOLES
    by_area = ANYWHERE * (20 * 40) / (160 * 120) + (AROUND_WHOLES + parts / 2) * (20 * 40) / (80 * 120)
    assert on_handle.float().mean().item() == pytest.approx(by_area + parts / 2, abs=0.02)


def test_the_second_half_of_a_batch_looks_at_the_same_things():
    room, store = half_and_half()
    room.instance[2], room.texts[2] = 3, ["handle"]  # now two things, of which one is drawn
    store.add(room)
    view, centre, _ = store.draw(4000, torch.Generator().manual_seed(3))
    on_handle = ((centre[:, 0] < 20) & (centre[:, 1] >= 80)).view(2, -1)
    assert view.view(2, -1).diff(dim=0).eq(0).all() and view.float().mean().item() == pytest.approx(0.5, abs=0.05)
    second = view.view(2, -1)[0] == 1
    # A thing of one part is looked at twice, anywhere apart; of the mug's parts each half draws one by itself.
    assert on_handle[:, second].double().corrcoef()[0, 1] > 0.6
    assert abs(on_handle[:, ~second].double().corrcoef()[0, 1]) < 0.4


def test_crops_for_training_look_like_the_pyramids():
    room, store = half_and_half()
    layout = PyramidLayout.build(120, 160, fractions=(0.2, 0.5))
    image = torch.from_numpy(room.images[0]).permute(2, 0, 1) / 255.0
    for number, level in enumerate(layout.levels):
        centres = layout.centres(number)
        crops = store.cut(
            torch.zeros(len(centres), dtype=torch.int64), centres, torch.full((len(centres),), float(level.crop_px)), 32
        )
        assert (crops.images - layout.crops(image, number, size=32)).abs().mean() < 0.005


def test_new_paint_is_what_a_rendering_in_that_colour_shows():
    from mini_clip_paint import repaint

    from lerf_ros.geometry.camera import Camera
    from lerf_ros.world.kinds.catalogue import OBJECTS
    from lerf_ros.world.materials import paint
    from lerf_ros.world.poses import look_at
    from lerf_ros.world.render import Scene

    camera, pose = (
        Camera(200.0, 200.0, 59.5, 59.5, 120, 120),
        look_at(np.array([0.35, 0.2, 0.25]), np.array([0, 0, 0.05])),
    )
    views = []
    for colour in ("red", "blue"):
        shape = OBJECTS["mug"].build(paint(colour), np.random.default_rng(0))
        views.append(Scene([(0, shape, np.eye(4))], np.array([[1.0, 1.0, 2.0]])).view(camera, pose))
    image, expected = (torch.from_numpy(view.image)[None] for view in views)
    mask = torch.from_numpy(views[0].instance + 1)[None]
    done = repaint(image, mask, ["", "red"], ["", "blue"])
    error = (done.float() - expected.float()).abs().amax(dim=-1)[mask == 1]
    assert (error <= 4).float().mean() > 0.97  # rounding of dark pixels; coffee and gloss are as they were
    assert torch.equal(repaint(image, mask, ["", "red"], ["", "red"]), image)


def test_paints_are_drawn_per_thing_and_never_the_held_out_ones():
    from mini_clip_paint import draw_paints

    from lerf_ros.world.kinds.catalogue import HELD_OUT_COMBINATIONS

    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        kinds, colours = ["", "mug", "mug", "crate", "wall"], ["", "red", "red", "wooden", ""]
        drawn = draw_paints(kinds, colours, np.array([0, 1, 1, 2, 3]), rng)
        assert drawn[1] == drawn[2] and (drawn[0], drawn[3], drawn[4]) == ("", "wooden", "")
        seen.add(("mug", drawn[1]))
    assert not seen & set(HELD_OUT_COMBINATIONS) and len(seen) == 10  # all eleven paints but purple


def test_parts_carry_the_colour_of_their_thing_and_are_false_beside_the_middle():
    _, store = half_and_half(("red mug handle", "blue mug handle"))
    # On the handle; on the mug with the handle at the rim of the crop.
    centre, crop_px = torch.tensor([[10.0, 100.0], [34.0, 76.0]]), torch.tensor([30.0, 60.0])
    crops = store.cut(torch.zeros(2, dtype=torch.int64), centre, crop_px, 16)
    handle, red, blue = (store.texts[text] for text in ("mug handle", "red mug handle", "blue mug handle"))
    assert crops.true[:, [handle, red, blue]].tolist() == [[True, True, False], [False, False, False]]
    assert crops.false[:, [handle, red, blue]].tolist() == [[False, False, True], [True, True, True]]
    assert crops.true[1, store.texts["mug"]]


def test_rare_classes_are_drawn_beside_the_common_ones():
    from mini_clip_texts import TextBank

    bank = TextBank({"mug": ["mug", "cup"], "bear": ["bear"]}, 16, {f"{c} mug": [f"{c} mug"] for c in ("red", "blue")})
    seen = set()
    for seed in range(200):
        classes, tokens = bank.draw(1, 1, torch.Generator().manual_seed(seed))
        assert classes[0] < 2 <= classes[1] and tokens.shape == (2, 16)
        seen.add(tuple(tokens[1].tolist()))
    few = [f"{form}{c} mug" for c in ("red", "blue") for form in ("", "a ", "the ")]
    assert seen == {tuple(row.tolist()) for row in bank.tokenizer(few)}


def test_a_perfect_encoder_scores_full_marks_on_parts_and_a_blind_one_by_chance():
    from mini_clip_parts import name_parts, part_candidates, part_sights
    from mini_clip_rooms import render_room

    room = render_room(10_000, 3)
    seen = part_sights(room)
    texts = {text: i for i, text in enumerate(sorted({t for s in seen for t in part_candidates(s.kind)}))}
    for sight in seen:
        assert room.part_texts[room.masks[sight.view, sight.pixel[1], sight.pixel[0]]][0] == sight.text

    class Oracle:
        def encode_texts(self, said):
            return torch.eye(len(texts))[[texts[text] for text in said]]

    named = name_parts(Oracle(), seen, torch.eye(len(texts))[[texts[sight.text] for sight in seen]])
    assert len(named) > 10 and all(truth == said for truth, said in named)
    blind = name_parts(Oracle(), seen, torch.zeros(len(seen), len(texts)))
    assert all(said == sight.kind for (_, said), sight in zip(blind, seen))


def test_a_tiny_run_writes_everything_that_the_encoder_reads(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        str(ROOT / "tools/train_mini_clip.py"),
        "--smoke",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "MODEL_CARD.md",
        "calibration.json",
        "mini.json",
        "mini.safetensors",
        "vocabulary.txt",
    }
    words = (tmp_path / "vocabulary.txt").read_text().split()
    assert {"mug", "red", "object", "find"} <= set(words)
    assert json.loads((tmp_path / "mini.json").read_text())["text_cfg"]["vocab_size"] == len(words) + 4
    card = (tmp_path / "MODEL_CARD.md").read_text()
    assert "held-out" in card and "on no sibling" in card
    assert json.loads((tmp_path / "calibration.json").read_text())["found_threshold"] == 0.45  # of maps: as given
