"""Dense features: kept with the keyframes, encoded in the budget, learned by the language field, saved."""

import json
import logging

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from lerf_ros.mapping import online as online_module
from lerf_ros.mapping.decoding import training_features
from lerf_ros.mapping.losses import dino_loss
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.marching import march
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.rays import draw_batch
from lerf_ros.render.sampling import spaced_edges

ROWS, DIM = 6, 4
ON = {"dense.rows": ROWS, "dense.model": "toy"}


def field(x):
    """(..., 4) unit vectors: the truth at points of the walls."""
    waves = np.stack([np.sin(1.5 * x[..., 0]), np.cos(1.2 * x[..., 1]), np.sin(1.5 * x[..., 2]), x[..., 0] / 2], -1)
    return normalize(torch.from_numpy(waves).float(), dim=-1)


def mapped(box, settings=None, seed=0):
    """A map whose keyframes have the truth at the cells of their images."""
    mapper = Mapper(box.config.override(ON | (settings or {})), box.camera, 6, "cpu", seed, DIM)
    for frame in box.walk(10):
        mapper.add_frame(frame)
    store = mapper.store
    for slot in range(len(store)):
        x = box.view(store.host_poses[slot])[2]  # cells of 8 x 8 pixels: the four around the centre
        centres = (x[3::8, 3::8] + x[3::8, 4::8] + x[4::8, 3::8] + x[4::8, 4::8]) / 4
        assert store.write_dense(slot, 1, field(centres)) and store.finish_dense(slot, 1)
        store.write_embeds(slot, 1, 0, torch.eye(6)[:1].expand(mapper.layout.total, 6))
        store.finish_level(slot, 1, 0)
    return mapper


def unexplained(found, truth):
    return float((found - truth).square().sum() / (truth - truth.mean(dim=0)).square().sum())


def test_the_loss_is_the_share_of_variance_that_is_not_explained():
    rng = torch.Generator().manual_seed(0)
    targets = normalize(torch.randn(500, 7, generator=rng) + 2, dim=1)
    features = targets + 0.05 * torch.randn(500, 7, generator=rng)
    known = torch.rand(500, generator=rng) < 0.6
    t, f = targets[known].double().numpy(), features[known].double().numpy()
    expected = (
        1 - np.mean([np.corrcoef(t[:, 0], t[:, 0])[0, 1]]) + np.sum((f - t) ** 2) / np.sum(t.var(axis=0) * len(t))
    )
    assert float(dino_loss(features, targets, known)) == pytest.approx(expected, rel=1e-4)
    mean = targets[known].mean(dim=0).expand_as(targets)
    assert float(dino_loss(mean, targets, known)) == pytest.approx(1.0, rel=1e-4)
    garbage = torch.where(known[:, None], targets, 1e3)
    assert float(dino_loss(targets, garbage, known)) == 0.0


def test_the_loss_stays_bounded_where_all_rays_see_the_same_or_none_is_known():
    same = torch.eye(4)[:1].expand(30, 4)
    assert float(dino_loss(same + 0.1, same, torch.ones(30, dtype=torch.bool))) == pytest.approx(0.04 / 0.01, rel=1e-3)
    features = same.clone().requires_grad_()
    dino_loss(features, same + 1, torch.zeros(30, dtype=torch.bool)).backward()
    assert (features.grad == 0).all()


def test_a_slot_that_was_reused_takes_no_late_features(box):
    mapper = Mapper(box.config.override(ON | {"keyframe.capacity": 1}), box.camera, 6, "cpu", dense_dim=DIM)
    first, second = box.walk(10)[:2]
    features = torch.ones(ROWS, 8, DIM)
    mapper.add_frame(first)
    assert mapper.store.write_dense(0, 1, features) and not mapper.store.has_dense
    assert mapper.store.finish_dense(0, 1) and mapper.store.dense_valid[0] and mapper.store.has_dense
    mapper.store.insert(second)
    assert not mapper.store.dense_valid[0] and not mapper.store.has_dense
    assert not mapper.store.write_dense(0, 1, 2 * features) and not mapper.store.finish_dense(0, 1)
    assert not mapper.store.dense_valid[0]
    assert (mapper.store.dense[0] == 1).all()


@pytest.mark.parametrize("decoding", ["blend", "per_sample"])
def test_gradients_reach_the_language_field_and_nothing_else(box, decoding):
    mapper = mapped(box, {"language.decoding": decoding})
    store, fields, config = mapper.store, mapper.fields, mapper.config
    batch = draw_batch(store, 64, 64, 0, config.replay, mapper.bounds)
    edges = spaced_edges(config.scene.near, config.scene.far, 10, mapper.bounds.radius).expand(64, -1)
    found = training_features(fields.language, march(fields.radiance, batch.rays, edges).march, config.language).dino()
    assert found.shape == (64, DIM)
    targets = store.dense_grid.interpolate(store.dense, batch.slots, batch.uv)
    dino_loss(found, targets, store.dense_valid[batch.slots]).backward()
    reached = {name for name, p in fields.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"language.coarse.table", "language.fine.table"} < reached
    assert all(name.startswith(("language.coarse", "language.fine", "language.dino_head")) for name in reached)


