from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.mapping.checkpoint import MapFileError
from lerf_ros.mapping.online import OnlineMapper


@pytest.fixture
def online(box):
    config = box.config.override({"pyramid.batch": 12, "pyramid.time_share": 0.5, "pyramid.urgent_share": 0.5})
    return OnlineMapper(config, box.ColourEncoder(), "cpu")


def work_until_encoded(online, limit=2000):
    steps = 0
    for _ in range(limit):
        if online.pyramid_progress == 1.0:
            return steps
        steps += online.advance() is not None
    raise AssertionError("the crops were not encoded")


def test_nothing_to_do_before_the_first_keyframe(online):
    assert online.advance() is None and online.pyramid_progress == 0.0


def test_crops_get_the_embeddings_of_their_own_pixels(box, online):
    for frame in box.walk(10)[:3]:
        online.ingest(frame)
    assert work_until_encoded(online) > 0  # training went on meanwhile
    store, layout = online.mapper.store, online.mapper.layout
    assert max(online.encoder.batches) <= 12 and sum(online.encoder.batches) == 3 * layout.total
    for slot in range(3):
        image = store.images[slot].permute(2, 0, 1).float() / 255
        for index, level in enumerate(layout.levels):
            expected = normalize(layout.crops(image, index, size=8).mean(dim=(2, 3)), dim=1)
            written = store.embeds[slot, level.offset : level.offset + level.count].float()
            torch.testing.assert_close(written, expected, atol=2e-3, rtol=0)


def test_coarse_levels_come_first_and_newest_keyframes_before_old_ones(box, online):
    for frame in box.walk(10)[:3]:
        online.ingest(frame)
    store, finished = online.mapper.store, []
    while online.pyramid_progress < 1.0:
        before = store.host_valid.copy()
        online.advance()
        finished += [
            (int(slot), int(level)) for slot, level in zip(*(store.host_valid & ~before).nonzero(), strict=True)
        ]
    assert finished == [(2, 1), (1, 1), (0, 1), (2, 0), (1, 0), (0, 0)]


@pytest.mark.parametrize(
    ("coarse", "batch", "batches"),
    [
        (0.2, 300, [129, 129]),  # all of a keyframe, coarse as they are
        (0.4, 300, [30, 30, 99, 99]),  # the finer level is not coarse
        (0.2, 50, [50, 50, 50, 29, 50, 29]),  # 30 and 20 of each; then the other 79, keyframe by keyframe
    ],
)
def test_coarse_levels_of_a_keyframe_share_a_batch(box, coarse, batch, batches):
    online = OnlineMapper(
        box.config.override({"pyramid.coarse": coarse, "pyramid.batch": batch}), box.ColourEncoder(), "cpu"
    )
    for frame in box.walk(10)[:2]:
        online.ingest(frame)
    assert [level.count for level in online.mapper.layout.levels] == [99, 30]
    work_until_encoded(online)
    assert online.encoder.batches == batches


def test_both_kinds_of_work_get_their_share_of_the_time(box, online, monkeypatch):
    seconds = {"now": 0.0, "encoding": 0.0}
    monkeypatch.setattr("lerf_ros.mapping.online.time", SimpleNamespace(monotonic=lambda: seconds["now"]))
    encode, step = online.encoder.encode_images, online.mapper.step

    def slow_encode(crops):
        seconds["now"] += 3.0
        seconds["encoding"] += 3.0
        return encode(crops)

    def quick_step():
        seconds["now"] += 1.0
        return step()

    monkeypatch.setattr(online.encoder, "encode_images", slow_encode)
    monkeypatch.setattr(online.mapper, "step", quick_step)
    for frame in box.walk(10):
        online.ingest(frame)
    while seconds["now"] < 30:
        online.advance()
    assert online.pyramid_progress < 1.0
    assert 0.4 * seconds["now"] <= seconds["encoding"] <= 0.6 * seconds["now"]  # time_share is 0.5


def test_refined_poses_are_taken_over_before_each_unit_of_work(box, online, monkeypatch):
    taken = []
    online.advance()
    online.ingest(box.walk(10)[0])
    monkeypatch.setattr(online.mapper, "refine_poses", lambda: taken.append(online.mapper.steps))
    for _ in range(5):
        online.advance()
    assert len(taken) == 5


