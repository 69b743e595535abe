"""The vote of the views, on crops that are written down by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.mapping.keyframe_crops import CropsAt
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.votes import Votes

WORDS = ("mug", "book", "object")


class WordEncoder:
    """Every word is its own axis."""

    calibration = SimpleNamespace(k=10.0, canonical_phrases=("object",))

    def encode_texts(self, texts):
        return torch.stack([torch.eye(3)[WORDS.index(text)] for text in texts])


class Crops:
    """Two keyframes see the first place, one the second, none the third; crops of two sizes."""

    weights = torch.tensor([0.1, 0.2, 0.3, 0.4])
    encoded = torch.tensor([[[True, True], [False, False], [False] * 2], [[True, False], [True, True], [False] * 2]])

    def __init__(self, embeds):  # (2, 3, 2, 4, 3), by keyframe, place and size
        self.embeds = embeds

    def similarity(self, text_embeds):
        cosines = self.embeds @ text_embeds.T
        return torch.where(self.encoded[..., None, None], cosines, -torch.inf).flatten(0, 3)

    def at(self, x_world):
        return CropsAt(torch.arange(48).view(2, 3, 2, 4), self.weights.expand(2, 3, 2, 4), self.encoded)


def test_each_view_takes_its_best_size_and_all_views_count_alike():
    embeds = torch.rand(2, 3, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    votes = Votes(Crops(embeds), WordEncoder(), ["mug", "book"], QueryOptions())
    shares = votes.shares(torch.tensor([0, 1, 0]), torch.zeros(3, 3)).tolist()
    of_crop = 1 / (1 + np.exp(-10 * (embeds[..., :2] - embeds[..., 2:]).numpy()))
    of_size = (of_crop * Crops.weights.numpy()[:, None]).sum(axis=3)  # (2, 3, 2, 2)
    assert shares[0] == pytest.approx((of_size[0, 0, :, 0].max() + of_size[1, 0, 0, 0]) / 2, abs=1e-5)
    assert shares[1] == pytest.approx(of_size[1, 1, :, 1].max(), abs=1e-5)
    assert math.isnan(shares[2])


def test_the_best_crops_of_a_text_are_encoded_ones():
    embeds = torch.rand(2, 3, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    best = Votes(Crops(embeds), WordEncoder(), ["mug", "book"], QueryOptions()).best(5)
    more = (embeds[..., :2] - embeds[..., 2:])[Crops.encoded].view(-1, 2).sort(dim=0, descending=True).values[:5]
    assert Crops.encoded.view(-1)[best // 4].all()
    for number in range(2):
        flat = embeds.view(-1, 3)[best[number]]
        torch.testing.assert_close(flat[:, number] - flat[:, 2], more[:, number])
