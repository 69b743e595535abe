"""Which crops a question may encode, and how fast they are."""

import math

import numpy as np
import pytest
import torch

from lerf_ros.mapping.close_up_budget import EncodingPace, affordable

MISSING = np.array([[50, 20, 4, 2], [40, 0, 0, 2], [0, 0, 0, 0]])  # smallest size first


def test_without_a_budget_only_the_crops_of_a_keyframe_count():
    allowed, encoded = affordable(MISSING, 30, math.inf)
    assert allowed.tolist() == [[False, True, True, True], [False, True, True, True], [True] * 4]
    assert encoded.tolist() == [[0, 20, 4, 2], [0, 0, 0, 2], [0, 0, 0, 0]]


def test_every_size_is_encoded_of_all_keyframes_before_the_next():
    allowed, encoded = affordable(MISSING, 1000, 68)
    assert allowed.tolist() == [[False, True, True, True], [False, True, True, True], [True] * 4]
    assert encoded.tolist() == [[40, 20, 4, 2], [0, 0, 0, 2], [0, 0, 0, 0]]  # some of a size, to go on with


def test_the_largest_size_is_always_encoded_and_nothing_beside_it_beyond_the_budget():
    allowed, encoded = affordable(MISSING, 1, 3)
    assert allowed[:, -1].all() and encoded[:, -1].tolist() == [2, 2, 0] and encoded.sum() == 4
    assert not allowed[0, :-1].any() and allowed[2].all()


def test_the_last_size_is_reached_by_questions_that_come_again():
    missing, times = MISSING.copy(), 0
    while True:
        allowed, encoded = affordable(missing, 1000, 10)
        assert encoded.sum() <= 10
        missing -= encoded
        if allowed.all():
            break
        times += 1
    assert missing.sum() == 0 and times == math.ceil(MISSING.sum() / 10) - 1


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU"))])  # fmt: skip
def test_the_pace_is_that_of_the_last_piece(device):
    pace = EncodingPace(torch.device(device))
    pace.settle()
    assert pace.per_second is None
    with pace.measured(10):
        torch.rand(1000, 1000, device=device) @ torch.rand(1000, 1000, device=device)
    pace.settle()
    assert 0 < pace.per_second < 1e6
