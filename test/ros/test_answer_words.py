"""What a response says in words, for maps of every age. Needs no ROS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lerf_ros.mapping.surface import MapState
from lerf_ros.query.targets import Answer, Target
from lerf_ros.ros.answer_words import YOUNG_MAP, answer_message, young_map, young_map_notes

OLD = MapState(steps=900, keyframes=31, points=5000, language_points=4900, depth_uncertainty=0.017)
FOGGY = replace(OLD, steps=63, depth_uncertainty=0.687)
EMPTY = replace(FOGGY, points=0, language_points=0)
UNENCODED = replace(OLD, language_points=0)
HALF_ENCODED = replace(OLD, language_points=1500)
TARGET = Target(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]), np.ones(3), 0.9, 0.2, 10, np.eye(3))
FOUND, NOT_FOUND, NO_REGION = Answer("mug", (TARGET,), 0.9), Answer("mug", (), 0.31), Answer("mug", (), 0.0)
GEOMETRY = (
    "the map is young: after 63 training steps on 31 keyframes its geometry is still uncertain "
    "(median depth uncertainty 69%); keep mapping (parameter training.enabled) and ask again"
)


@pytest.mark.parametrize(
    ("answer", "state", "success", "message"),
    [
        (FOUND, None, True, "1 found, best relevancy 0.90"),
        (FOUND, OLD, True, "1 found, best relevancy 0.90"),
        (FOUND, FOGGY, True, f"1 found, best relevancy 0.90; {GEOMETRY}"),
        (NOT_FOUND, OLD, True, "not found: the best region has relevancy 0.31"),
        (NOT_FOUND, FOGGY, True, f"not found so far: the best region has relevancy 0.31; {GEOMETRY}"),
        (NO_REGION, OLD, True, "not found: no region of the map stands out"),
        (
            NO_REGION,
            EMPTY,
            False,
            f"cannot be answered yet: no ray of the keyframes has a surface that is certain enough; {GEOMETRY}",
        ),
        (
            NO_REGION,
            UNENCODED,
            False,
            "cannot be answered yet: no image crop of the surface is encoded; the map is young: after 900 training "
            "steps on 31 keyframes 100% of its surface has no encoded image crop yet; keep mapping (parameter "
            "training.enabled) and ask again",
        ),
        (
            NO_REGION,
            FOGGY,
            False,
            f"cannot be answered yet: too few surface points are certain enough; {GEOMETRY}",
        ),
    ],
)
def test_the_words_of_every_case(answer, state, success, message):
    assert answer_message(replace(answer, map_state=state)) == (success, message)


def test_a_map_is_young_until_most_of_its_surface_is_known():
    assert young_map(OLD) == "" and young_map(None) == ""
    assert young_map(replace(OLD, depth_uncertainty=0.11)) and not young_map(replace(OLD, depth_uncertainty=0.09))
    assert "70% of its surface has no encoded image crop" in young_map(HALF_ENCODED)
    both = young_map(replace(HALF_ENCODED, depth_uncertainty=0.5, steps=1, keyframes=1))
    assert "after 1 training step on 1 keyframe its geometry" in both and " and 70% of its surface" in both
    assert young_map(replace(OLD, depth_uncertainty=float("nan")))


def test_unknown_words_come_before_the_age_of_the_map():
    success, message = answer_message(Answer("a zorble", (), 0.0, ("zorble",), EMPTY))
    assert not success and "'zorble'" in message and YOUNG_MAP not in message


def test_notes_about_a_young_map_are_told_once():
    messages = [answer_message(replace(FOUND, map_state=state))[1] for state in (FOGGY, OLD, FOGGY)]
    assert young_map_notes(messages) == [GEOMETRY]