def test_coarse_crops_of_a_new_keyframe_come_before_fine_ones_that_are_begun(box):
    config = box.config.override({"pyramid.batch": 12, "pyramid.coarse": 0.4})  # of levels 0.25 and 0.5
    online = OnlineMapper(config, box.ColourEncoder(), "cpu")
    frames = box.walk(10)
    online.ingest(frames[0])
    store = None
    while store is None or not (online.mapper.store.host_valid[0, 1] and online._begun):
        online.advance()
        store = online.mapper.store
    begun = dict(online._begun)
    online.ingest(frames[5])
    while not store.host_valid[1, 1]:
        online.advance()
    assert not store.host_valid[:, 0].any() and begun.items() <= online._begun.items()
    work_until_encoded(online)
    assert sum(online.encoder.batches) == 2 * store.layout.total  # nothing was encoded twice


@pytest.mark.parametrize(("coarse", "share"), [(0.1, 0.6), (0.9, 0.2)])
def test_coarse_crops_are_urgent(box, monkeypatch, coarse, share):
    """All levels are coarse, or none of them is."""
    seconds = {"now": 0.0, "encoding": 0.0}
    monkeypatch.setattr("lerf_ros.mapping.online.time", SimpleNamespace(monotonic=lambda: seconds["now"]))
    settings = {"pyramid.batch": 4, "pyramid.coarse": coarse, "pyramid.time_share": 0.2, "pyramid.urgent_share": 0.6}
    online = OnlineMapper(box.config.override(settings), box.ColourEncoder(), "cpu")
    encode = online.encoder.encode_images

    def slow_encode(crops):
        seconds["now"] += 1.0
        seconds["encoding"] += 1.0
        return encode(crops)

    def quick_step():
        seconds["now"] += 0.5

    monkeypatch.setattr(online.encoder, "encode_images", slow_encode)
    monkeypatch.setattr(online.mapper, "step", quick_step)
    for frame in box.walk(10):
        online.ingest(frame)
    while seconds["now"] < 30:
        online.advance()
    assert online.pyramid_progress < 1.0
    assert seconds["encoding"] / seconds["now"] == pytest.approx(share, abs=0.05)


def test_a_keyframe_replaced_while_it_is_encoded_gets_none_of_its_embeddings(box):
    config = box.config.override({"pyramid.batch": 12, "keyframe.capacity": 1})
    online = OnlineMapper(config, box.ColourEncoder(), "cpu")
    frames = box.walk(10)
    online.ingest(frames[0])
    online.advance()
    assert online.encoder.batches == [12]  # of a level that has more
    online.ingest(frames[5])
    work_until_encoded(online)
    assert sum(online.encoder.batches) == 12 + online.mapper.layout.total  # the new keyframe's are all encoded


def test_a_saved_map_comes_back_and_missing_crops_are_encoded(box, online, tmp_path):
    for frame in box.walk(10)[:2]:
        online.ingest(frame)
    for _ in range(4):
        online.advance()
    progress = online.pyramid_progress
    assert progress < 1.0
    online.save(tmp_path / "map")
    online.reset()
    assert online.mapper.keyframes == 0 and online.pyramid_progress == 0.0
    online.load(tmp_path / "map")
    assert online.mapper.keyframes == 2 and online.pyramid_progress == progress
    work_until_encoded(online)
    online.encoder.name = "another"
    with pytest.raises(MapFileError, match="colours"):
        online.load(tmp_path / "map")


def test_encoding_goes_on_where_steps_may_not(box, online):
    assert not online.encoding and online.mapper.steps_since_news == 0
    frames = box.walk(10)
    online.ingest(frames[0])
    while online.encoding:
        assert online.advance(may_step=False) is None
    assert online.pyramid_progress == 1.0 and online.mapper.steps == 0
    assert online.advance(may_step=False) is None
    for expected in (1, 2):
        assert online.advance() is not None and online.mapper.steps_since_news == expected
    online.ingest(frames[5])
    assert online.encoding and online.mapper.steps_since_news == 0
