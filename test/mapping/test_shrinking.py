"""Where memory runs out, work shrinks, says so and goes on: nothing is lost, done twice or left behind.

Running out is simulated: what a GPU's allocator raises is raised here from the middle of the work."""

import logging
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.mapping import losses
from lerf_ros.mapping.close_up_means import Sights
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.shrinking import Shrinking

SETTINGS = ("preset", "keyframe.capacity", "pyramid.batch", "close_up.batch", "sampling.rays")


def out_of_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")


class Failing:
    """A function that runs out of memory in its first `times` calls."""

    def __init__(self, function, times):
        self.function, self.left = function, times

    def __call__(self, *args):
        if self.left:
            self.left -= 1
            out_of_memory()
        return self.function(*args)


def made(config, box, keyframes=2):
    online = OnlineMapper(config, box.ColourEncoder(), "cpu")
    for frame in box.walk(10)[:keyframes]:
        online.ingest(frame)
    return online


def check_advice(error):
    assert all(name in str(error.value) for name in SETTINGS)


def test_sizes_are_halved_down_to_the_least_one_and_stay(caplog):
    size, asked = Shrinking("some.setting", 20, least=6), []

    def work(count):
        asked.append(count)
        return count if count < 10 else out_of_memory()

    with caplog.at_level(logging.WARNING):
        assert size.run(work) == 6 and size.run(work) == 6
    assert asked == [20, 10, 6, 6]
    assert [record.args[:3] for record in caplog.records] == [("some.setting", 10, 20), ("some.setting", 6, 10)]
    with pytest.raises(torch.OutOfMemoryError, match="some.setting = 6") as error:
        size.run(out_of_memory)
    check_advice(error)


def test_only_what_is_out_of_memory_is_done_again():
    def capture_that_ends_early(_):
        try:
            out_of_memory()
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    def bug(_):
        raise RuntimeError("shapes do not match")

    size = Shrinking("some.setting", 2)
    with pytest.raises(RuntimeError, match="shapes"):
        size.run(bug)
    assert size.size == 2
    assert size.run(Failing(lambda count: count, 1)) == 1
    with pytest.raises(torch.OutOfMemoryError, match="some.setting = 1"):
        Shrinking("some.setting", 2).run(capture_that_ends_early)


@pytest.mark.parametrize(("times", "batch"), [(1, 6), (2, 3)])
def test_crops_are_encoded_in_smaller_batches(box, monkeypatch, caplog, times, batch):
    online = made(box.config.override({"pyramid.batch": 12}), box)
    encoder, store = online.encoder, online.mapper.store
    online.advance()
    assert encoder.batches == [12]
    monkeypatch.setattr(encoder, "encode_images", Failing(encoder.encode_images, times))
    while online.pyramid_progress < 1.0:
        online.advance()
    assert max(encoder.batches[1:]) == batch
    assert sum(encoder.batches) == 2 * store.layout.total  # each crop once
    assert f"pyramid.batch is {batch}" in caplog.text
    for slot in range(2):
        for index, level in enumerate(store.layout.levels):
            cut = store.layout.crops(store.colours(slot), index, size=encoder.image_size)
            written = store.embeds[slot, level.offset : level.offset + level.count].float()
            torch.testing.assert_close(written, normalize(cut.mean(dim=(2, 3)), dim=1), atol=2e-3, rtol=0)

    online.reset()
    for frame in box.walk(10)[:2]:
        online.ingest(frame)
    online.advance()
    assert encoder.batches[-1] == 12  # another map


def test_encoding_that_never_fits_says_what_to_do(box, monkeypatch):
    online = made(box.config.override({"pyramid.batch": 12}), box)
    monkeypatch.setattr(online.encoder, "encode_images", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="pyramid.batch = 1") as error:
        online.advance()
    check_advice(error)
    assert not online.mapper.store.host_valid.any() and not online._begun


def trained(box, rays=1024):
    mapper = Mapper(box.config.override({"sampling.rays": rays}), box.camera, 3, "cpu", seed=0)
    for frame in box.walk(4):
        mapper.add_frame(frame)
    box.write_halves(mapper, normalize(torch.eye(3)[:2], dim=1))
    for _ in range(3):
        mapper.step()
    return mapper


def after_backward(mapper, times):
    """Gradients are there, of tables and networks, when memory runs out."""
    trainer = mapper._trainer
    trainer._update = Failing(trainer._update, times)


def before_backward(mapper, times):
    trainer = mapper._trainer
    trainer._language_losses = Failing(trainer._language_losses, times)


