"""Which views suit a view: overlap, and the angle between rays."""

import numpy as np
import pytest
from scipy.stats import lognorm as lognormal

from lerf_ros.geometry.camera import Camera
from lerf_ros.keyframes.view_selection import BEST_ANGLE, source_scores
from test.keyframes.analytic import CAMERA, pose


def score(T_source, depth=2.0, camera=CAMERA):
    return source_scores(camera, pose()[None], np.array([depth]), T_source[None])[0, 0]


def beside(angle_deg, depth=2.0):
    """A view beside the reference: rays meet at about that angle in the middle of the image."""
    return pose((depth * np.tan(np.radians(angle_deg)), 0.0, 0.0), (0.0, -np.radians(angle_deg), 0.0))


def test_without_a_baseline_there_is_no_use():
    assert score(pose()) < 1e-5
    assert score(pose((0.0, 0.0, 0.0), (0.0, 0.1, 0.0))) < 1e-5  # it only turned
    assert score(pose((0.002, 0.0, 0.0))) < 1e-4


def test_five_degrees_are_best():
    scores = np.array([score(beside(angle)) for angle in (1, 2, 3, 4, 5, 7, 10, 20, 30)])
    assert np.degrees(BEST_ANGLE) == pytest.approx(5.0) and 4 <= scores.argmax() <= 5 and scores.max() > 0.85
    assert (np.diff(scores[: scores.argmax() + 1]) > 0).all() and (np.diff(scores[scores.argmax() :]) < 0).all()


def test_angles_are_weighed_by_their_logarithm():
    narrow = Camera(fx=8000.0, fy=8000.0, cx=47.5, cy=35.5, width=96, height=72)  # all rays are alike
    for angle in (1.0, 3.0, 8.0, 20.0):
        T = pose(
            (2 * np.sin(np.radians(angle)), 0.0, 2 - 2 * np.cos(np.radians(angle))), (0.0, -np.radians(angle), 0.0)
        )
        assert score(T, camera=narrow) == pytest.approx(
            lognormal.pdf(angle / 5, 0.7) / lognormal.pdf(1, 0.7) * angle / 5, abs=0.02
        )


def test_a_view_from_much_farther_away_is_worse():
    """At the same angle, and with all of the image in common."""
    narrow = Camera(fx=8000.0, fy=8000.0, cx=47.5, cy=35.5, width=96, height=72)
    angle = np.radians(5.0)

    def at(distance):
        position = (distance * np.sin(angle), 0.0, 2 - distance * np.cos(angle))
        return score(pose(position, (0.0, -angle, 0.0)), camera=narrow)

    assert at(2.0) == pytest.approx(1.0, abs=0.01)
    for ratio in (1.5, 3.0):
        assert at(2.0 * ratio) == pytest.approx(np.exp(-((np.log(ratio) / 0.7) ** 2) / 2), abs=0.02)


def test_the_depth_decides_which_baseline_is_best():
    baselines = np.linspace(0.05, 0.8, 60)
    best = [baselines[np.argmax([score(pose((b, 0.0, 0.0)), depth) for b in baselines])] for depth in (1.0, 2.0, 4.0)]
    assert 1.7 < best[1] / best[0] < 2.3 and 1.7 < best[2] / best[1] < 2.3


def test_without_overlap_the_score_is_zero():
    assert score(pose((0.2, 0.0, 0.0), (0.0, np.pi, 0.0))) == 0.0  # it looks the other way
    assert score(pose((0.2, 0.0, 0.0), (0.0, np.pi / 2, 0.0))) == 0.0
    assert score(pose((6.0, 0.0, 0.0))) == 0.0
    assert score(pose((0.2, 0.0, 3.0))) == 0.0  # it is behind what the reference shows


def test_a_half_of_the_image_in_common_counts_half():
    half_turn = np.arctan(CAMERA.width / 2 / CAMERA.fx)
    whole, half = score(beside(5)), score(beside(5) @ pose((0.0, 0.0, 0.0), (0.0, half_turn, 0.0)))
    assert 0.4 < half / whole < 0.6


def test_each_view_is_scored_with_each_source():
    rng = np.random.default_rng(0)
    views = np.stack([pose(rng.normal(0, 0.3, 3), rng.normal(0, 0.2, 3)) for _ in range(3)])
    sources = np.stack([pose(rng.normal(0, 0.3, 3), rng.normal(0, 0.2, 3)) for _ in range(5)])
    depths = np.array([1.0, 2.0, 4.0])
    scores = source_scores(CAMERA, views, depths, sources)
    assert scores.shape == (3, 5) and (scores >= 0).all() and (scores <= 1).all() and (scores > 0.05).sum() > 5
    for r in range(3):
        for v in range(5):
            alone = score(np.linalg.inv(views[r]) @ sources[v], depths[r])
            assert scores[r, v] == pytest.approx(alone, abs=1e-9)
    assert source_scores(CAMERA, views, depths, sources[:0]).shape == (3, 0)
