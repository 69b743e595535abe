"""The table of variants: each a real switch, none of them two."""

import pytest
import torch

from lerf_ros.evaluation.ablations import ABLATIONS, DEFAULT, VARIANTS
from lerf_ros.evaluation.baselines import LERF, LERF_CONFIGURATION
from lerf_ros.evaluation.methods import METHODS
from lerf_ros.evaluation.variants import as_they_are
from lerf_ros.features.encoder import load_encoder
from lerf_ros.field.proposal import ProposalNetwork
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.world.room import Room

SWITCHES = [variant for group in ABLATIONS.values() for variant in group]


@pytest.mark.parametrize("preset", ["base", "cpu"])
@pytest.mark.parametrize("variant", SWITCHES, ids=lambda variant: variant.name)
def test_an_ablation_is_one_switch(variant, preset):
    values = PRESETS[preset].values()
    changed = PRESETS[preset].override(variant.settings).values()
    switches = sum(changed[name] != values[name] for name in values)
    assert switches + (variant.frames is not as_they_are) + (variant.budget != 1.0) == 1


def test_names_are_unique_and_methods_exist():
    assert len(VARIANTS) == 2 + len(SWITCHES)
    assert all(name == variant.name for name, variant in VARIANTS.items())
    assert all(method in METHODS for variant in VARIANTS.values() for method in variant.methods)
    assert set(DEFAULT.methods) == {"field", "voxels", "crop_votes"}


def test_lerf_has_the_sizes_of_its_paper():
    config = PRESETS["base"].override(LERF_CONFIGURATION)
    assert (config.sampling.rays, config.sampling.samples, config.language.samples) == (4096, 48, 24)
    assert config.proposal.bins == (256, 96)
    assert (config.language.decoding, config.language.scale) == ("per_sample", "normalised")
    assert (config.language.layers, config.language.hidden, config.loss.language) == (4, 256, 0.1)


def test_lerf_maps_a_room_without_depth():
    """Small pictures and fields, but the whole way: frames, crops, proposal networks, language, surface."""
    small = {
        "sampling.rays": 128,
        "language.samples": 6,
        "sampling.samples": 8,
        "proposal.bins": [24, 12],
        "proposal.log2_table": 12,
        "pyramid.fractions": [0.4],
        "pyramid.strides": [1.0],
    }
    room = Room(10_002, width=64, height=48, frames=3)
    frames = LERF.frames([room[index] for index in range(len(room))], None)
    config = PRESETS["cpu"].override(LERF.settings).override(small)
    online = OnlineMapper(config, load_encoder(), torch.device("cpu"))
    for frame in frames:
        online.ingest(frame)
    untrained = online.mapper.fields.proposal.densities[0].grid.table.detach().clone()
    steps = [stats for _ in range(60) if (stats := online.advance()) is not None]
    assert not online.mapper.store.all_have_depth
    assert isinstance(online.mapper.fields.proposal.densities[0], ProposalNetwork)
    assert not torch.equal(online.mapper.fields.proposal.densities[0].grid.table, untrained)
    assert 0 < float(steps[-1].language) < float(max(stats.language for stats in steps))
    surface = online.mapper.surface(200)
    weights = surface.features.weights
    assert weights.shape == (len(surface.points.views), 6)
