"""Says what a crop of a view shows, from the masks: labels for training, and texts that mean them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lerf_ros.world.language import (
    CANONICAL_PHRASES,
    Meaning,
    colour_names,
    names,
    noun_phrase,
    part_names,
    with_article,
)
from lerf_ros.world.parts import PARTS
from lerf_ros.world.render import NOTHING, View
from lerf_ros.world.room import Room
from lerf_ros.world.truth import TruthObject

SAMPLES = 48  # mask samples per side of a crop
SHOWN = 0.06  # a thing that covers less of a crop is not shown by it
OBJECT_SHARE, FURNITURE_SHARE = 0.12, 0.30  # centre-weighted cover from which a thing is what a crop is about


@dataclass(frozen=True)
class Seen:
    """A thing in a crop.

    `coverage` is its share of the crop, `share` the same weighted towards the crop's centre, `inside` how much of what
    the whole view shows of it lies in the crop; `parts` maps names of parts to their centre-weighted shares.
    """

    thing: TruthObject
    coverage: float
    share: float
    inside: float
    parts: dict[str, float]


@dataclass(frozen=True)
class CropContent:
    """What a crop shows.

    `subject` is what it is about; `seen` everything in it, largest centre-weighted share first; `shown` the meanings of
    all that a right text may mention; `several`: more than one object shares the crop evenly.
    """

    subject: Meaning
    seen: tuple[Seen, ...]
    shown: tuple[Meaning, ...]
    several: bool

    def shows(self, meaning: Meaning) -> bool:
        """Whether a text of this meaning is right about the crop: it is a negative example only if not."""
        return any(meaning.agrees(shown) for shown in self.shown)


class Phrase(NamedTuple):
    """A text and what it mentions; `canonical` ones ("object", "stuff", ...) mention nothing in particular."""

    text: str
    meanings: tuple[Meaning, ...]
    canonical: bool = False


def describe(room: Room, view: View, uv_box: tuple[float, float, float, float]) -> CropContent:
    """The content of the crop (u0, v0, u1, v1), pixels, of a truth view.

    Raises:
        ValueError: the crop has no pixel in the view.
    """
    u0, v0, u1, v1 = uv_box
    height, width = view.instance.shape
    columns = np.unique(np.clip(np.linspace(u0 + 0.5, u1 - 0.5, SAMPLES).round().astype(int), 0, width - 1))
    rows = np.unique(np.clip(np.linspace(v0 + 0.5, v1 - 0.5, SAMPLES).round().astype(int), 0, height - 1))
    if u1 <= u0 or v1 <= v0 or u1 <= 0 or v1 <= 0 or u0 >= width or v0 >= height:
        raise ValueError(f"the crop {uv_box} has no pixel in a {width}x{height} view")
    instance, part = (mask[np.ix_(rows, columns)].ravel() for mask in (view.instance, view.part))
    weight = np.outer(_window(len(rows)), _window(len(columns))).ravel()
    per_sample = (u1 - u0) * (v1 - v0) / len(instance)  # pixels that a sample stands for
    totals = dict(zip(*np.unique(view.instance, return_counts=True), strict=True)) if per_sample else {}
    seen = []
    for number in np.unique(instance[instance != NOTHING]):
        here = instance == number
        parts = {PARTS[p - 1]: float(weight[here & (part == p)].sum()) for p in np.unique(part[here]) if p != 0}
        coverage = float(here.mean())
        inside = min(1.0, coverage * len(instance) * per_sample / totals[number])
        seen.append(Seen(room.things[int(number)], coverage, float(weight[here].sum()), inside, parts))
    seen.sort(key=lambda s: -s.share)
    return _interpret(tuple(seen))


def _window(n: int) -> np.ndarray:
    """Weights of n samples: the middle of a crop counts about four times its rim; they sum to 1."""
    x = (np.arange(n) + 0.5) / n * 2 - 1
    window = 0.25 + 0.75 * np.cos(np.pi / 2 * x) ** 2
    return window / window.sum()


def _interpret(seen: tuple[Seen, ...]) -> CropContent:
    objects = [s for s in seen if s.thing.role == "object" and s.share >= OBJECT_SHARE]
    furniture = [s for s in seen if s.thing.role == "furniture" and s.share >= FURNITURE_SHARE]
    several = len(objects) > 1 and objects[1].share > 0.5 * objects[0].share
    subject_seen = objects[0] if objects else furniture[0] if furniture else seen[0] if seen else None
    if subject_seen is None:
        return CropContent(Meaning(), (), (), False)
    subject = Meaning(
        subject_seen.thing.kind, subject_seen.thing.colour, None if several else _part_in_focus(subject_seen)
    )
    shown = []
    for s in seen:
        if s.coverage >= SHOWN or s is subject_seen:
            shown.append(Meaning(s.thing.kind, s.thing.colour))
            shown += [Meaning(s.thing.kind, s.thing.colour, part) for part, share in s.parts.items() if share >= SHOWN]
    if subject.part is not None:
        shown.append(subject)
    return CropContent(subject, seen, tuple(dict.fromkeys(shown)), several)


def _part_in_focus(seen: Seen) -> str | None:
    """The part that a crop is zoomed in on: most of what is seen of the thing, while much of the thing lies outside."""
    if not seen.parts or seen.inside > 0.7:
        return None
    part, share = max(seen.parts.items(), key=lambda item: item[1])
    return part if share > 0.55 * seen.share and share > 0.3 else None


def phrases(content: CropContent, room: Room) -> list[Phrase]:
    """All texts that say what the crop is about, the canonical ones last."""
    kind, colour, part = content.subject
    if kind is None or colour is None:
        return [Phrase(text, (), True) for text in CANONICAL_PHRASES]
    if part is not None:
        texts = _part_phrases(kind, colour, part)
    elif content.several:
        texts = _group_phrases(content, room)
    else:
        texts = _thing_phrases(kind, colour) + _context_phrases(content, room)
    role = next(s.thing.role for s in content.seen if (s.thing.kind, s.thing.colour) == (kind, colour))
    canonical = (
        ("things", "object") if content.several else ("object", "things") if role == "object" else ("stuff", "texture")
    )
    return texts + [Phrase(text, (), True) for text in canonical]


def _thing_phrases(kind: str, colour: str) -> list[Phrase]:
    plain, full = (Meaning(kind),), (Meaning(kind, colour),)
    result = []
    for name in names(kind):
        result += [Phrase(text, plain) for text in (name, with_article(name), f"the {name}")]
        for tone in colour_names(colour):
            said = f"{tone} {name}"
            photo = f"a photo of {with_article(said)}"
            result += [Phrase(text, full) for text in (said, with_article(said), f"the {said}", photo)]
    return result


def _part_phrases(kind: str, colour: str, part: str) -> list[Phrase]:
    plain, full = (Meaning(kind, None, part),), (Meaning(kind, colour, part),)
    result = []
    for name in names(kind):
        for said in part_names(part):
            result += [Phrase(text, plain) for text in (f"{name} {said}", f"the {said} of {with_article(name)}")]
            for tone in colour_names(colour):
                whole = f"the {said} of {with_article(f'{tone} {name}')}"
                result += [Phrase(text, full) for text in (whole, f"{tone} {name} {said}")]
    return result


def _group_phrases(content: CropContent, room: Room) -> list[Phrase]:
    objects = [s.thing for s in content.seen if s.thing.role == "object" and s.share >= OBJECT_SHARE / 2][:3]
    listed, meanings = (
        " and ".join(noun_phrase(t.kind, t.colour) for t in objects),
        tuple(Meaning(t.kind, t.colour) for t in objects),
    )
    plain = " and ".join(noun_phrase(t.kind) for t in objects)
    result = [Phrase(listed, meanings), Phrase(plain, tuple(Meaning(t.kind) for t in objects))]
    support = _common_support(objects, room)
    if support is not None and any(s.thing is support and s.coverage >= SHOWN for s in content.seen):
        on, carrier = names(support.kind)[0], Meaning(support.kind)
        result += [
            Phrase(f"{listed} on a {on}", (*meanings, carrier)),
            Phrase(f"a {on} with several objects", (carrier,)),
        ]
        result += [Phrase(f"things on a {support.colour} {on}", (Meaning(support.kind, support.colour),))]
    return result


def _context_phrases(content: CropContent, room: Room) -> list[Phrase]:
    """The subject with what carries it, when both are in the picture."""
    subject = next(
        s for s in content.seen if s.thing.kind == content.subject.kind and s.thing.colour == content.subject.colour
    )
    carrier = room.things.get(subject.thing.supported_by) if subject.thing.supported_by is not None else None
    if carrier is None or not any(s.thing is carrier and s.coverage > 0.15 for s in content.seen):
        return []
    said = noun_phrase(subject.thing.kind, subject.thing.colour)
    meaning = Meaning(subject.thing.kind, subject.thing.colour)
    return [
        Phrase(f"{said} on a {carrier.kind}", (meaning, Meaning(carrier.kind))),
        Phrase(f"{said} on a {carrier.colour} {carrier.kind}", (meaning, Meaning(carrier.kind, carrier.colour))),
    ]


def _common_support(objects: list[TruthObject], room: Room) -> TruthObject | None:
    supports = {t.supported_by for t in objects}
    support = supports.pop()
    return None if supports or support is None else room.things[support]


def sample_text(content: CropContent, room: Room, rng: np.random.Generator, canonical: float = 0.06) -> Phrase:
    """One text for a crop; `canonical` is the chance of a canonical word."""
    options = phrases(content, room)
    generic = [p for p in options if p.canonical]
    specific = [p for p in options if not p.canonical]
    chosen = generic if not specific or rng.random() < canonical else specific
    return chosen[int(rng.integers(len(chosen)))]
