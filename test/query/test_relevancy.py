import numpy as np
import pytest
import torch

from lerf_ros.query.relevancy import relevancy, scale_sweep, supervised


def test_relevancy_is_the_smallest_pairwise_softmax():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(50, 3, generator=generator) * 2 - 1
    canonical = torch.rand(50, 4, generator=generator) * 2 - 1
    k = 10.0
    ours = relevancy(similarity, canonical, k).numpy()
    for n in range(50):
        for t in range(3):
            pairs = [
                np.exp(k * float(similarity[n, t])) / (np.exp(k * float(similarity[n, t])) + np.exp(k * float(c)))
                for c in canonical[n]
            ]
            assert ours[n, t] == pytest.approx(min(pairs), rel=1e-4)


def test_an_embedding_like_its_canonical_phrase_is_half_relevant():
    assert float(relevancy(torch.tensor([0.3]), torch.tensor([0.3, -0.2]), 10.0)) == pytest.approx(0.5)


def test_relevancy_without_canonical_phrases_is_refused():
    with pytest.raises(ValueError, match="canonical"):
        relevancy(torch.zeros(1), torch.zeros(0), 10.0)


def test_scales_are_evenly_spaced_in_log_over_the_supervised_range():
    scales = scale_sweep(torch.tensor([0.1, 0.05]), torch.tensor([0.4, 0.8]), 5)
    assert scales.tolist() == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8], rel=1e-5)


def test_a_point_counts_only_at_scales_it_was_trained_at_but_always_somewhere():
    scales = scale_sweep(torch.tensor([0.05]), torch.tensor([0.8]), 5)
    valid = supervised(scales, torch.tensor([0.09, 0.27]), torch.tensor([0.21, 0.28]))
    assert valid[:, 0].tolist() == [False, True, True, False, False]
    assert valid[:, 1].any() and not valid[0, 1] and not valid[4, 1]
