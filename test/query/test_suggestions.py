"""Places that a crop knows and the averaged map does not."""

import numpy as np
import pytest
import torch

from lerf_ros.mapping.keyframe_crops import CropsAt
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import find_targets
from test.query.test_targets import ALL, DiscTable, WordEncoder

MUG = (0.55, 0.5)
CLUTTER = [((-0.5, -0.5), 0.08, "mug", 0.12, ALL), ((-0.5, 0.4), 0.08, "mug", 0.1, ALL)]  # what the map takes for one


class Crops:
    """One crop of the mug, one of nothing, one whose middle was not measured, one that is not encoded."""

    embeds = torch.tensor([[0.0, 0.9, 0, 0.2, 0, 0], [0.5, 0, 0, 0.3, 0, 0], [0, 1.0, 0, 0, 0, 0], [0.0] * 6])

    def similarity(self, text_embeds):
        cosines = self.embeds @ text_embeds.T
        cosines[3] = -torch.inf
        return cosines

    def middles(self, crops):
        places = torch.tensor([[*MUG, 0.7], [0.0, 0.0, 0.7], [torch.nan] * 3, [0.3, 0.3, 0.7]], dtype=torch.float64)
        return places[crops], torch.full((len(crops),), 0.2)

    def at(self, x_world):
        near = (x_world[:, :2] - torch.tensor(MUG)).norm(dim=1) < 0.1
        crops = torch.where(near, 0, 1)[None, :, None, None].expand(1, -1, 1, 4)
        known = torch.isfinite(x_world).all(dim=1)
        return CropsAt(crops, torch.full(crops.shape, 0.25), known[None, :, None])


class CropTable(DiscTable):
    """The map has not learned of the mug at `MUG`, but a crop shows it; closer looks show it, if it is there."""

    keyframe_crops = Crops()

    def __init__(self, there=True):
        super().__init__(CLUTTER)
        self.there = there

    def closer(self, centres, radii, max_points):
        discs = [*CLUTTER, (MUG, 0.06, "mug", 0.9, ALL)] if self.there else CLUTTER
        return DiscTable(discs).closer(centres, radii, max_points)


def ask(table, **options):
    return find_targets(table, WordEncoder(), ["mug"], QueryOptions(**options))[0]


def test_a_place_that_only_a_crop_knows_is_found_once_a_closer_look_confirms_it():
    answer = ask(CropTable())
    assert answer.found and answer.targets[0].position == pytest.approx([*MUG, 0.7], abs=0.02)
    assert answer.best_relevancy > 0.9
    without = find_targets(DiscTable(CLUTTER), WordEncoder(), ["mug"])[0]
    assert without.best_relevancy < answer.best_relevancy - 0.2


def test_a_suggestion_that_no_closer_look_confirms_changes_nothing():
    sure, plain = ask(CropTable(there=False), min_relevancy=0.0), ask(DiscTable(CLUTTER), min_relevancy=0.0)
    assert len(sure.targets) == len(plain.targets)
    for with_crops, alone in zip(sure.targets, plain.targets, strict=True):
        assert np.linalg.norm(with_crops.position - alone.position) < 0.02


def test_without_a_closer_look_suggestions_are_left_out():
    targets = ask(CropTable(), closer_points=0, min_relevancy=0.0).targets
    assert all(np.linalg.norm(target.position[:2] - MUG) > 0.3 for target in targets)