@pytest.mark.parametrize("fail", [before_backward, after_backward])
@pytest.mark.parametrize(("times", "rays"), [(1, 512), (2, 256)])
def test_a_step_goes_on_with_fewer_rays(box, monkeypatch, caplog, fail, times, rays):
    mapper, drawn = trained(box), []
    colour_loss = losses.colour_loss
    monkeypatch.setattr(losses, "colour_loss", lambda rgb, truth: drawn.append(len(rgb)) or colour_loss(rgb, truth))
    fail(mapper, times)
    for step in (4, 5):
        stats = mapper.step()
        assert stats.step == step and int(stats.skipped) == 0
        assert all(getattr(stats, name).isfinite() for name in ("loss", "colour", "depth", "language"))
    assert drawn == [1024, 512, 256][:times] + [rays] * 2
    assert f"sampling.rays is {rays}" in caplog.text
    assert mapper.keyframes == 4 and mapper.steps == 5


def test_a_failed_step_leaves_no_gradient_behind(box, monkeypatch):
    mapper = trained(box)
    trainer = mapper._trainer
    before = {name: value.detach().clone() for name, value in mapper.fields.named_parameters()}
    tables = [state for state, _ in trainer._tables._states]
    moments = [(state.m.clone(), state.v.clone()) for state in tables]
    after_backward(mapper, math.inf)
    with pytest.raises(torch.OutOfMemoryError, match="sampling.rays = 256") as error:
        mapper.step()
    check_advice(error)
    for name, value in mapper.fields.named_parameters():
        assert torch.equal(value, before[name]), name
        assert value.grad is None or not value.grad.any()
        assert (value.grad is not None) == name.endswith("table")  # the buffers of tables stay where they are
    assert all(torch.equal(state.m, m) and torch.equal(state.v, v) for state, (m, v) in zip(tables, moments))


def test_fewer_rays_outlive_a_trainer_and_a_map_begins_with_its_own(box, tmp_path):
    mapper = trained(box)
    after_backward(mapper, 1)
    mapper.step()
    mapper._bound(mapper.bounds)  # as when the volume grows
    mapper.step()
    assert mapper._trainer._rays.size == 512
    mapper.save(tmp_path / "map")
    mapper.load(tmp_path / "map")
    assert mapper._trainer._rays.size == 1024


def look(close_ups, slot, uv):
    """Encodes the crops of a keyframe around pixels (P, 2); which levels (L,) are there then."""
    one = torch.ones(1, len(uv))
    sights = Sights((slot * one).long(), torch.from_numpy(uv).float()[None], one, one > 0, 0 * one)
    slots = sights.slots.flatten()
    return close_ups.encoded(slots, close_ups.needed(sights)[slots])[slot, 1:] > 0


@pytest.mark.parametrize(("times", "batch"), [(1, 8), (2, 4)])
def test_a_closer_look_encodes_smaller_batches(box, monkeypatch, caplog, times, batch):
    online = made(box.config.override({"close_up.memory_mb": 1, "close_up.batch": 16}), box)
    config, encoder, uv = online.mapper.config.close_up, online.encoder, np.array([[20.0, 11.0], [40.3, 30.9]])
    wanted = CloseUps(config, online.mapper.store, encoder)
    look(wanted, 1, uv)
    count, encoder.batches[:] = sum(encoder.batches), []

    encode = encoder.encode_images
    monkeypatch.setattr(encoder, "encode_images", Failing(encode, 0))
    close_ups = CloseUps(config, online.mapper.store, encoder)
    encoder.encode_images.left = times
    assert look(close_ups, 1, uv).all()
    assert max(encoder.batches) == batch and sum(encoder.batches) == count
    assert torch.equal(close_ups._embeds, wanted._embeds) and np.array_equal(close_ups._done, wanted._done)
    assert f"close_up.batch is {batch}" in caplog.text

    look(close_ups, 1, uv)
    assert sum(encoder.batches) == count  # nothing was lost


def test_a_closer_look_that_never_fits_says_what_to_do_and_is_done_later(box, monkeypatch):
    online = made(box.config.override({"close_up.memory_mb": 1, "close_up.batch": 16}), box)
    close_ups, uv = CloseUps(online.mapper.config.close_up, online.mapper.store, online.encoder), np.full((1, 2), 20.0)
    encode = online.encoder.encode_images
    monkeypatch.setattr(online.encoder, "encode_images", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="close_up.batch = 1") as error:
        look(close_ups, 0, uv)
    check_advice(error)
    assert not close_ups._done.any()
    monkeypatch.setattr(online.encoder, "encode_images", encode)
    look(close_ups, 0, uv)
    assert close_ups._done.sum() == sum(online.encoder.batches) > 0
