"""Answers on a synthetic surface whose embeddings are known: a table top with coloured discs."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.captured import CapturedCalls
from lerf_ros.geometry.neighbours import Places
from lerf_ros.mapping.keyframe_crops import CropsAt
from lerf_ros.mapping.surface import Closer, SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import QueryError, find_targets

WORDS = ("table", "mug", "book", "object", "bear", "head")


class WordEncoder:
    """Every word is its own axis of the embedding space."""

    name = "words"
    calibration = SimpleNamespace(k=10.0, canonical_phrases=("object",), found_threshold=0.6, contrast=1.0)

    def unknown_words(self, text):
        return [word for word in text.split() if word not in WORDS]

    def encode_texts(self, texts):
        return torch.stack([torch.eye(len(WORDS))[WORDS.index(text)] for text in texts])


def covariance_at(x_world):
    """(N, 3, 3) m^2, another one at every point of the table (N, 3)."""
    x_world = torch.as_tensor(x_world).float()
    return 1e-4 * torch.eye(3) + 1e-3 * x_world[:, :, None] * x_world[:, None, :]


class DiscTable:
    """A 2 m x 2 m table top with discs: (centre xy, radius, word, strength, scales at which the disc shows)."""

    keyframe_crops = None

    def __init__(self, discs, spacing=0.02):
        axis = torch.arange(-1.0, 1.0, spacing)
        xy = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        n = len(xy)
        view = torch.tensor([1.0, 0.0, -1.0]) / 2**0.5
        x_world = torch.cat([xy, torch.full((n, 1), 0.7)], 1)
        self.points = SurfacePoints(
            x_world=x_world,
            view_directions=view.expand(n, 3),
            views=torch.ones(n, dtype=torch.long),
            scale_min=torch.full((n,), 0.05),
            scale_max=torch.full((n,), 0.8),
            covariance=covariance_at(x_world),
        )
        self._discs = discs

    def similarity(self, scales, text_embeds):
        embeds = torch.zeros(len(scales), len(self.points.x_world), len(WORDS))
        embeds[..., WORDS.index("table")] = 0.3
        for centre, radius, word, strength, (low, high) in self._discs:
            inside = (self.points.x_world[:, :2] - torch.tensor(centre)).norm(dim=1) <= radius
            at_scale = ((scales >= low) & (scales <= high)).view(len(scales), -1)
            embeds[..., WORDS.index(word)] += strength * (at_scale & inside)
        return embeds @ text_embeds.T

    def closer(self, centres, radii, max_points):
        for centre, radius in zip(centres, radii, strict=True):
            closer = DiscTable(self._discs, spacing=0.005)
            near = (closer.points.x_world - centre).norm(dim=1) <= radius
            near_points = (getattr(closer.points, field.name)[near] for field in fields(SurfacePoints))
            closer.points = SurfacePoints(*near_points)
            yield Closer(closer, Places.one(int(near.sum()), near.device), CapturedCalls(near.device))


ALL = (0.0, 9.0)


def answer(discs, text, **options):
    return find_targets(DiscTable(discs), WordEncoder(), [text], QueryOptions(**options))[0]


def test_a_disc_is_found_at_its_centre_with_its_size_and_pose():
    result = answer([((0.4, -0.3), 0.1, "mug", 0.9, ALL)], "mug")
    assert result.found and len(result.targets) == 1
    target = result.targets[0]
    assert target.position == pytest.approx([0.4, -0.3, 0.7], abs=0.02)
    assert target.size == pytest.approx([0.0, 0.2, 0.2], abs=0.05)
    assert target.relevancy == pytest.approx(1 / (1 + np.exp(-9.0)), abs=0.02)
    assert target.support == pytest.approx(np.pi * 0.1**2 / 0.02**2, rel=0.3)
    # Table top: x up, z away from the viewer, who looks along +x.
    from scipy.spatial.transform import Rotation

    axes = Rotation.from_quat(target.quaternion_xyzw).as_matrix()
    assert axes[:, 0] == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)
    assert axes[:, 2] == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("closer_points", [0, 1500])
def test_the_covariance_is_that_of_the_point_at_the_position(closer_points):
    target = answer([((0.4, -0.3), 0.1, "mug", 0.9, ALL)], "mug", closer_points=closer_points).targets[0]
    assert target.covariance.shape == (3, 3) and target.covariance.dtype == np.float64
    np.testing.assert_allclose(target.covariance, covariance_at(target.position[None])[0], rtol=1e-5)


def test_two_of_a_kind_are_two_targets_best_first():
    result = answer([((0.5, 0.5), 0.1, "mug", 0.3, ALL), ((-0.5, -0.5), 0.1, "mug", 0.9, ALL)], "mug")
    assert [tuple(np.sign(target.position[:2])) for target in result.targets] == [(-1, -1), (1, 1)]
    assert result.targets[0].relevancy > result.targets[1].relevancy


def test_the_rim_of_a_target_is_not_another_target():
    result = answer([((0.0, 0.0), 0.3, "mug", 0.5, ALL), ((0.0, 0.0), 0.15, "mug", 0.4, ALL)], "mug", max_targets=9)
    assert len(result.targets) == 1


def test_max_targets_is_kept():
    discs = [((x, y), 0.08, "mug", 0.9, ALL) for x in (-0.6, 0.0, 0.6) for y in (-0.6, 0.6)]
    assert len(answer(discs, "mug", max_targets=9).targets) == 6
    assert len(answer(discs, "mug", max_targets=2).targets) == 2


def test_what_is_not_there_is_not_found_but_its_relevancy_is_told():
    result = answer([((0.4, -0.3), 0.1, "mug", 0.9, ALL)], "book")
    assert not result.found and result.targets == ()
    assert 0.0 < result.best_relevancy <= 0.5 + 1e-6


def test_the_scale_is_the_one_at_which_the_region_answers():
    small = answer([((0.0, 0.0), 0.1, "head", 0.9, (0.05, 0.12))], "head").targets[0]
    large = answer([((0.0, 0.0), 0.1, "bear", 0.9, (0.4, 0.8))], "bear").targets[0]
    assert small.scale <= 0.12 and large.scale >= 0.4


def test_a_single_stray_point_is_not_a_target():
    assert not answer([((0.0, 0.0), 0.001, "mug", 0.9, ALL)], "mug").found


def test_stray_points_beside_a_disc_do_not_hide_it():
    table = DiscTable([((0.4, -0.3), 0.1, "mug", 0.9, ALL)])
    n = len(table.points.x_world)
    lonely = torch.tensor([[0.4, -0.3, 0.76], [0.45, -0.3, 0.76]])  # too far from everything to have enough neighbours
    p = table.points
    table.points = SurfacePoints(
        x_world=torch.cat([p.x_world, lonely]),
        **{
            name: torch.cat([getattr(p, name), getattr(p, name)[:2]])
            for name in ("view_directions", "views", "scale_min", "scale_max", "covariance")
        },
    )
    neighbourhood = Neighbourhood(table.points.x_world, radius=0.065)
    assert neighbourhood.counts[n:].max() < 16
    found = find_targets(table, WordEncoder(), ["mug"])[0].targets
    assert len(found) == 1 and found[0].position == pytest.approx([0.4, -0.3, 0.7], abs=0.02)


def test_unknown_words_are_named_and_the_other_texts_are_answered():
    table = DiscTable([((0.4, -0.3), 0.1, "mug", 0.9, ALL)])
    unknown, known = find_targets(table, WordEncoder(), ["zeppelin", "mug"])
    assert unknown.unknown_words == ("zeppelin",) and not unknown.found
    assert known.found


def test_a_surface_without_any_encoded_crop_has_no_answer_yet():
    table = DiscTable([((0.4, -0.3), 0.1, "mug", 0.9, ALL)])
    table.points.scale_min.fill_(1.0)
    table.points.scale_max.fill_(0.0)
    assert not find_targets(table, WordEncoder(), ["mug"])[0].found


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("  ", {}, "empty"),
        ("mug", {"max_targets": 0}, "max_targets"),
        ("mug", {"min_relevancy": 1.5}, "min_relevancy"),
        ("mug", {"canonical_phrases": ("qwertz",)}, "qwertz"),
    ],
)
def test_bad_questions_are_refused_with_the_reason(text, options, reason):
    with pytest.raises(QueryError, match=reason):
        answer([], text, **options)


def test_a_closer_look_finds_what_is_smaller_than_the_spacing_of_the_map():
    discs = [((0.21, 0.1), 0.06, "bear", 0.9, ALL), ((0.253, 0.087), 0.018, "head", 0.6, ALL)]
    coarse = DiscTable(discs, spacing=0.04)
    errors = []
    for points in (0, 1500):
        options = QueryOptions(min_relevancy=0.0, min_support=1, closer_points=points)
        target = find_targets(coarse, WordEncoder(), ["head"], options)[0].targets[0]
        errors.append(np.linalg.norm(target.position - [0.253, 0.087, 0.7]))
    assert errors[1] < 0.008 < errors[0]


def test_a_closer_look_at_nothing_keeps_what_the_map_shows():
    class Blind(DiscTable):
        def closer(self, centres, radii, max_points):
            return iter(())

    blind, seen = (
        find_targets(table([((0.4, -0.3), 0.1, "mug", 0.9, ALL)]), WordEncoder(), ["mug"])[0].targets[0]
        for table in (Blind, DiscTable)
    )
    assert blind.position == pytest.approx(seen.position, abs=0.02)


def test_a_question_that_most_of_the_map_answers_ends():
    """What lies below the map's median belongs to no maximum, however many targets are wanted."""
    result = answer([((0.0, 0.0), 0.9, "mug", 1.0, ALL)], "mug", max_targets=3, min_relevancy=0.0)
    assert len(result.targets) >= 1 and np.linalg.norm(result.targets[0].position[:2]) < 0.9


