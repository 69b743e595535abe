"""All kinds, their look-alikes, and which seeds are for what."""

from __future__ import annotations

import numpy as np

from lerf_ros.world.kinds import desk, furniture, household, kitchen, toys
from lerf_ros.world.kinds.held_out import HELD_OUT_COMBINATIONS
from lerf_ros.world.kinds.kind import Kind
from lerf_ros.world.materials import paint
from lerf_ros.world.shapes import Shape

OBJECTS: dict[str, Kind] = {kind.name: kind for kind in (*kitchen.KINDS, *desk.KINDS, *household.KINDS, *toys.KINDS)}
FURNITURE: dict[str, Kind] = {kind.name: kind for kind in furniture.KINDS}
KINDS: dict[str, Kind] = {**OBJECTS, **FURNITURE}
# Kinds that a person might take for one another, or of which one is a part of the other: a room has at most one of a
# group in a colour, and none of a group is asked for as absent while another one is there.
LOOKALIKES: tuple[frozenset[str], ...] = (
    frozenset({"book", "books"}),
    frozenset({"bin", "bucket", "basket"}),
    frozenset({"mug", "bucket", "trophy"}),
    frozenset({"kettle", "teapot"}),
    frozenset({"pot", "pan", "plant", "cactus"}),
    frozenset({"laptop", "monitor", "keyboard"}),
    frozenset({"ball", "globe"}),
    frozenset({"box", "crate", "dice"}),
    frozenset({"vase", "bottle"}),
    frozenset({"radio", "speaker"}),
    frozenset({"bowl", "plate", "pan", "basket"}),
    frozenset({"bear", "rabbit"}),
    frozenset({"apple", "pumpkin"}),
    frozenset({"backpack", "suitcase"}),
    frozenset({"drum", "cake"}),
    frozenset({"cushion", "bed"}),
    frozenset({"table", "round table", "desk"}),
    frozenset({"sofa", "armchair"}),
    frozenset({"chair", "stool", "armchair"}),
    frozenset({"bookcase", "cabinet"}),
)


def lookalikes(kind: str) -> set[str]:
    """The kind itself and all that may be taken for it."""
    return {kind}.union(*(group for group in LOOKALIKES if kind in group))


STRUCTURE = ("wall", "floor", "ceiling", "door", "window", "rug", "picture")

EVALUATION_SEEDS = range(0, 10_000)
VALIDATION_SEEDS = range(10_000, 20_000)
TRAINING_SEEDS = range(1_000_000, 1_000_000_000)


def colours_of(kind: str, split: str) -> tuple[str, ...]:
    """The colours a kind may have in a split: "train" leaves the held-out combinations away."""
    held_out = {c for k, c in HELD_OUT_COMBINATIONS if k == kind} if split == "train" else set()
    return tuple(c for c in KINDS[kind].colours if c not in held_out)


def build_object(kind: str, colour: str, rng: np.random.Generator, size: float = 1.0) -> Shape:
    """A shape of a kind in a colour, `size` times its usual size, standing on z = 0 and centred on the z axis."""
    entry = OBJECTS[kind]
    return entry.build(paint(colour, rng, entry.pattern), rng).scaled(size)


def build_furniture(kind: str, colour: str, rng: np.random.Generator) -> tuple[Shape, list[furniture.Surface]]:
    """A piece of furniture with the surfaces that carry things, both in the furniture's frame."""
    entry = FURNITURE[kind]
    return entry.build(paint(colour, rng, entry.pattern), rng)
