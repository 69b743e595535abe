"""Renders procedural rooms for mini CLIP, with the texts that are true of every region of a picture."""

from __future__ import annotations

import numpy as np
from mini_clip_views import MAX_REGIONS, RoomViews
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
from lerf_ros.world.truth import Box


def class_phrases() -> dict[str, list[str]]:
    """Everything that can be true of a crop in a training room, with the ways to say it."""
    phrases: dict[str, list[str]] = {}
    for kind in (*KINDS, *STRUCTURE):
        phrases[kind] = list(names(kind))
        for colour in colours_of(kind, "train") if kind in KINDS else COLOURS:
            phrases[f"{colour} {kind}"] = [f"{c} {name}" for c in colour_names(colour) for name in names(kind)]
    for kind in KINDS:
        for part in _parts(kind):
            said = [(k, p) for k in names(kind) for p in part_names(part)]
            phrases[f"{kind} {part}"] = [f"{k} {p}" for k, p in said] + [f"{p} of the {k}" for k, p in said]
    return phrases


def render_room(seed: int, views: int) -> RoomViews:
    """Views of a room: from random places if it is for training, else evenly spread over its walk."""
    if seed in TRAINING_SEEDS:
        room, rng = Room(seed, split="train"), np.random.default_rng([seed, 10])
        seen = [room.view(room.camera, room.random_viewpoint(rng)) for _ in range(views)]
    else:
        room = Room(seed)
        seen = [room.truth_view(int(i)) for i in np.linspace(0, len(room) - 1, views)]
    return _label(room, seen)


def _parts(kind: str) -> list[str]:
    """Names of the parts that a kind may have; some of them are built in several ways."""
    names: set[str] = set()
    for attempt in range(8):
        rng = np.random.default_rng(attempt)
        colour = KINDS[kind].colours[0]
        shape = build_object(kind, colour, rng) if kind in OBJECTS else build_furniture(kind, colour, rng)[0]
        names |= set(shape.parts())
    return sorted(names - {"", "body"})


def _label(room: Room, views: list[View]) -> RoomViews:
    """Numbers every (instance, part) seen; region 0 and instance 0 are what belongs to nothing."""
    codes = [np.where(view.instance == NOTHING, 0, (view.instance + 1) * 1000 + view.part) for view in views]
    regions = np.unique(np.concatenate([[0], *(np.unique(code) for code in codes)]))
    if len(regions) > MAX_REGIONS:
        raise ValueError(f"room {room.seed} shows {len(regions)} regions, more than {MAX_REGIONS}")
    texts, part_texts, structure = [[]], [[]], [False]
    for code in regions[1:]:
        thing, part = room.things[int(code) // 1000 - 1], int(code) % 1000
        texts.append([thing.kind, f"{thing.colour} {thing.kind}"])
        part_texts.append([f"{thing.kind} {PARTS[part - 1]}"] if part else [])
        structure.append(thing.role == "structure")
    masks = np.stack([np.searchsorted(regions, code) for code in codes]).astype(np.uint8)
    images, instance = np.stack([view.image for view in views]), regions // 1000
    visible, boxes = _extents(masks, instance)
    whole = np.zeros(boxes.shape[:2])
    for view, seen in enumerate(views):
        for region in np.flatnonzero(visible[0, view]):
            if instance[region]:
                area = _projected_area(room.things[int(instance[region]) - 1].box, seen)
                whole[view, region] = boxes[view, region, 2] * boxes[view, region, 3] / area
    return RoomViews(room.seed, images, masks, instance, texts, part_texts, np.array(structure), visible, whole, boxes)


def _projected_area(box: Box, view: View) -> float:
    """Area (px) of the upright rectangle around a projected 3D box; infinite when the box reaches behind the camera."""
    x_camera = (box.corners() - view.T_world_camera[:3, 3]) @ view.T_world_camera[:3, :3]
    if x_camera[:, 2].min() < 0.1:
        return np.inf
    return float(np.prod(np.ptp(x_camera[:, :2] / x_camera[:, 2:] * [view.camera.fx, view.camera.fy], axis=0)))


def _extents(masks: np.ndarray, instance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`RoomViews.visible` and `RoomViews.boxes`."""
    visible, boxes = np.zeros((2, len(masks), len(instance))), np.zeros((len(masks), len(instance), 4))
    for view, mask in enumerate(masks):
        pixels = np.bincount(mask.ravel(), minlength=len(instance))
        visible[:, view] = np.bincount(instance, weights=pixels)[instance], pixels
        for number, place in enumerate(find_objects(instance[mask]), start=1):
            if place is not None:
                v, u = place
                middle = (u.start + u.stop - 1) / 2, (v.start + v.stop - 1) / 2
                boxes[view, instance == number] = *middle, u.stop - u.start, v.stop - v.start
    return visible, boxes
