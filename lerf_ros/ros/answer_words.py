"""What the message of a query's response says, and whether the query could be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command-line client needs neither, and starts fast without torch
    from lerf_ros.mapping.surface import MapState
    from lerf_ros.query.targets import Answer
    from lerf_ros.srv import Query

YOUNG_MAP = "the map is young"
_ADVICE = "keep mapping (parameter training.enabled) and ask again"
_SEPARATOR = "; "


def answer_message(answer: Answer) -> tuple[bool, str]:
    """Whether the map could answer a query, and the words for it.

    "Not found" is an answer only where surface points were scored against the text. A map that has none yet cannot
    answer. A map with uncertain geometry answers, and the words say how far it has come.
    """
    if answer.unknown_words:
        words = ", ".join(f"'{word}'" for word in answer.unknown_words)
        return False, (
            f"the encoder does not know {words}: use other words (model card of the mini CLIP), or an open vocabulary "
            "(parameter encoder.model, e.g. ViT-B-16)"
        )
    young = young_map(answer.map_state)
    if answer.found:
        return True, _joined(f"{len(answer.targets)} found, best relevancy {answer.best_relevancy:.2f}", young)
    if answer.best_relevancy > 0:
        so_far = " so far" if young else ""
        return True, _joined(f"not found{so_far}: the best region has relevancy {answer.best_relevancy:.2f}", young)
    if young:
        return False, _joined(f"cannot be answered yet: {_missing(answer.map_state)}", young)
    return True, "not found: no region of the map stands out"


def is_answer(response: Query.Response) -> bool:
    """Whether a response says what the map knows, if only that it is too young or that a word is unknown: anything else
    is a failure of the node."""
    return bool(response.success or response.unknown_words or YOUNG_MAP in response.message)


def young_map(state: MapState | None) -> str:
    """One sentence about a map whose geometry or language is still too uncertain for most of its surface: how far it
    has come and what to do; empty for any other map."""
    if state is None:
        return ""
    reasons = []
    if state.geometry_is_young:
        reasons.append(f"its geometry is still uncertain (median depth uncertainty {state.depth_uncertainty:.0%})")
    if state.language_is_young:
        without = 1 - state.language_points / state.points
        reasons.append(f"{without:.0%} of its surface has no encoded image crop yet")
    if not reasons:
        return ""
    progress = f"{_count(state.steps, 'training step')} on {_count(state.keyframes, 'keyframe')}"
    return f"{YOUNG_MAP}: after {progress} {' and '.join(reasons)}; {_ADVICE}"


def young_map_notes(messages: list[str]) -> list[str]:
    """The different sentences of `young_map` in messages of responses, in the order of these."""
    return list(dict.fromkeys(message[message.index(YOUNG_MAP) :] for message in messages if YOUNG_MAP in message))


def _missing(state: MapState | None) -> str:
    if state is None or state.points == 0:
        return "no ray of the keyframes has a surface that is certain enough"
    if state.language_points == 0:
        return "no image crop of the surface is encoded"
    return "too few surface points are certain enough"


def _joined(*parts: str) -> str:
    return _SEPARATOR.join(part for part in parts if part)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
