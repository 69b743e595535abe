"""Relevancy in rendered views: at the scale that peaks highest, also where few pixels choose it."""

import numpy as np
import pytest
import torch

from lerf_ros.evaluation import methods
from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.relevancy import relevancy, scale_sweep, supervised

TEXTS = ["a red mug", "a wooden chair", "a lamp"]


@pytest.fixture(scope="module")
def online(exam):
    """A young map: its relevancies differ from scale to scale and from pixel to pixel."""
    config = PRESETS["cpu"].override(
        {"sampling.rays": 256, "pyramid.fractions": (0.3, 0.5)} | {"pyramid.strides": None}
    )
    online = OnlineMapper(config, load_encoder("mini"), "cpu")
    for frame in exam.frames[:3]:
        online.ingest(frame)
    while online.mapper.steps < 20 or online.pyramid_progress < 1:
        online.advance()
    return online


@pytest.fixture(scope="module")
def expected(online, exam):
    """(T, h, w): all scales asked at every pixel, then the best one of each text."""
    frame, encoder = exam.frames[1], online.encoder
    rendering = online.mapper.render(frame.camera, frame.T_world_camera, stride=2, features=True)
    scales = scale_sweep(rendering.scale_min, rendering.scale_max, methods.VIEW_SCALES)
    similarity = rendering.features.similarity(scales, methods.asked_embeds(encoder, TEXTS))
    values = relevancy(similarity[..., :3], similarity[..., 3:], encoder.calibration.k)
    values[~supervised(scales, rendering.scale_min, rendering.scale_max)] = 0
    best = values.amax(dim=1).argmax(dim=0)
    return torch.stack([values[best[i], :, i] for i in range(3)]).view(3, *rendering.depth_z.shape).numpy()


def test_every_text_has_the_scale_that_peaks_highest(online, exam, expected):
    frame = exam.frames[1]
    found = methods.rendered_relevancy(online, frame.camera, frame.T_world_camera, TEXTS, stride=2)
    assert found.shape == (3, 60, 80)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_few_pixels_choose_as_well(online, exam, expected, monkeypatch):
    frame = exam.frames[1]
    monkeypatch.setattr(methods, "_CHOOSING_PIXELS", 800)  # of 4,800
    found = methods.rendered_relevancy(online, frame.camera, frame.T_world_camera, TEXTS, stride=2)
    np.testing.assert_allclose(found.max(axis=(1, 2)), expected.max(axis=(1, 2)), rtol=0.03)
