"""What a map keeps is known before it is made: against what one keeps that was made, trained and asked."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lerf_ros.mapping.memory import encoder_bytes, map_memory
from lerf_ros.mapping.online import OnlineMapper


def size(*tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("settings", [{}, {"language.decoding": "per_sample"}, {"close_up.share": 0.0}])
def test_the_memory_of_a_map_is_predicted(box, settings):
    everywhere = {"surface.min_opacity": 0.0, "surface.max_spread": 1e6}
    config = box.config.override({"close_up.memory_mb": 1, **everywhere, **settings})
    online = OnlineMapper(config, box.ColourEncoder(), "cpu")
    for frame in box.walk(10)[:3]:
        online.ingest(frame)
    while online.mapper.steps < 2 or online.pyramid_progress < 1:
        online.advance()
    surface = online.surface(200)
    points, features = surface.points, surface.features
    assert len(points.x_world) > 20
    predicted = map_memory(config, box.camera, online.encoder, len(points.x_world))

    trainer, store = online.mapper._trainer, online.mapper.store
    images = store.images, store.depth_z, store.depth_sigma
    per_keyframe = *images, store.poses, store.intrinsics, store.embeds, store.valid
    stereo = online.mapper.stereo
    assert predicted.keyframes == size(*per_keyframe, stereo._greys, stereo._inverse_depths)
    tables = [state for state, _ in trainer._tables._states]
    assert predicted.tables == sum(size(state.table, state.grad, state.m, state.v) for state in tables)
    moments = trainer._networks.state
    networks = sum(size(p, p.grad, s["exp_avg"], s["exp_avg_sq"]) for p, s in moments.items())
    assert predicted.networks == networks + size(online.mapper.fields.proposal.sigmas)
    kept = online._close_ups
    assert predicted.close_ups == (size(kept._embeds, kept._front) if kept is not None else 0)
    of_points = [value for value in vars(points).values() if value is not None]
    weights = [] if features.weights is None else [features.weights]
    assert predicted.surface == size(*of_points, features.features, features.t, *weights)
    assert predicted.total == sum(vars(predicted).values())


def test_an_encoder_takes_its_weights():
    model = nn.Sequential(nn.Linear(10, 5), nn.BatchNorm1d(5)).to(torch.bfloat16)
    assert encoder_bytes(SimpleNamespace(model=model)) == 2 * (10 * 5 + 5 + 4 * 5) + 8  # and a count of batches, int64
