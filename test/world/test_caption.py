import numpy as np
import pytest

from lerf_ros.world.caption import describe, phrases, sample_text
from lerf_ros.world.kinds.catalogue import KINDS
from lerf_ros.world.language import CANONICAL_PHRASES, VOCABULARY, Meaning, colour_names, names, with_article
from lerf_ros.world.parts import PARTS
from lerf_ros.world.render import View


def _painted(room, *areas) -> View:
    """A made-up view of 100 x 100 pixels: the wall, with rectangles (instance, part, u0, v0, u1, v1) on it."""
    wall = next(t.instance_id for t in room.things.values() if t.kind == "wall")
    instance, part = np.full((100, 100), wall, np.int32), np.zeros((100, 100), np.int32)
    for number, name, u0, v0, u1, v1 in areas:
        instance[v0:v1, u0:u1] = number
        part[v0:v1, u0:u1] = PARTS.index(name) + 1 if name else 0
    empty = np.zeros((100, 100), np.float32)
    return View(np.zeros((100, 100, 3), np.uint8), empty, instance, part, empty, room.camera, np.eye(4))


WHOLE = (-0.5, -0.5, 99.5, 99.5)


def test_a_single_object_is_named_with_kind_and_colour(room):
    thing = room.objects[0]
    content = describe(room, _painted(room, (thing.instance_id, "", 30, 30, 70, 70)), WHOLE)
    assert content.subject == Meaning(thing.kind, thing.colour)
    coverage = {s.thing.instance_id: s.coverage for s in content.seen}
    assert coverage[thing.instance_id] == pytest.approx(0.16, abs=0.02)
    texts = {p.text for p in phrases(content, room)}
    assert {thing.kind, with_article(f"{thing.colour} {thing.kind}"), "object"} <= texts
    assert content.shows(Meaning(thing.kind)) and content.shows(Meaning("wall"))
    assert not content.shows(Meaning(thing.kind, "no such colour"))


def test_a_crop_within_a_part_is_about_the_part(room):
    thing = room.objects[0]
    view = _painted(room, (thing.instance_id, "", 10, 10, 90, 90), (thing.instance_id, "handle", 40, 40, 60, 60))
    assert describe(room, view, (40, 40, 60, 60)).subject == Meaning(thing.kind, thing.colour, "handle")
    assert describe(room, view, WHOLE).subject.part is None
    texts = {p.text for p in phrases(describe(room, view, (40, 40, 60, 60)), room)}
    assert f"the handle of {with_article(thing.kind)}" in texts and thing.kind not in texts


def test_several_objects_are_listed(room):
    first, second = room.objects[:2]
    view = _painted(room, (first.instance_id, "", 10, 30, 45, 70), (second.instance_id, "", 55, 30, 90, 70))
    content = describe(room, view, WHOLE)
    assert content.several
    texts = " / ".join(p.text for p in phrases(content, room))
    assert first.kind in texts and second.kind in texts and "things" in texts


def test_bare_wall_is_stuff(room):
    content = describe(room, _painted(room), (10, 10, 40, 40))
    assert content.subject.kind == "wall"
    assert {p.text for p in phrases(content, room) if p.canonical} == {"stuff", "texture"}


def test_every_text_is_true_and_made_of_known_words(room):
    rng, said = np.random.default_rng(0), set()
    for pose in [room.random_viewpoint(rng) for _ in range(6)]:
        view = room.view(room.camera, pose)
        for _ in range(20):
            size = rng.uniform(8, 60)
            u, v = rng.uniform(0, 160 - size), rng.uniform(0, 120 - size)
            content = describe(room, view, (u, v, u + size, v + size))
            phrase = sample_text(content, room, rng)
            said.add(phrase.text)
            assert set(phrase.text.split()) <= set(VOCABULARY), phrase.text
            assert phrase.canonical == (phrase.text in CANONICAL_PHRASES)
            assert all(content.shows(meaning) for meaning in phrase.meanings if meaning.kind == content.subject.kind)
    assert len(said) > 30


def test_every_name_is_in_the_vocabulary():
    for kind in KINDS.values():
        for phrase in (*names(kind.name), *(c for colour in kind.colours for c in colour_names(colour))):
            assert set(phrase.split()) <= set(VOCABULARY)


@pytest.mark.parametrize(
    ("phrase", "said"),
    [
        ("mug", "a mug"),
        ("orange ball", "an orange ball"),
        ("red books", "some red books"),
        ("stack of books", "a stack of books"),
    ],
)
def test_articles(phrase, said):
    assert with_article(phrase) == said


@pytest.mark.parametrize("crop", [(50, 50, 50, 60), (200, 10, 220, 30), (-30, -30, -1, -1)])
def test_crops_outside_the_view_are_refused(room, crop):
    with pytest.raises(ValueError, match="no pixel"):
        describe(room, _painted(room), crop)
