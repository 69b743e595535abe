"""Renders procedural rooms for mini CLIP, with the texts that are true of every region of a picture."""

from __future__ import annotations

from functools import cache

import numpy as np
from mini_clip_views import MAX_REGIONS, MAX_TEXTS, RoomViews
from scipy.ndimage import find_objects

from lerf_ros.world.kinds.catalogue import (
    KINDS,
    OBJECTS,
    STRUCTURE,
    TRAINING_SEEDS,
    build_furniture,
    build_object,
    colours_of,
)
from lerf_ros.world.language import colour_names, names, part_names
from lerf_ros.world.materials import COLOURS
from lerf_ros.world.parts import PARTS
from lerf_ros.world.render import NOTHING, View
from lerf_ros.world.room import Room
from lerf_ros.world.sensor import expose
from lerf_ros.world.truth import Box


def class_phrases() -> dict[str, list[str]]:
    """Everything that can be true of a crop in a training room, with the ways to say it."""
    phrases: dict[str, list[str]] = {}
    for colour in COLOURS:
        phrases[colour] = [said for c in colour_names(colour) for said in (c, f"something {c}", f"anything {c}")]
    for kind in (*KINDS, *STRUCTURE):
        phrases[kind] = list(names(kind))
        for colour in colours_of(kind, "train") if kind in KINDS else COLOURS:
            phrases[f"{colour} {kind}"] = [f"{c} {name}" for c in colour_names(colour) for name in names(kind)]
    for kind in KINDS:
        for part in parts_of(kind):
            said = [(k, p) for k in names(kind) for p in part_names(part)]
            phrases[f"{kind} {part}"] = [f"{k} {p}" for k, p in said] + [f"{p} of the {k}" for k, p in said]
    return phrases


def coloured_part_phrases() -> dict[str, list[str]]:
    """The same for parts of things whose colour is said: "red mug handle". They are many, and all told alike."""
    return {
        f"{colour} {kind} {part}": [
            text
            for c in colour_names(colour)
            for name in names(kind)
            for text in (f"{c} {name} {part}", f"{part} of the {c} {name}")
        ]
        for kind in KINDS
        for colour in colours_of(kind, "train")
        for part in parts_of(kind)
    }


@cache
def parts_of(kind: str) -> tuple[str, ...]:
    """Names of the parts that a kind may have; some of them are built in several ways."""
    found: set[str] = set()
    for attempt in range(8):
        rng = np.random.default_rng(attempt)
        colour = KINDS[kind].colours[0]
        shape = build_object(kind, colour, rng) if kind in OBJECTS else build_furniture(kind, colour, rng)[0]
        found |= set(shape.parts())
    return tuple(sorted(found - {"", "body"}))


def render_room(seed: int, views: int) -> RoomViews:
    """Views of a room: for training half from random places and half from its walk, clean; else of the walk, noisy."""
    if seed in TRAINING_SEEDS:
        room, rng = Room(seed, split="train"), np.random.default_rng([seed, 10])
        poses = [*room.trajectory[rng.permutation(len(room))[: views // 2]]]
        poses += [room.random_viewpoint(rng) for _ in range(views - len(poses))]
        seen = [room.view(room.camera, pose) for pose in poses]
        return _label(room, seen, [view.image for view in seen])
    room, rng = Room(seed), np.random.default_rng([seed, 11])
    seen = [room.truth_view(int(i)) for i in np.linspace(0, len(room) - 1, views)]
    return _label(room, seen, [expose(view.image, rng) for view in seen])


def _label(room: Room, views: list[View], images: list[np.ndarray]) -> RoomViews:
    """Numbers every (instance, part) seen; region 0 and instance 0 are what belongs to nothing."""
    codes = [np.where(view.instance == NOTHING, 0, (view.instance + 1) * 1000 + view.part) for view in views]
    regions = np.unique(np.concatenate([[0], *(np.unique(code) for code in codes)]))
    if len(regions) > MAX_REGIONS:
        raise ValueError(f"room {room.seed} shows {len(regions)} regions, more than {MAX_REGIONS}")
    texts, part_texts, colours = [[]], [[]], [""]
    for code in regions[1:]:
        thing, part = room.things[int(code) // 1000 - 1], int(code) % 1000
        texts.append([thing.kind, f"{thing.colour} {thing.kind}", thing.colour])
        name = PARTS[part - 1] if part else ""
        own = [name, *(outer for outer, inner in thing.nested.items() if name in inner)] if part else []
        part_texts.append([f"{thing.kind} {name}" for name in own[: MAX_TEXTS // 2]])
        colours.append("" if thing.role == "structure" else thing.colour)
    masks = np.stack([np.searchsorted(regions, code) for code in codes]).astype(np.uint8)
    instance = regions // 1000
    structure = np.array([bool(said) and not colour for said, colour in zip(texts, colours)])
    visible, boxes = _extents(masks, instance)
    whole = np.zeros(boxes.shape[1:3])
    for view, seen in enumerate(views):
        for region in np.flatnonzero(visible[0, view]):
            if instance[region]:
                area = _projected_area(room.things[int(instance[region]) - 1].box, seen)
                whole[view, region] = boxes[0, view, region, 2] * boxes[0, view, region, 3] / area
    return RoomViews(
        room.seed, np.stack(images), masks, instance, texts, part_texts, colours, structure, visible, whole, boxes
    )


def _projected_area(box: Box, view: View) -> float:
    """Area (px) of the upright rectangle around a projected 3D box; infinite when the box reaches behind the camera."""
    x_camera = (box.corners() - view.T_world_camera[:3, 3]) @ view.T_world_camera[:3, :3]
    if x_camera[:, 2].min() < 0.1:
        return np.inf
    return float(np.prod(np.ptp(x_camera[:, :2] / x_camera[:, 2:] * [view.camera.fx, view.camera.fy], axis=0)))


def _extents(masks: np.ndarray, instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`RoomViews.visible` and `RoomViews.boxes`."""
    visible, boxes = np.zeros((2, len(masks), len(instance))), np.zeros((2, len(masks), len(instance), 4))
    for view, mask in enumerate(masks):
        pixels = np.bincount(mask.ravel(), minlength=len(instance))
        visible[:, view] = np.bincount(instance, weights=pixels)[instance], pixels
        for number, place in enumerate(find_objects(instance[mask]), start=1):
            if place is not None:
                boxes[0, view, instance == number] = _box(place)
        for number, place in enumerate(find_objects(mask), start=1):
            if place is not None:
                boxes[1, view, number] = _box(place)
    return visible, boxes


def _box(place: tuple[slice, slice]) -> tuple[float, float, int, int]:
    v, u = place
    return (u.start + u.stop - 1) / 2, (v.start + v.stop - 1) / 2, u.stop - u.start, v.stop - v.start
