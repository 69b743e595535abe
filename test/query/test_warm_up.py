import pytest
import torch

from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.query import targets
from lerf_ros.query.warm_up import warm_up


@pytest.mark.parametrize("depth", [True, False])
def test_every_kind_of_work_is_done_once(monkeypatch, depth):
    """Steps without and with language, crops, a question with all its parts, a view."""
    done, regions = [], []
    look_closer = targets.look_closer

    def looked(*arguments):
        found = look_closer(*arguments)
        regions.extend(found["object"])
        return found

    monkeypatch.setattr(targets, "look_closer", looked)
    for name in ("step", "surface", "render"):
        real = getattr(Mapper, name)

        def noted(self, *arguments, real=real, name=name, **options):
            done.append((name, self.store.has_language))
            return real(self, *arguments, **options)

        monkeypatch.setattr(Mapper, name, noted)
    config = PRESETS["cpu"].override({"sampling.rays": 64, "pyramid.fractions": (0.5,), "pyramid.strides": None})
    warm_up(config, load_encoder("mini"), torch.device("cpu"), depth)
    assert {("step", False), ("step", True), ("surface", True), ("render", True)} <= set(done)
    assert regions and all(region.support > 0 for region in regions)
