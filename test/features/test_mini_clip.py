"""The packaged mini CLIP on rooms that neither its training nor its calibration has used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lerf_ros.features.encoder import MINI_CLIP, load_encoder
from lerf_ros.query.relevancy import relevancy
from lerf_ros.world.materials import COLOURS
from lerf_ros.world.room import Room

AS_MUCH_AS_CANONICAL = 0.5  # relevancy of a crop that is as much like the text as like the best canonical phrase


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("mini")


@pytest.fixture(scope="module")
def sights():
    """(crop (1, 3, h, w), kind, colour) of objects in plain view: square crops around their masks."""
    found = []
    for seed in (4711, 4712):
        room = Room(seed)
        for i in range(0, len(room), 8):
            view = room.truth_view(i)
            for thing in room.objects:
                v, u = np.nonzero(view.instance == thing.instance_id)
                if len(u) < 900:
                    continue
                half = int(0.62 * max(np.ptp(u), np.ptp(v)))
                u, v = (int(u.min()) + int(u.max())) // 2, (int(v.min()) + int(v.max())) // 2
                if half <= min(u, v, 640 - u, 480 - v):
                    crop = torch.from_numpy(view.image[v - half : v + half, u - half : u + half])
                    found.append((crop.permute(2, 0, 1)[None] / 255.0, thing.kind, thing.colour))
    return found


def test_it_is_small_and_has_its_calibration(encoder):
    assert (MINI_CLIP / "mini.safetensors").stat().st_size < 12e6
    assert encoder.calibration.canonical_phrases == ("object", "things", "stuff", "texture")
    assert encoder.embed_dim == 128 and 0.0 < encoder.calibration.found_threshold < 1


def test_it_tells_kinds_and_colours_of_unseen_rooms_apart(encoder, sights):
    embeds = torch.cat([encoder.encode_images(crop) for crop, _, _ in sights])
    assert len(sights) >= 20
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(len(embeds)))
    pairs = sorted({f"{colour} {kind}" for _, kind, colour in sights})
    best = (embeds @ encoder.encode_texts([f"a {pair}" for pair in pairs]).T).argmax(dim=1)
    correct = [pairs[i] == f"{colour} {kind}" for i, (_, kind, colour) in zip(best.tolist(), sights)]
    assert np.mean(correct) > 0.7  # chance: one in the number of pairs, below 0.1


def test_relevancy_accepts_what_is_there_and_rejects_other_colours_and_kinds(encoder, sights):
    canonical = encoder.encode_texts(encoder.calibration.canonical_phrases)
    right, wrong_colour, wrong_kind = [], [], []
    for crop, kind, colour in sights:
        other = next(c for c in COLOURS if c != colour)
        texts = [f"{colour} {kind}", f"{other} {kind}", f"{colour} {'cactus' if kind != 'cactus' else 'mug'}"]
        embed = encoder.encode_images(crop)
        scores = relevancy(embed @ encoder.encode_texts(texts).T, embed @ canonical.T, encoder.calibration.k)[0]
        for score, scored in zip(scores.tolist(), (right, wrong_colour, wrong_kind)):
            scored.append(score)
    assert np.median(right) > AS_MUCH_AS_CANONICAL
    assert np.mean(np.array(wrong_colour) > AS_MUCH_AS_CANONICAL) < 0.1
    assert np.mean(np.array(wrong_kind) > AS_MUCH_AS_CANONICAL) < 0.1


def test_an_unknown_word_is_named_and_matches_nothing(encoder, sights):
    assert encoder.unknown_words("where is my red mug, please") == []
    assert encoder.unknown_words("a red zebra") == ["zebra"]
    canonical = encoder.encode_texts(encoder.calibration.canonical_phrases)
    embeds = torch.cat([encoder.encode_images(crop) for crop, _, _ in sights])
    scores = relevancy(embeds @ encoder.encode_texts(["a red zebra"]).T, embeds @ canonical.T, encoder.calibration.k)
    assert (scores > AS_MUCH_AS_CANONICAL).float().mean() < 0.05


def test_synonyms_and_phrases_mean_the_same(encoder):
    said = encoder.encode_texts(["red mug", "where is the red cup", "blue mug", "red sofa"])
    cosines = said[:1] @ said[1:].T
    assert cosines.argmax() == 0 and cosines[0, 0] > 0.9
