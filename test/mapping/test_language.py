"""What the map learns about language comes back at its surface."""

import numpy as np
import pytest
import torch

from lerf_ros.mapping import observation
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.mapper import Mapper

EMBEDS = torch.eye(6)[:2]  # what lies at x < 0, and at x > 0


class SidesEncoder:
    """Whatever it sees, it says "left"."""

    embed_dim, image_size = 6, 8

    def encode_images(self, crops):
        return EMBEDS[:1].expand(len(crops), -1)


@pytest.fixture(scope="module")
def mapper(box):
    mapper = Mapper(box.config, box.camera, EMBEDS.shape[1], "cpu", seed=0)
    for frame in box.walk(10):
        mapper.add_frame(frame)
    box.write_halves(mapper, EMBEDS)
    for _ in range(250):
        mapper.step()
    return mapper


def test_each_half_of_the_surface_has_its_own_embedding(mapper):
    surface = mapper.surface(1500)
    x = surface.points.x_world[:, 0]
    left, right = surface.similarity(torch.tensor([0.6]), EMBEDS)[0].T
    assert len(x) > 300
    assert (left > right)[x < -0.7].float().mean() > 0.95
    assert (right > left)[x > 0.7].float().mean() > 0.95
    assert left[x < -0.7].mean() > 0.8


def test_surface_points_lie_on_the_walls_and_face_the_cameras(box, mapper):
    points = mapper.surface(1500).points
    x = points.x_world.numpy()
    distance = np.abs(np.abs(x) - np.array([2.0, 1.5, 2.0]))
    assert np.median(distance.min(axis=1)) < 0.05
    wall = distance.argmin(axis=1)
    inward = np.zeros_like(x)
    inward[np.arange(len(x)), wall] = -np.sign(x[np.arange(len(x)), wall])
    assert np.median((points.view_directions.numpy() * inward).sum(axis=1)) < -0.6
    torch.testing.assert_close(points.view_directions.norm(dim=1), torch.ones(len(x)), atol=1e-4, rtol=0)


def test_views_and_scales_are_those_of_the_keyframes_that_see_a_point(box, mapper):
    points = mapper.surface(1500).points
    sizes = mapper.layout.sizes.tolist()
    for n in range(0, len(points.x_world), 97):
        x, scales, views = points.x_world[n].numpy(), [], 0
        for T in mapper.store.host_poses:
            c = T[:3, :3].T @ (x - T[:3, 3])
            u, v = 40 * c[0] / c[2] + 31.5, 40 * c[1] / c[2] + 23.5
            if c[2] > 0 and -0.5 < u < 63.5 and -0.5 < v < 47.5:
                if abs(box.view(T)[1][round(v), round(u)] - c[2]) < 0.045 * c[2]:
                    views += 1
                    scales += [sizes[0] * c[2] / 40, sizes[-1] * c[2] / 40]
        assert abs(int(points.views[n]) - views) <= 1  # one may sit on the edge of the image or of the tolerance
        if int(points.views[n]) == views > 0:
            np.testing.assert_allclose(float(points.scale_min[n]), min(scales), rtol=0.02)
            np.testing.assert_allclose(float(points.scale_max[n]), max(scales), rtol=0.02)


def looked(surface, centres, radii, points):
    """The surface of a closer look at one place."""
    (closer,) = surface.closer(torch.from_numpy(np.stack(centres)), torch.tensor(radii), points)
    assert closer.places.sizes.tolist() == [len(closer.surface.points.x_world)]
    return closer.surface


def test_a_closer_look_is_denser_and_on_the_surface_inside_the_ball(mapper):
    surface = mapper.surface(300)
    centre, radius = surface.points.x_world[17].numpy(), 0.4
    closer = looked(surface, [centre], [radius], 400)
    x = closer.points.x_world.numpy()
    inside = np.linalg.norm(surface.points.x_world.numpy() - centre, axis=1) <= radius
    assert 3 * inside.sum() < len(x) <= 400
    assert (np.linalg.norm(x - centre, axis=1) <= radius + 0.03).all()  # some were moved to what was measured
    assert np.median(np.abs(np.abs(x) - np.array([2.0, 1.5, 2.0])).min(axis=1)) < 0.05
    nearest = np.sort(np.linalg.norm(x[:, None] - x[None], axis=-1), axis=1)[:, 1]
    assert np.median(nearest) > 0.3 * radius * (np.pi / 400) ** 0.5  # evenly spaced: one per cell of that size