def test_the_head_learns_the_features_and_knows_them_in_new_views(box):
    mapper = mapped(box)
    first = float(mapper.step().dino)
    for _ in range(250):
        stats = mapper.step()
    assert float(stats.dino) < 0.05 < 0.5 < first
    T = box.pose(0.3, 0.2, -0.1)
    x = box.view(T)[2]
    found = mapper.render(box.camera, T, features=True).features.dino().detach()
    assert unexplained(found, field(x).reshape(-1, DIM)) < 0.1


def test_without_weight_nothing_is_learned(box):
    mapper = mapped(box, {"loss.dino": 0.0})
    head = [p.clone() for p in mapper.fields.language.dino_head.parameters()]
    stats = [mapper.step() for _ in range(3)]
    assert all(float(s.dino) == 0 for s in stats)
    assert all(torch.equal(a, b) for a, b in zip(head, mapper.fields.language.dino_head.parameters(), strict=True))


def test_a_saved_map_keeps_its_features_and_an_older_map_without_any_loads(box, tmp_path):
    mapper = mapped(box)
    for _ in range(5):
        mapper.step()
    mapper.save(tmp_path / "map", "toy")
    other = Mapper(box.config, None, 6, "cpu", seed=3)
    other.load(tmp_path / "map", "toy")
    assert other.dense_dim == DIM and other.config.dense.model == "toy" and other.store.has_dense
    assert torch.equal(other.store.dense[:10], mapper.store.dense[:10]) and other.store.dense_valid[:10].all()
    T = box.pose(0.2)
    features = [m.render(box.camera, T, features=True).features.dino() for m in (mapper, other)]
    assert torch.equal(*features)
    assert float(other.step().dino) > 0

    Mapper.save(plain := small_map(box), tmp_path / "plain", "toy")
    index = json.loads((tmp_path / "plain" / "map.json").read_text())
    del index["dense_dim"]
    index["config"] = {k: v for k, v in index["config"].items() if not k.startswith("dense.") and k != "loss.dino"}
    (tmp_path / "plain" / "map.json").write_text(json.dumps(index))
    other.load(tmp_path / "plain", "toy")
    assert other.dense_dim == 0 and other.config == plain.config and other.fields.language.dino_head is None
    assert float(other.step().dino) == 0.0


def small_map(box):
    mapper = Mapper(box.config, box.camera, 6, "cpu")
    mapper.add_frame(box.walk(10)[0])
    return mapper


class Colours:
    """Embeds crops as their mean colour, and images as those of their cells."""

    name, embed_dim, image_size, dim = "colours", 3, 8, 3

    def encode_images(self, crops):
        return normalize(crops.mean(dim=(2, 3)), dim=1)

    def encode(self, images, grid):
        return normalize(adaptive_avg_pool2d(images, (grid.rows, grid.columns)).permute(0, 2, 3, 1), dim=-1)


@pytest.fixture
def online(box, monkeypatch):
    def load(model, pretrained, device, encoder):
        return encoder if model in ("auto", "colours") else None

    monkeypatch.setattr(online_module, "load_dense", load)
    settings = {"dense.model": "auto", "dense.rows": ROWS, "pyramid.coarse": 0.4}  # the second level is a fine one
    return OnlineMapper(box.config.override(settings), Colours(), "cpu")


def work_until(online, done, limit=1000):
    for _ in range(limit):
        if done():
            return
        online.advance()
    raise AssertionError("this was not encoded")


def test_features_come_after_the_coarsest_level_and_belong_to_their_image(box, online):
    for frame in box.walk(10)[:3]:
        online.ingest(frame)
    store, order = online.mapper.store, []
    while online.pyramid_progress < 1.0:
        before = np.column_stack([store.host_valid, store.host_dense_valid])
        online.advance()
        after = np.column_stack([store.host_valid, store.host_dense_valid])
        order += [(int(slot), ("fine", "coarse", "dense")[what]) for slot, what in zip(*(after & ~before).nonzero())]
    assert order == [(slot, what) for what in ("coarse", "dense", "fine") for slot in (2, 1, 0)]
    images = store.images[:3].float().numpy()
    cells = images.reshape(3, ROWS, 8, 8, 8, 3).mean(axis=(2, 4))
    expected = cells / np.linalg.norm(cells, axis=-1, keepdims=True)
    np.testing.assert_allclose(store.dense[:3].float().numpy(), expected, atol=1e-3)
    assert float(online.mapper.step().dino) > 0


def test_a_loaded_map_goes_on_with_its_own_features_only(box, online, tmp_path, caplog):
    frames = box.walk(10)
    online.ingest(frames[0])
    work_until(online, lambda: online.pyramid_progress == 1.0)
    online.save(tmp_path / "map")
    online.reset()
    online.load(tmp_path / "map")
    online.ingest(frames[5])
    work_until(online, lambda: online.mapper.store.host_dense_valid.all())
    assert online.mapper.keyframes == 2 and not caplog.records

    without = OnlineMapper(box.config, Colours(), "cpu")
    without.ingest(frames[0])
    without.save(tmp_path / "without")
    with caplog.at_level(logging.WARNING):
        online.load(tmp_path / "without")
    assert "made with the dense features 'none', not 'colours'" in caplog.text
    work_until(online, lambda: online.pyramid_progress == 1.0)
    assert not online.mapper.store.has_dense
    without.load(tmp_path / "map")  # and the other way round: what the map has is trained on
    assert float(without.mapper.step().dino) > 0
    without.ingest(frames[5])
    work_until(without, lambda: without.pyramid_progress == 1.0)
    assert without.mapper.store.host_dense_valid.tolist() == [True, False]
