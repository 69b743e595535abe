"""Questions about a room with their right answers."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds.catalogue import OBJECTS, lookalikes
from lerf_ros.world.language import colour_names, names, with_article
from lerf_ros.world.truth import TruthObject, TruthQuery


def present(things: dict[int, TruthObject], askable: list[int], n: int, rng: np.random.Generator) -> list[TruthQuery]:
    """Up to n questions for things among `askable` (instance ids): all of different kinds, a fifth of them furniture.

    A kind is asked for without colour only where it is unmistakable; the boxes are those of *all* that the text names.
    """
    order = [things[i] for i in rng.permutation(askable)]
    furniture = [t for t in order if t.role == "furniture"]
    chosen: list[TruthObject] = []
    kinds: set[str] = set()
    for thing in furniture[: n // 5] + [t for t in order if t.role == "object"] + furniture[n // 5 :]:
        if not kinds & lookalikes(thing.kind) and len(chosen) < n:
            kinds.add(thing.kind)
            chosen.append(thing)
    return [_ask(thing, things, rng) for thing in chosen]


def _ask(thing: TruthObject, things: dict[int, TruthObject], rng: np.random.Generator) -> TruthQuery:
    similar = [t for t in things.values() if t.kind in lookalikes(thing.kind)]
    name = str(rng.choice(names(thing.kind)))
    with_colour = len(similar) > 1 or rng.random() < 0.7
    named = [t for t in similar if t.kind == thing.kind and (not with_colour or t.colour == thing.colour)]
    said = f"{rng.choice(colour_names(thing.colour))} {name}" if with_colour else name
    return TruthQuery(_phrase(said, rng), tuple(t.instance_id for t in named), tuple(t.box for t in named))


def absent(things: dict[int, TruthObject], n: int, rng: np.random.Generator) -> list[TruthQuery]:
    """n questions for kinds of which neither one nor a look-alike is in the room."""
    present_kinds = {t.kind for t in things.values()}
    missing = [kind for kind in OBJECTS if not lookalikes(kind) & present_kinds]
    queries = []
    for kind in rng.permutation(missing)[:n]:
        name, colour = str(rng.choice(names(kind))), str(rng.choice(OBJECTS[kind].colours))
        queries.append(TruthQuery(_phrase(f"{colour} {name}" if rng.random() < 0.7 else name, rng)))
    return queries


def _phrase(said: str, rng: np.random.Generator) -> str:
    return [said, with_article(said), f"the {said}"][int(rng.integers(3))]