def test_without_contrast_places_are_ranked_by_similarity_alone():
    """The disc on the left is the likelier mug, the one on the right stands out more against "object"."""
    discs = [((-0.5, 0.0), 0.1, "mug", 0.9, ALL), ((-0.5, 0.0), 0.1, "object", 0.5, ALL)]
    discs += [((0.5, 0.0), 0.1, "mug", 0.7, ALL)]
    for contrast, x, relevancy in ((1.0, 0.5, 7.0), (0.0, -0.5, 4.0)):
        encoder = WordEncoder()
        encoder.calibration = SimpleNamespace(**{**vars(WordEncoder.calibration), "contrast": contrast})
        target = find_targets(DiscTable(discs), encoder, ["mug"], QueryOptions(max_targets=1))[0].targets[0]
        assert target.position[0] == pytest.approx(x, abs=0.02)
        assert target.relevancy == pytest.approx(1 / (1 + np.exp(-relevancy)), abs=0.02)


def test_the_position_lies_on_a_ring_not_in_its_middle():
    ring = [((0.1 * np.cos(a), 0.1 * np.sin(a)), 0.03, "mug", 0.9, ALL) for a in np.arange(0, 2 * np.pi, 0.2)]
    position = answer(ring, "mug").targets[0].position
    assert 0.06 < np.linalg.norm(position[:2]) < 0.14


