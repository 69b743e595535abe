"""Looks at one place after another, each where it was asked to; on a GPU they are replays of the same work."""

import pytest
import torch

from lerf_ros.mapping.online import OnlineMapper

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


@pytest.mark.parametrize("device", DEVICES)
def test_every_look_shows_the_places_that_it_was_asked_for(box, device):
    online = OnlineMapper(box.config, box.ColourEncoder(), device)
    for frame in box.walk(8):
        online.ingest(frame)
    while online.mapper.steps < 300 or online.pyramid_progress < 1:
        online.advance()
    surface = online.surface(400)
    points = surface.points.x_world[surface.points.views > 0]
    half, seen_of_looks = torch.tensor(box.half, device=points.device), []
    for count, radius in [(3, 0.3), (1, 0.2), (3, 0.4), (2, 0.3), (3, 0.3), (3, 0.2), (3, 0.3)]:
        centres = points[torch.randint(len(points), (count,), device=points.device)]
        radii = torch.full((count,), radius)
        ((closer, places, _),) = surface.closer(centres.cpu(), radii, 120)
        assert len(places) >= count and (places.sizes[:count] > 20).all() and (places.sizes[count:] == 0).all()
        x_world, known = places.rows(closer.points.x_world), places.rows(closer.crop_shares)
        for centre, row, seen, number in zip(centres, x_world, known, places.sizes.tolist(), strict=False):
            assert ((row[:number] - centre).norm(dim=1) < radius + 0.03).all()  # some were moved to what was measured
            assert (seen[:number] > 0).float().mean() > 0.8 and not seen[number:].any()
        own = places.exists.flatten()
        # a map of 300 steps puts a few points so far before a corner that no keyframe measured them there
        from_wall = (half - closer.points.x_world[own].abs()).abs().amin(dim=1)
        is_seen = closer.points.views[own] > 0
        assert (is_seen | (from_wall > 0.04)).all()
        seen_of_looks.append(is_seen)
        assert not closer.points.views[~own].any()
        assert (closer.points.scale_min <= closer.points.scale_max).logical_or(~own).float().mean() > 0.8
        assert not (closer.points.scale_min <= closer.points.scale_max)[~own].any()
    assert torch.cat(seen_of_looks).float().mean() > 0.97
