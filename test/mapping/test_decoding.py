"""The three ways from features along a ray to an embedding, and the three meanings of scale."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField
from lerf_ros.mapping.config import LanguageConfig
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures, asked_features, training_features
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.marching import March
from lerf_ros.render.rays import Rays
from lerf_ros.render.volume import median_depth

GRID = HashGridConfig(levels=2, features=3, log2_table=10, min_resolution=8, max_resolution=32)
RAYS, SAMPLES, KEPT = 40, 9, 4
EMBEDS = torch.eye(6)[:2]  # what lies at x < 0, and at x > 0


@pytest.fixture
def language():
    torch.manual_seed(0)
    field = LanguageField(GRID, GRID, embed_dim=5, hidden=12, layers=2)
    for grid in (field.coarse, field.fine):
        torch.nn.init.normal_(grid.table)
    return field


@pytest.fixture
def marched():
    torch.manual_seed(1)
    rays = Rays(0.1 * torch.randn(RAYS, 3), normalize(torch.randn(RAYS, 3), dim=-1), 2.0)
    t_edges = (0.1 + torch.rand(RAYS, SAMPLES + 1)).cumsum(dim=1)
    weights = torch.rand(RAYS, SAMPLES, requires_grad=True)
    x_unit = rays.x_unit((t_edges[:, 1:] + t_edges[:, :-1]) / 2)
    return March(rays, x_unit, t_edges, torch.ones(RAYS, SAMPLES), weights)


def config(decoding):
    return LanguageConfig(decoding=decoding, samples=KEPT)


def heaviest(marched, ray):
    weights = marched.weights[ray].detach()
    index = sorted(range(SAMPLES), key=lambda i: -weights[i])[:KEPT]
    return index, weights[index] / weights[index].sum()


def test_blend_decodes_the_mean_feature_at_the_median_depth(language, marched):
    taken = training_features(language, marched, config("blend"))
    assert taken.weights is None
    torch.testing.assert_close(taken.t, median_depth(marched.weights.detach(), marched.t_edges))
    for ray in range(0, RAYS, 9):
        index, share = heaviest(marched, ray)
        mean = (share[:, None] * language.features(marched.x_unit[ray, index])).sum(dim=0)
        torch.testing.assert_close(taken.features[ray], mean)
    scale = torch.rand(RAYS) + 0.1
    torch.testing.assert_close(taken.embed(scale), language.embed(taken.features, scale))


def test_per_sample_blends_embeddings_each_at_its_own_scale(language, marched):
    taken = training_features(language, marched, config("per_sample"))
    scale = 0.3 * taken.t
    embeds = taken.embed(scale)
    middles = (marched.t_edges[:, 1:] + marched.t_edges[:, :-1]) / 2
    for ray in range(0, RAYS, 9):
        index, share = heaviest(marched, ray)
        decoded = language.embed(language.features(marched.x_unit[ray, index]), 0.3 * middles[ray, index])
        torch.testing.assert_close(embeds[ray], normalize((share[:, None] * decoded).sum(dim=0), dim=0))
    embeds[:, 0].sum().backward()
    assert marched.weights.grad is None and language.coarse.table.grad.abs().sum() > 0


def test_sampled_draws_in_proportion_to_the_weights(language, marched):
    middles = (marched.t_edges[:, 1:] + marched.t_edges[:, :-1]) / 2
    draws = torch.stack([training_features(language, marched, config("sampled")).t for _ in range(3000)])
    share = (draws[..., None] == middles).float().mean(dim=0)
    weights = marched.weights.detach()
    torch.testing.assert_close(share, weights / weights.sum(dim=1, keepdim=True), atol=0.04, rtol=0)
    taken = training_features(language, marched, config("sampled"))
    at = middles == taken.t[:, None]
    torch.testing.assert_close(taken.features, language.features(marched.x_unit[at]))


def test_sampled_never_draws_what_weighs_nothing(language, marched):
    weights = torch.zeros(RAYS, SAMPLES)
    weights[:, 3] = 0.2
    only = March(marched.rays, marched.x_unit, marched.t_edges, marched.sigmas, weights)
    for _ in range(50):
        taken = training_features(language, only, config("sampled"))
        torch.testing.assert_close(taken.t, marched.t_edges[:, 3:5].mean(dim=1))


def test_sampled_asks_the_surface_point_and_the_others_what_they_trained(language, marched):
    taken = asked_features(language, marched, config("sampled"))
    t = median_depth(marched.weights.detach(), marched.t_edges)
    local = marched.rays.origins + t[:, None] * marched.rays.directions / 2.0
    radius = local.norm(dim=1, keepdim=True).clamp_min(1)
    x_unit = (local * (2 - 1 / radius) / radius) / 4 + 0.5
    torch.testing.assert_close(taken.features, language.features(x_unit), atol=1e-3, rtol=1e-3)
    for decoding in ("blend", "per_sample"):
        trained, asked = (f(language, marched, config(decoding)) for f in (training_features, asked_features))
        assert torch.equal(trained.features, asked.features)


@pytest.mark.parametrize("decoding", ["blend", "sampled", "per_sample"])
def test_similarity_is_the_cosine_of_the_embedding_also_of_some_rays(language, marched, decoding):
    parts = [asked_features(language, marched[part], config(decoding)) for part in (slice(0, 25), slice(25, RAYS))]
    taken = LanguageFeatures.cat(parts)[torch.tensor([3, 30, 39])]
    texts, scales = normalize(torch.randn(4, 5), dim=-1), torch.tensor([0.2, 0.9])
    direct = torch.stack([taken.embed(s.expand(3)) @ texts.T for s in scales])
    torch.testing.assert_close(taken.similarity(scales, texts), direct, atol=1e-5, rtol=0)


def test_scales_of_a_crop():
    layout = PyramidLayout.build(48, 64, (0.25, 0.5))  # 12 and 24 px
    t, z_per_t, focal_px = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.8]), 40.0
    crop_px = torch.tensor([12.0, 21.0])
    physical = CropScale("physical", layout, 3.5).of(crop_px, t, z_per_t, focal_px)
    torch.testing.assert_close(physical, torch.tensor([12 * 2.0 / 40, 21 * 2.4 / 40]))
    # LERF: the place in the range, times H / f, times the distance (not the depth) in units of the scene.
    normalised = CropScale("normalised", layout, 3.5)
    expected = torch.tensor([0.0, 0.75 * 48 / 40 * 3.0 / 3.5])
    torch.testing.assert_close(normalised.of(crop_px, t, z_per_t, focal_px), expected)
    low, high = normalised.asked(12, 24, t, z_per_t, focal_px)
    torch.testing.assert_close(high, 48 / 40 * t / 3.5)
    torch.testing.assert_close(low, 0.05 * high)  # zero has no logarithm
    assert torch.equal(CropScale("none", layout, 3.5).of(crop_px, t, z_per_t, focal_px), torch.ones(2))


@pytest.mark.parametrize(
    "settings",
    [
        {"language.decoding": "sampled"},
        {"language.decoding": "per_sample"},
        {"language.scale": "none"},
        {"language.decoding": "per_sample", "language.scale": "normalised"},
    ],
    ids=lambda settings: "-".join(settings.values()),
)
def test_every_way_learns_what_lies_where(box, settings):
    mapper = Mapper(box.config.override(settings), box.camera, EMBEDS.shape[1], "cpu", seed=0)
    for frame in box.walk(8):
        mapper.add_frame(frame)
    box.write_halves(mapper, EMBEDS)
    for _ in range(200):
        mapper.step()
    surface = mapper.surface(800)
    points = surface.points
    known = points.scale_min <= points.scale_max
    assert (points.scale_min > 0).all() and known.float().mean() > 0.9
    middle = float((points.scale_min * points.scale_max)[known].sqrt().median())
    left, right = surface.similarity(torch.tensor([middle]), EMBEDS)[0].T
    x = points.x_world[:, 0]
    assert (left > right)[x < -0.7].float().mean() > 0.93
    assert (right > left)[x > 0.7].float().mean() > 0.93
    view = mapper.render(box.camera, box.pose(0.0), stride=4, features=True)
    answers = view.features.similarity(torch.tensor([middle]), EMBEDS)[0]
    on_left = torch.from_numpy(box.view(box.pose(0.0))[2][2::4, 2::4, 0].reshape(-1)) < -0.7
    assert (answers[:, 0] > answers[:, 1])[on_left].float().mean() > 0.9
    assert view.scale_of(24.0).shape == view.scale_min.shape == (12 * 16,)
    if settings.get("language.scale", "physical") == "physical":
        np.testing.assert_allclose(view.scale_of(24.0), 24.0 * view.depth_z.flatten() / 40.0, rtol=1e-5)