def test_maxima_within_one_crop_are_one_target():
    """Two slats of one chair, and another chair: the crops at which they answer are 0.4 m wide."""
    scales = (0.35, 0.45)
    discs = [((x, 0.0), 0.04, "mug", 0.9, scales) for x in (-0.5, -0.34, 0.5)]
    targets = answer(discs, "mug").targets
    assert sorted(round(float(target.position[0]), 1) for target in targets) in ([-0.5, 0.5], [-0.3, 0.5])
    near = [((x, 0.0), 0.04, "mug", 0.9, (0.05, 0.12)) for x in (-0.5, -0.34, 0.5)]
    assert len(answer(near, "mug").targets) == 3


class DoubtfulCrops:
    """Each place is seen once, in a crop that fits any text no better than "object"."""

    def at(self, x_world):
        crops = torch.zeros(1, len(x_world), 1, 4, dtype=torch.int64)
        return CropsAt(crops, torch.full(crops.shape, 0.25), torch.isfinite(x_world).all(dim=1)[None, :, None])

    def similarity(self, text_embeds):
        return torch.zeros(1, len(text_embeds))

    def middles(self, crops):
        return torch.full((len(crops), 3), torch.nan), torch.ones(len(crops))


def test_the_vote_of_the_views_is_a_third_of_the_relevancy():
    class Doubted(DiscTable):
        keyframe_crops = DoubtfulCrops()

    discs = [((0.4, -0.3), 0.1, "mug", 0.9, ALL)]
    sure, doubted = (find_targets(table(discs), WordEncoder(), ["mug"])[0] for table in (DiscTable, Doubted))
    assert doubted.best_relevancy == pytest.approx(0.5 * sure.best_relevancy + 0.5 * 0.5, abs=1e-3)