@pytest.mark.parametrize("is_closer", [False, True])
def test_the_covariance_of_a_point_is_longest_along_the_rays_that_saw_it(mapper, box, is_closer):
    surface = mapper.surface(300)
    if is_closer:
        surface = looked(surface, [surface.points.x_world[17].numpy()], [0.4], 200)
    points = surface.points
    variances, axes = np.linalg.eigh(points.covariance.double().numpy())  # ascending
    cosines = np.abs(np.einsum("ni,ni->n", axes[..., 2], points.view_directions.double().numpy()))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    np.testing.assert_allclose(variances[:, :2] / variances[:, 2:], 1 / 9, rtol=0.01)
    rays = points.x_world.numpy()[:, None] - mapper.store.host_poses[None, : len(mapper.store), :3, 3]
    nearest = np.linalg.norm(rays, axis=-1).min(axis=1)
    assert (variances[:, 2] > 0.9 * (nearest / 40) ** 2 / 3).all()  # never better than one pixel on either side
    off_wall = np.abs(np.abs(points.x_world.numpy()) - box.half).min(axis=1)
    assert (off_wall < 2.5 * np.sqrt(variances[:, 2])).mean() > 0.85


def test_the_depth_uncertainty_of_a_map_falls_in_training(box, mapper):
    young = Mapper(box.config, box.camera, EMBEDS.shape[1], "cpu", seed=0)
    young.add_frame(box.walk(1)[0])
    early, late = (each.surface(100).state(each.steps, each.keyframes) for each in (young, mapper))
    assert early.depth_uncertainty > 0.3 > 0.1 > late.depth_uncertainty > 0
    assert (early.steps, early.keyframes, early.points) == (0, 1, 0) and early.geometry_is_young
    assert (late.steps, late.points) == (250, late.language_points)
    assert not (late.geometry_is_young or late.language_is_young)


def test_a_closer_look_asks_the_embeddings_of_close_ups_as_well(box, mapper):
    share = torch.tensor(mapper.config.close_up.share)
    surface = mapper.surface(300, CloseUps(mapper.config.close_up, mapper.store, SidesEncoder()))
    left = int((surface.points.x_world[:, 0] + 2.0).abs().argmin())
    closer = looked(surface, [surface.points.x_world[left].numpy()], [0.3], 200)
    scales = torch.tensor([0.4, 0.8])
    field, crops = closer.features.similarity(scales, EMBEDS), closer.crops.similarity(scales, EMBEDS)
    shares = closer.crop_shares[:, None]
    assert torch.isin(shares, torch.tensor([0.0, share])).all() and (shares > 0).float().mean() > 0.9
    torch.testing.assert_close(closer.similarity(scales, EMBEDS), (1 - shares) * field + shares * crops)
    assert crops[:, closer.crop_shares > 0, 0].mean() > 0.95  # all that this encoder sees is "left"


def test_several_places_are_looked_at_as_each_alone(mapper):
    points = mapper.surface(300).points.x_world
    centres, radii = points[[17, 60, 17]], torch.tensor([0.4, 0.25, 0.2])
    torch.manual_seed(0)
    ((surface, places, _),) = mapper.surface(300).closer(centres, radii, 150)
    for number, within in enumerate(places.slices()):
        own = surface.points.x_world[within][places.exists[number]]
        assert (surface.points.views[within] > 0).equal(places.exists[number])
        assert ((own - centres[number]).norm(dim=1) <= radii[number] + 0.03).all()
        torch.manual_seed(0)
        ((alone, *_),) = mapper.surface(300).closer(centres[[number]], radii[[number]], 150)
        assert len(own) == pytest.approx(len(alone.points.x_world), rel=0.15)
        assert torch.cdist(own, alone.points.x_world).amin(dim=1).max() < 0.15


def test_points_are_moved_to_where_the_keyframes_measured_the_surface(mapper, monkeypatch):
    """The walls themselves are the truth; depth is that of the nearest pixel, exact but for its 16 bits."""

    def error(within):
        monkeypatch.setattr(observation, "_MEASURED_WITHIN", within)
        mapper.version += 1
        torch.manual_seed(0)
        x = mapper.surface(1500).points.x_world.numpy()
        return np.median(np.abs(np.abs(x) - np.array([2.0, 1.5, 2.0])).min(axis=1))

    rendered = error(-1.0)
    assert error(0.01) < 0.7 * rendered


