"""The vote of the views, on crops that are written down by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.mapping.keyframe_crops import CropsAt
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.votes import votes

WORDS = ("mug", "book", "object")


class WordEncoder:
    """Every word is its own axis."""

    calibration = SimpleNamespace(k=10.0, canonical_phrases=("object",))

    def encode_texts(self, texts):
        return torch.stack([torch.eye(3)[WORDS.index(text)] for text in texts])


class Crops:
    """Two keyframes see the first place, one the second, none the third; crops of two sizes."""

    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])

    def __init__(self, embeds):  # (3, 2, 4, 3)
        self.embeds = embeds

    def at(self, x_world, text_embeds):
        point = torch.tensor([0, 0, 1])
        similarity = torch.einsum("rlcd,rtd->rlct", self.embeds, text_embeds[point])
        encoded = torch.tensor([[True, True], [True, False], [True, True]])
        return CropsAt(point, similarity, self.weights.expand(3, 2, 4), encoded)


def test_each_view_takes_its_best_size_and_all_views_count_alike():
    embeds = torch.rand(3, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    places = [(text, np.zeros(3)) for text in ("mug", "book", "mug")]
    shares = votes(SimpleNamespace(keyframe_crops=Crops(embeds)), WordEncoder(), places, QueryOptions())
    of_crop = 1 / (1 + np.exp(-10 * (embeds[..., :2] - embeds[..., 2:]).numpy()))
    of_size = (of_crop * Crops.weights.numpy()[:, None]).sum(axis=2)  # (3, 2, 2)
    assert shares[0] == pytest.approx((of_size[0, :, 0].max() + of_size[1, 0, 0]) / 2, abs=1e-5)
    assert shares[1] == pytest.approx(of_size[2, :, 1].max(), abs=1e-5)
    assert math.isnan(shares[2])


def test_where_views_cannot_be_asked_there_is_no_vote():
    blind = SimpleNamespace(keyframe_crops=None)
    assert votes(blind, WordEncoder(), [("mug", np.zeros(3))], QueryOptions()) is None
