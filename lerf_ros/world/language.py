"""How things are called: names, synonyms, phrases, and every word that is ever used."""

from __future__ import annotations

from lerf_ros.world.kinds.catalogue import KINDS, STRUCTURE
from lerf_ros.world.materials import COLOURS
from lerf_ros.world.parts import PARTS

CANONICAL_PHRASES = ("object", "things", "stuff", "texture")
PLURALS = (
    "books",
    "bananas",
    "shelves",
    "ears",
    "wheels",
    "legs",
    "eyes",
    "wings",
    "windows",
    "keys",
    "hands",
    "leaves",
)
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "grey": ("grey", "gray"),
    "wooden": ("wooden", "wood"),
    "metal": ("metal", "metallic", "silver"),
    "purple": ("purple", "violet"),
}
STRUCTURE_SYNONYMS: dict[str, tuple[str, ...]] = {"rug": ("carpet",), "picture": ("painting",), "floor": ("ground",)}
PART_SYNONYMS: dict[str, tuple[str, ...]] = {
    "shade": ("lampshade",),
    "beak": ("bill",),
    "cap": ("lid",),
    "receiver": ("handset",),
    "top": ("tabletop", "surface"),
    "back": ("backrest",),
}
COMMON_WORDS = (
    "a", "an", "the", "some", "of", "on", "with", "and", "in", "at", "near", "beside", "photo", "picture",
    "image", "view", "close", "up", "part", "room", "this", "is", "there", "where", "my", "find", "small", "big",
    "large", "little", "empty", "several", "many", "toy", "background", "surface", "nothing", "corner",
    "furniture", "thing", "objects", "colour", "color", "colored", "coloured", "textures",
)  # fmt: skip


def names(kind: str) -> tuple[str, ...]:
    """The kind's own name first, then its synonyms."""
    return (kind, *(KINDS[kind].synonyms if kind in KINDS else STRUCTURE_SYNONYMS.get(kind, ())))


def part_names(part: str) -> tuple[str, ...]:
    return (part, *PART_SYNONYMS.get(part, ()))


def colour_names(colour: str) -> tuple[str, ...]:
    return COLOUR_WORDS.get(colour, (colour,))


def with_article(phrase: str) -> str:
    """ "mug" -> "a mug", "orange book" -> "an orange book", "red books" -> "some red books"."""
    if phrase.split()[-1] in PLURALS and " of " not in phrase:
        return f"some {phrase}"
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def noun_phrase(kind: str, colour: str | None = None) -> str:
    """ "a red mug", with the kind's and colour's first names."""
    return with_article(kind if colour is None else f"{colour} {kind}")


def _all_words() -> tuple[str, ...]:
    phrases = [*CANONICAL_PHRASES, *COMMON_WORDS]
    for kind in (*KINDS, *STRUCTURE):
        phrases += names(kind)
    for colour in COLOURS:
        phrases += colour_names(colour)
    for part in PARTS:
        phrases += part_names(part)
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


VOCABULARY: tuple[str, ...] = _all_words()
