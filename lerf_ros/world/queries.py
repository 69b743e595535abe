"""Questions about a room with their right answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from lerf_ros.world.kinds.catalogue import OBJECTS, lookalikes
from lerf_ros.world.language import colour_names, names, part_names, with_article
from lerf_ros.world.truth import TruthObject, TruthQuery

ABSENT = 12  # questions of each of the two absent categories among all questions of a room
TABLES, SEATS = frozenset({"table", "round table", "desk"}), frozenset({"chair", "sofa", "armchair"})
ONLY_OF = {"tabletop": TABLES, "surface": TABLES, "backrest": SEATS}  # a drum has a top, but no tabletop
NEAR_COLOURS = (frozenset({"grey", "metal"}), frozenset({"brown", "wooden"}))  # a person might say either

Things = dict[int, TruthObject]


def every(things: Things, askable: Collection[int], parts: Mapping[tuple[int, str], str], rng) -> list[TruthQuery]:
    """All questions of a room, every text once.

    Args:
        askable: instance ids of what is seen well.
        parts: (instance id, name of the part) -> category, "part" or "small_part".
        rng: draws names, colours' names and phrases.
    """
    queries = [_ask_thing(things[i], things, askable, rng) for i in askable]
    queries += _instances(things, askable, rng)
    queries += [_ask_part(things[i], part, category, things, rng) for (i, part), category in parts.items()]
    queries += absent(things, ABSENT, rng) + _absent_colours(things, askable, ABSENT, rng)
    return list({query.text: query for query in reversed(queries)}.values())[::-1]


def present(things: Things, askable: list[int], n: int, rng: np.random.Generator) -> list[TruthQuery]:
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


def absent(things: Things, n: int, rng: np.random.Generator) -> list[TruthQuery]:
    """n questions for kinds of which neither one nor a look-alike is in the room."""
    present_kinds = {t.kind for t in things.values()}
    missing = [kind for kind in OBJECTS if not lookalikes(kind) & present_kinds]
    queries = []
    for kind in rng.permutation(missing)[:n]:
        name, colour = str(rng.choice(names(kind))), str(rng.choice(OBJECTS[kind].colours))
        said = _phrase(f"{colour} {name}" if rng.random() < 0.7 else name, rng)
        queries.append(TruthQuery(said, category="absent"))
    return queries


def _absent_colours(things: Things, askable: Collection[int], n: int, rng: np.random.Generator) -> list[TruthQuery]:
    """Up to n questions for objects that are there, in a colour that neither they nor a look-alike has."""
    queries = []
    for kind in rng.permutation(sorted({things[i].kind for i in askable} & set(OBJECTS)))[:n]:
        taken = {t.colour for t in things.values() if t.kind in lookalikes(kind)}
        taken = taken.union(*(near for near in NEAR_COLOURS if near & taken))
        if free := [colour for colour in OBJECTS[kind].colours if colour not in taken]:
            said = f"{rng.choice(colour_names(str(rng.choice(free))))} {rng.choice(names(kind))}"
            rivals = tuple(t.instance_id for t in things.values() if t.kind in lookalikes(kind))
            queries.append(TruthQuery(_phrase(said, rng), category="absent_colour", rivals=rivals))
    return queries


def _ask(thing: TruthObject, things: Things, rng: np.random.Generator) -> TruthQuery:
    similar = [t for t in things.values() if t.kind in lookalikes(thing.kind)]
    name = str(rng.choice(names(thing.kind)))
    with_colour = len(similar) > 1 or rng.random() < 0.7
    named = [t for t in similar if t.kind == thing.kind and (not with_colour or t.colour == thing.colour)]
    said = f"{rng.choice(colour_names(thing.colour))} {name}" if with_colour else name
    rivals = tuple(t.instance_id for t in similar if t not in named)
    return TruthQuery(
        _phrase(said, rng), tuple(t.instance_id for t in named), tuple(t.box for t in named), rivals=rivals
    )


def _ask_thing(thing: TruthObject, things: Things, askable: Collection[int], rng) -> TruthQuery:
    """One thing; an "attribute" question where something that it might be taken for is seen in another colour."""
    query = _ask(thing, things, rng)
    rivals = tuple(i for i in query.rivals if i in askable)
    category = "attribute" if rivals else "object"
    return TruthQuery(query.text, query.instance_ids, query.boxes, category, rivals=rivals)


def _instances(things: Things, askable: Collection[int], rng: np.random.Generator) -> list[TruthQuery]:
    """A kind without its colour, where several of it are seen: all of them are wanted."""
    queries = []
    for kind in sorted({things[i].kind for i in askable}):
        named = [things[i] for i in askable if things[i].kind == kind]
        if len(named) > 1:
            rivals = tuple(i for i in askable if things[i].kind in lookalikes(kind) - {kind})
            ids, boxes = tuple(t.instance_id for t in named), tuple(t.box for t in named)
            said = _phrase(str(rng.choice(names(kind))), rng)
            queries.append(TruthQuery(said, ids, boxes, "instances", rivals=rivals))
    return queries


def _ask_part(thing: TruthObject, part: str, category: str, things: Things, rng: np.random.Generator) -> TruthQuery:
    """ "bear nose" or "the nose of a bear", with the bear's colour where another one might be meant."""
    similar = [t for t in things.values() if t.kind in lookalikes(thing.kind)]
    whole = str(rng.choice(names(thing.kind)))
    if len(similar) > 1:
        whole = f"{rng.choice(colour_names(thing.colour))} {whole}"
    said = str(rng.choice([name for name in part_names(part) if thing.kind in ONLY_OF.get(name, {thing.kind})]))
    text = f"{whole} {said}" if rng.random() < 0.5 else f"the {said} of {with_article(whole)}"
    rivals = tuple(t.instance_id for t in similar if t is not thing and part in t.parts)
    return TruthQuery(text, (thing.instance_id,), (thing.parts[part],), category, part, rivals)


def _phrase(said: str, rng: np.random.Generator) -> str:
    return [said, with_article(said), f"the {said}"][int(rng.integers(3))]
