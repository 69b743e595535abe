"""Means of crop embeddings by scale, against what the definition says, entry by entry."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.mapping.crop_means import CropMeans, ScaledEmbeds, log_bins

BINS, SCALE_MIN, SCALE_MAX = 4, 0.05, 0.8


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_each_entry_counts_in_the_bin_of_its_scale(generator):
    rows = torch.randint(0, 3, (5, 2), generator=generator)
    embeds = normalize(torch.randn(5, 2, 6, generator=generator), dim=-1)
    scales, weights = torch.rand(5, 2, generator=generator) + 0.04, torch.rand(5, 2, generator=generator)
    means = CropMeans(3, 6, log_bins(BINS, SCALE_MIN, SCALE_MAX, "cpu"))
    means.add(rows, embeds, scales, weights)
    logs = np.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), BINS)
    sums, counts = np.zeros((3, BINS, 6)), np.zeros((3, BINS))
    for i in np.ndindex(5, 2):
        cell = int(rows[i]), int(np.abs(logs - math.log(scales[i])).argmin())
        sums[cell] += (weights[i] * embeds[i]).numpy()
        counts[cell] += float(weights[i])
    np.testing.assert_allclose(means.counts, counts, atol=1e-6)
    known = counts > 0
    expected = sums[known] / np.linalg.norm(sums[known], axis=-1, keepdims=True)
    np.testing.assert_allclose(means[:].embeds[torch.from_numpy(known)], expected, atol=1e-5)


@pytest.mark.parametrize("per_point", [False, True])
def test_cosines_are_those_of_the_embeddings_blended_between_bins(generator, per_point):
    log_scales = torch.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), BINS)
    embeds = normalize(torch.randn(5, BINS, 6, generator=generator), dim=-1)
    embeds[3] = 0.0  # a point of which nothing is known
    texts = normalize(torch.randn(2, 6, generator=generator), dim=-1)
    scales = torch.rand(7, 5 if per_point else 1, generator=generator) * 1.2 + 0.01
    cosines = ScaledEmbeds.of(log_scales, embeds).similarity(scales if per_point else scales[:, 0], texts)
    for s, n in np.ndindex(7, 5):
        place = np.interp(math.log(scales[s, n if per_point else 0]), log_scales, np.arange(BINS))
        lower = min(int(place), BINS - 2)
        blend = torch.lerp(embeds[n, lower], embeds[n, lower + 1], place - lower)
        torch.testing.assert_close(cosines[s, n], texts @ normalize(blend, dim=0), atol=1e-5, rtol=0)
