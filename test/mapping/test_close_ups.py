"""Close-ups show what the pictures show, are encoded once, and take no more memory than they may."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.mapping.close_up_means import Sights, asked
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.online import OnlineMapper

UV = torch.tensor([[20.0, 11.0], [40.3, 30.9]])


@pytest.fixture
def online(box):
    config = box.config.override({"close_up.memory_mb": 1, "close_up.batch": 7})
    online = OnlineMapper(config, box.ColourEncoder(), "cpu")
    for frame in box.walk(10)[:3]:
        online.ingest(frame)
    return online


@pytest.fixture
def close_ups(online):
    return CloseUps(online.mapper.config.close_up, online.mapper.store, online.encoder)


def around(close_ups, slot, uv=UV, least_px=0.0):
    """Levels (L,) that are encoded at all of the pixels."""
    one = torch.ones(1, len(uv))
    sights = Sights((slot * one).long(), uv[None], one, one > 0, least_px * one)
    rows, encoded = rows_and_encoded(close_ups, sights)
    assert (rows == close_ups._rows_of([slot])[0]).all() and (encoded == encoded[0, 0]).all()
    return encoded[0, 0]


def rows_and_encoded(close_ups, sights):
    """Of each sight (V, N) the row of the close-ups and which sizes (V, N, L) are asked and encoded."""
    slots = sights.slots.flatten()
    of_slot = close_ups.encoded(slots, close_ups.needed(sights)[slots])
    rows, encoded = of_slot[sights.slots].split([1, len(close_ups.layout.levels)], dim=-1)
    return rows[..., 0], asked(sights, close_ups.layout) & (encoded > 0)


def crops_around(layout, uv):
    """Of each level."""
    return [index.unique().numpy() for index in layout.corners(uv).crops.unbind(dim=1)]


def test_crops_around_pixels_have_the_embeddings_of_their_own_pixels(online, close_ups):
    assert around(close_ups, 1).all()
    layout, embeds = close_ups.layout, close_ups._embeds[0]
    image = online.mapper.store.images[1].permute(2, 0, 1).float() / 255
    for index, (level, crops) in enumerate(zip(layout.levels, crops_around(layout, UV), strict=True)):
        expected = normalize(layout.crops(image, index, size=8).mean(dim=(2, 3)), dim=1)
        torch.testing.assert_close(embeds[crops].float(), expected[crops - level.offset], atol=2e-3, rtol=0)
    assert max(online.encoder.batches) <= 7


def test_no_crop_is_encoded_twice(online, close_ups):
    around(close_ups, 1)
    encoded = sum(online.encoder.batches)
    assert encoded == sum(len(crops) for crops in crops_around(close_ups.layout, UV))
    around(close_ups, 1, UV[:1])
    assert sum(online.encoder.batches) == encoded and 0 not in online.encoder.batches
    around(close_ups, 1, UV + 9.0)
    both = crops_around(close_ups.layout, torch.cat([UV, UV + 9.0]))
    assert sum(online.encoder.batches) == sum(len(crops) for crops in both)


def test_small_crops_are_left_out_where_they_are_not_wanted(online, close_ups):
    sizes = close_ups.layout.sizes.tolist()
    assert around(close_ups, 1, least_px=sizes[3]).tolist() == [size >= sizes[3] for size in sizes]
    assert sum(online.encoder.batches) == sum(len(crops) for crops in crops_around(close_ups.layout, UV)[3:])
    assert around(close_ups, 1, least_px=1e4).tolist() == [False] * (len(sizes) - 1) + [True]


def test_a_look_encodes_no_more_than_it_may_and_the_largest_crops_first(online):
    layout = CloseUps(online.mapper.config.close_up, online.mapper.store, online.encoder).layout
    needed = [len(crops) for crops in crops_around(layout, UV)]
    for levels in range(1, len(needed) + 1):
        allowed = sum(needed[-levels:])
        config = online.mapper.config.override({"close_up.crops": allowed}).close_up
        online.encoder.batches.clear()
        close_ups = CloseUps(config, online.mapper.store, online.encoder)
        valid = around(close_ups, 0)
        assert valid.tolist() == [n >= len(needed) - levels for n in range(len(needed))]
        assert sum(online.encoder.batches) == allowed
        for _ in needed:  # what is there is no work: a look at the same place again goes on where that one ended
            valid = around(close_ups, 0)
        assert valid.all()


def test_a_question_encodes_what_its_time_allows_and_the_next_goes_on(online):
    config = online.mapper.config.override({"close_up.seconds": 1.0}).close_up
    close_ups = CloseUps(config, online.mapper.store, online.encoder)
    needed = [len(crops) for crops in crops_around(close_ups.layout, UV)]
    around(close_ups, 1)  # the first one measures, with one batch
    assert close_ups._pace.per_second is not None
    for per_second in (needed[-1], needed[-1] + 7, 40):
        close_ups = CloseUps(config, online.mapper.store, online.encoder)
        online.encoder.batches.clear()
        total, times = 0, 0
        while not around_at(close_ups, per_second).all():
            assert 0 < sum(online.encoder.batches) - total <= per_second
            total, times = sum(online.encoder.batches), times + 1
        assert sum(online.encoder.batches) == sum(needed) and times >= sum(needed) // per_second - 1


def around_at(close_ups, per_second):
    close_ups._pace._per_second = per_second
    return around(close_ups, 1)


def test_many_pixels_of_many_keyframes_follow_the_rule_of_each_keyframe(online):
    most = 40
    config = online.mapper.config.override({"close_up.crops": most}).close_up
    close_ups = CloseUps(config, online.mapper.store, online.encoder)
    sizes, generator = close_ups.layout.sizes, torch.Generator().manual_seed(0)
    slots = torch.randint(0, 3, (2, 9), generator=generator)
    sees = torch.rand(2, 9, generator=generator) < 0.8
    least_px = torch.rand(2, 9, generator=generator) * float(sizes[-1])
    uv = torch.rand(2, 9, 2, generator=generator) * 48
    crops = close_ups.layout.corners(uv.flatten(0, 1)).crops.view(2, 9, len(sizes), 4)
    expected, total, refused = torch.zeros(2, 9, len(sizes), dtype=torch.bool), 0, 0
    for slot in range(3):
        count = 0
        for level in reversed(range(len(sizes))):
            is_asked = sees & (slots == slot) & ((least_px <= sizes[level]) | (level == len(sizes) - 1))
            count += len(crops[is_asked, level].unique())
            if count > most and level < len(sizes) - 1:
                refused += 1
                break
            expected[..., level] |= is_asked
            total += len(crops[is_asked, level].unique())
    rows, encoded = rows_and_encoded(close_ups, Sights(slots, uv, torch.ones(2, 9), sees, least_px))
    assert torch.equal(encoded, expected) and sum(online.encoder.batches) == total
    assert refused and not encoded[..., -1].all()
    assert rows[sees].tolist() == close_ups._rows_of(slots[sees].tolist())


def test_a_new_keyframe_in_the_slot_is_encoded_anew(box, online, close_ups):
    around(close_ups, 0)
    before = close_ups._embeds[0].clone()
    store = online.mapper.store
    store.images[0] = 255 - store.images[0]
    store.generations[0] += 1
    around(close_ups, 0)
    assert (close_ups._embeds[close_ups._rows_of([0])[0]] - before).abs().max() > 0.1


def test_what_was_not_looked_at_for_longest_makes_room(box, online):
    config = online.mapper.config.override({"close_up.memory_mb": 1, "close_up.stride": 0.02}).close_up
    close_ups = CloseUps(config, online.mapper.store, online.encoder)
    assert (
        close_ups.capacity * close_ups.layout.total * 3 * 2
        <= 2**20
        < (close_ups.capacity + 1) * (close_ups.layout.total * 3 * 2)
    )
    close_ups.capacity = 2

    def encoded(slot):
        before = sum(online.encoder.batches)
        around(close_ups, slot)
        return sum(online.encoder.batches) > before

    assert [encoded(slot) for slot in (0, 1, 0, 2, 0, 1)] == [True, True, False, True, False, True]


def test_a_closer_look_at_the_box_shows_its_colours(box, online):
    for _ in range(250):
        online.mapper.step()
    layout = online.mapper.store.layout
    for slot in range(3):  # language anywhere: else there is nothing to ask yet
        for index in range(len(layout.levels)):
            online.mapper.store.finish_level(slot, 1, index)
    surface = online.surface(300)
    centre = surface.points.x_world[int(surface.points.views.argmax())].numpy()
    ((closer, *_),) = surface.closer(torch.from_numpy(centre)[None], torch.tensor([0.4]), 200)
    known = closer.crop_shares > 0
    colours = normalize(torch.from_numpy(box.colour(closer.points.x_world.numpy())).float(), dim=-1)
    crops = closer.crops.similarity(torch.tensor([0.1]), colours)[0].diagonal()
    assert known.float().mean() > 0.9 and crops[known].min() > 0.995
    others = torch.from_numpy(np.roll(colours.numpy(), 1, axis=1))
    assert crops[known].mean() > closer.crops.similarity(torch.tensor([0.1]), others)[0].diagonal()[known].mean() + 0.01


def test_a_crop_is_about_what_is_in_front_at_its_middle(online, close_ups):
    store, v = online.mapper.store, 24
    wall_z = store.depth_z[0, v].float()
    store.depth_z[0, :, 20:30] = 0.5  # a board stands before the wall
    u = torch.tensor([5, 25, 31, 60])  # the wall, the board, the wall past its edge, the wall again
    z = store.depth_z[0, v, u].double()
    fx, fy, cx, cy = store.intrinsics[0].double()
    x_camera = torch.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], dim=1)
    x_world = x_camera @ store.poses[0, :3, :3].T + store.poses[0, :3, 3]
    one = torch.zeros(1, len(u))
    sights = close_ups.sights(x_world, one.long(), one == 0, one)
    means = close_ups.means(sights, close_ups.encoded(torch.tensor([0]), close_ups.needed(sights)[[0]]))
    assert means.seen.all() and wall_z.min() > 1.2
    sizes = torch.from_numpy(close_ups.layout.sizes)
    assert means.counts.sum(dim=1)[[0, 1, 3]].tolist() == [len(sizes)] * 3
    # Past the edge only those crops count that reach as deep as the wall is behind the board: 0.4 of their size.
    deep = 0.4 * sizes * z[2] / fx >= z[2] - 0.5
    assert int(means.counts[2].sum()) == int(deep.sum()) < len(sizes)
