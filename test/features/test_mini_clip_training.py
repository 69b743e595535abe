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


def half_and_half():
    """One view, 160x120: a red mug with a handle fills the left half, wall the right."""
    from mini_clip_views import RoomViews, ViewStore

    image, mask = np.zeros((1, 120, 160, 3), np.uint8), np.zeros((1, 120, 160), np.uint8)
    image[..., 0] = np.linspace(0, 255, 160)
    mask[:, :, :80], mask[:, 80:, :20], mask[:, :, 80:] = 1, 2, 3
    visible = np.array([[[0, 9600, 9600, 9600]], [[0, 8800, 800, 9600]]], dtype=float)
    boxes = np.array([[[0, 0, 0, 0], [39.5, 59.5, 80, 120], [39.5, 59.5, 80, 120], [119.5, 59.5, 80, 120]]])
    room = RoomViews(
        7, image, mask, np.array([0, 1, 1, 2]), [[], ["mug", "red mug"], ["mug", "red mug"], ["wall"]],
        [[], [], ["mug handle"], []], np.array([False, False, False, True]), visible, np.ones((1, 4)), boxes,
    )  # fmt: skip
    store = ViewStore(2, 120, 160, ["mug", "red mug", "mug handle", "wall", "bear"], torch.device("cpu"))
    store.add(room)
    return room, store


def test_crops_are_labelled_by_what_is_in_their_middle():
    _, store = half_and_half()
    centre = torch.tensor([[40.0, 60.0], [79.5, 60.0], [120.0, 60.0], [10.0, 100.0], [40.0, 30.0]])
    crop_px = torch.tensor([60.0, 60.0, 60.0, 30.0, 12.0])
    crops = store.cut(torch.zeros(5, dtype=torch.int64), centre, crop_px, 16)
    names = list(store.texts)
    said = [{names[t] for t in row.nonzero()[:, 0].tolist()} for row in crops.true]
    assert said == [{"mug", "red mug"}, set(), {"wall"}, {"mug handle"}, set()]
    denied = [{names[t] for t in row.nonzero()[:, 0].tolist()} for row in crops.false]
    assert denied[0] == {"bear", "wall", "mug handle"} and denied[2] == {"bear", "mug", "red mug", "mug handle"}
    assert denied[1] == {"bear", "mug handle"}  # half of each: neither true nor false
    assert "mug" not in denied[4]  # a patch too small to know the mug by is no proof against it either


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


def test_recolouring_keeps_greys_and_brightness_and_moves_hues():
    from mini_clip_views import recolour

    crops = torch.tensor([[0.5, 0.5, 0.5], [0.6, 0.3, 0.3]]).view(2, 3, 1, 1).expand(2, 3, 4, 4)
    turned = recolour(crops, torch.Generator().manual_seed(1))
    torch.testing.assert_close(turned[0], crops[0])
    torch.testing.assert_close(turned.mean(dim=1), crops.mean(dim=1))
    assert (turned[1] - crops[1]).abs().max() > 0.05


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
    assert "held-out" in (tmp_path / "MODEL_CARD.md").read_text()