def test_crops_at_a_point_are_those_of_the_keyframes_that_see_it(box, mapper):
    surface = mapper.surface(300, CloseUps(mapper.config.close_up, mapper.store, SidesEncoder()))
    far_left = int(surface.points.x_world[:, 0].argmin())
    x = surface.points.x_world[[far_left]]
    at, crops = surface.keyframe_crops.at(x), surface.keyframe_crops
    assert at.encoded.any(dim=-1).sum() == int(surface.points.views[far_left]) > 0
    torch.testing.assert_close(at.weights.sum(dim=-1), torch.ones(at.weights.shape[:3]))
    around = crops.similarity(EMBEDS)[at.crops[at.encoded], 0]
    assert (around > 0.99).float().mean() > 0.9  # all around it lies at x < 0
    assert not crops.at(torch.full_like(x, torch.nan)).encoded.any()
    assert mapper.surface(300).keyframe_crops is None  # the field alone


def test_there_is_no_closer_look_where_no_keyframe_sees(mapper):
    ((surface, places, _),) = mapper.surface(300).closer(torch.tensor([[0.0, 0.0, 50.0]]), torch.tensor([0.3]), 100)
    assert places.sizes.tolist() == [0] and not surface.points.has_language


def test_the_surface_is_kept_until_the_map_changes(mapper):
    surface = mapper.surface(200)
    assert mapper.surface(200) is surface and len(surface.points.x_world) <= 200
    mapper.step()
    assert mapper.surface(200, max_age=1e6) is surface and mapper.surface(300, max_age=1e6) is not surface
    surface = mapper.surface(200)
    mapper.step()
    assert mapper.surface(200) is not surface


def test_similarity_is_the_cosine_of_the_decoded_embedding(mapper):
    surface, texts = mapper.surface(100), torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    scales = torch.tensor([0.2, 0.7])
    with torch.no_grad():
        decoded = [surface.features.embed(s.expand(len(surface.features))) for s in scales]
    torch.testing.assert_close(surface.similarity(scales, texts), torch.stack(decoded) @ texts.T, atol=1e-4, rtol=0)


def test_language_never_moves_density(box):
    maps = []
    for language in (0.0, 10.0):
        mapper = Mapper(box.config.override({"loss.language": language}), box.camera, 6, "cpu", seed=3)
        mapper.add_frame(box.frame(box.pose(0.0)))
        box.write_halves(mapper, EMBEDS)
        for _ in range(5):
            mapper.step()
        maps.append(mapper)
    for a, b in zip(maps[0].fields.radiance.parameters(), maps[1].fields.radiance.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    first, second = (m.fields.language.coarse.table for m in maps)
    assert not torch.allclose(first, second)


def test_without_encoded_crops_no_scale_is_supervised(box):
    mapper = Mapper(box.config, box.camera, 6, "cpu", seed=0)
    mapper.add_frame(box.frame(box.pose(0.0)))
    for _ in range(60):
        stats = mapper.step()
    assert float(stats.language) == 0.0
    points = mapper.surface(100).points
    assert (points.scale_min > points.scale_max).all()


def test_middles_of_crops_lie_on_the_wall_that_they_show(box, mapper):
    surface = mapper.surface(300, CloseUps(mapper.config.close_up, mapper.store, SidesEncoder()))
    layout, store = mapper.layout, mapper.store
    cosines = surface.keyframe_crops.similarity(EMBEDS)
    assert cosines.shape == (len(store) * layout.total, 2)
    torch.testing.assert_close(cosines, (store.embeds[: len(store)].flatten(0, 1).float() @ EMBEDS.T))
    slot, level = 3, 1
    inner = [i for i, (u, v) in enumerate(layout.centres(level).tolist()) if 5 < u < 58 and 5 < v < 42]
    crops = slot * layout.total + layout.levels[level].offset + torch.tensor(inner)
    x, scale = surface.keyframe_crops.middles(crops)
    wall = np.abs(np.abs(x.numpy()) - np.array([2.0, 1.5, 2.0])).min(axis=1)
    assert np.median(wall) < 0.01
    T = store.host_poses[slot]
    depth = (x.numpy() - T[:3, 3]) @ T[:3, 2]
    np.testing.assert_allclose(scale.numpy(), layout.levels[level].crop_px * depth / 40, rtol=1e-5)
    store.valid[slot, level] = False
    assert torch.isinf(surface.keyframe_crops.similarity(EMBEDS)[crops]).all()
    store.valid[slot, level] = True
