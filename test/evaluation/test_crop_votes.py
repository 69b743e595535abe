"""Votes of image crops in the inside of a 4 x 3 x 4 m box, whose walls look like one of two embeddings."""

import numpy as np
import pytest
import torch

from lerf_ros.evaluation.crop_votes import CropVotes, _at_pixels
from lerf_ros.features.encoder import RelevancyCalibration
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import find_targets

HALF = np.array([2.0, 1.5, 2.0])
CAMERA = Camera(fx=40.0, fy=40.0, cx=31.5, cy=23.5, width=64, height=48)
CONFIG = MapperConfig().override(
    {
        "keyframe.capacity": 4,
        "pyramid.fractions": [0.25, 0.5],
        "voxel.size": 0.2,
        "voxel.pixel_stride": 2,
    }
)
EMBEDS = torch.eye(4)  # "left", "right", something else, the canonical phrase
K = 10.0
HIGH, LOW, NONE = (1 / (1 + np.exp(-K * logit)) for logit in (1.0, 0.0, -1.0))


class NamedDirections:
    """An encoder of four words, each a unit vector."""

    calibration = RelevancyCalibration(K, ("thing",), 0.8)

    def encode_texts(self, texts):
        return EMBEDS[[("left", "right", "other", "thing").index(text) for text in texts]]

    def unknown_words(self, text):
        return []


def frame(yaw, depth=True):
    T = np.eye(4)
    c, s = np.cos(yaw), np.sin(yaw)
    T[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    v, u = np.mgrid[:48, :64]
    directions = np.stack([(u - 31.5) / 40, (v - 23.5) / 40, np.ones(u.shape)], axis=-1) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        depth_z = (HALF / np.abs(directions)).min(axis=-1)
    return Frame(0, np.zeros((48, 64, 3), np.uint8), depth_z if depth else None, CAMERA, T), depth_z[
        ..., None
    ] * directions


def store_of(looks, yaws, depth=True, levels=(0, 1)):
    """A store whose crops look as `looks` says of the x coordinate at their centres: index of an embedding."""
    store = KeyframeStore(CONFIG, CAMERA, 4, "cpu")
    for number, yaw in enumerate(yaws):
        one, x_world = frame(yaw, depth)
        slot, generation = store.insert(one)
        for index in levels:
            level = store.layout.levels[index]
            uv = store.layout.centres(index).round().long()
            x = x_world[uv[:, 1].clamp(0, 47), uv[:, 0].clamp(0, 63), 0]
            store.write_embeds(slot, generation, level.offset, EMBEDS[torch.as_tensor(looks(x, number, index))])
            store.finish_level(slot, generation, index)
    return store


def halves(x, number, level):
    return np.where(x > 0, 1, 0)


@pytest.fixture
def votes():
    return CropVotes(CONFIG.voxel, store_of(halves, (0.0, 0.3)), NamedDirections())


def test_voxels_lie_on_the_walls_and_face_inwards(votes):
    x = votes.points.x_world.numpy()
    distance = np.abs(np.abs(x) - HALF)
    assert len(x) > 100 and np.median(distance.min(axis=1)) < 0.01
    assert len(np.unique(np.floor(x / 0.2), axis=0)) >= 0.95 * len(x)
    assert set(votes.points.views.tolist()) == {1, 2}
    covariance = (0.2**2 / 12 * torch.eye(3)).expand(len(x), 3, 3)  # uniform over the voxel
    torch.testing.assert_close(votes.points.covariance, covariance)


def test_a_uniform_half_has_the_relevancy_of_its_crops(votes):
    values = votes.votes(EMBEDS[:2], EMBEDS[3:]).numpy()
    x = votes.points.x_world[:, 0].numpy()
    np.testing.assert_allclose(values[x < -1.3], [[HIGH, LOW]] * (x < -1.3).sum(), atol=1e-5)
    np.testing.assert_allclose(values[x > 1.3], [[LOW, HIGH]] * (x > 1.3).sum(), atol=1e-5)
    between = values[np.abs(x) < 0.1]
    assert ((between > LOW) & (between < HIGH)).all()


def test_views_that_disagree_share_the_vote():
    """Two views of the same place: one sees only "left", the other only the canonical phrase."""
    votes = CropVotes(
        CONFIG.voxel, store_of(lambda x, number, level: np.full(x.shape, 3 * number), (0.0, 0.0)), NamedDirections()
    )
    values = votes.votes(EMBEDS[:1], EMBEDS[3:])
    torch.testing.assert_close(values, torch.full_like(values, (HIGH + NONE) / 2))
    assert (votes.points.views == 2).all()


def test_a_pixel_takes_its_best_level_of_those_that_are_encoded():
    def looks(x, number, level):
        return np.full(x.shape, 0 if level == 0 else 2)

    for levels, left, other in (((0, 1), HIGH, HIGH), ((1,), LOW, HIGH)):
        votes = CropVotes(CONFIG.voxel, store_of(looks, (0.0,), levels=levels), NamedDirections())
        values = votes.votes(EMBEDS[[0, 2]], EMBEDS[3:])
        torch.testing.assert_close(values, torch.tensor([[left, other]]).float().expand_as(values))


def test_between_crop_centres_relevancy_is_interpolated_as_embeddings_are():
    """On the line between two centres of one level, at a share of the way."""
    store = store_of(halves, (0.0,), levels=(0,))
    level = store.layout.levels[0]
    crops = torch.rand(store.layout.total, 3)
    for row, column, share in ((1, 2, 0.0), (2, 3, 0.25), (0, 1, 0.8)):
        uv = torch.tensor(
            [[level.first_centre + level.stride * (column + share), level.first_centre + level.stride * row]]
        )
        first = level.offset + row * level.columns + column
        expected = (1 - share) * crops[first] + share * crops[first + 1]
        torch.testing.assert_close(_at_pixels(store.layout, 0, crops, uv)[0], expected, atol=1e-5, rtol=0)
    far = torch.tensor([[-500.0, -500.0]])
    torch.testing.assert_close(_at_pixels(store.layout, 0, crops, far)[0], crops[level.offset])


def test_questions_are_answered_where_the_votes_are(votes):
    options = QueryOptions(max_targets=1, scale_steps=1)
    left, right, other = find_targets(votes, NamedDirections(), ["left", "right", "other"], options)
    assert left.targets[0].position[0] < -0.3 and right.targets[0].position[0] > 0.3
    assert left.best_relevancy == pytest.approx(HIGH, abs=1e-4)
    assert not other.found


@pytest.mark.parametrize("store", [{"yaws": ()}, {"yaws": (0.0,), "depth": False}], ids=["no keyframe", "no depth"])
def test_without_depth_nobody_votes(store):
    votes = CropVotes(CONFIG.voxel, store_of(halves, **store), NamedDirections())
    assert not find_targets(votes, NamedDirections(), ["left"], QueryOptions(scale_steps=1))[0].found
    assert len(votes.points.views) == 0
