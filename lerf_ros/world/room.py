"""A furnished room that behaves like a recorded camera stream and knows the truth about itself."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.units import METRES, Units
from lerf_ros.mapping.frame import Frame
from lerf_ros.world import queries
from lerf_ros.world.kinds.catalogue import TRAINING_SEEDS
from lerf_ros.world.language import noun_phrase
from lerf_ros.world.layout import Layout, Placed
from lerf_ros.world.parts import PARTS, PARTS_OF_PARTS
from lerf_ros.world.render import Scene, View
from lerf_ros.world.sensor import expose, measure_depth
from lerf_ros.world.shapes import Shape
from lerf_ros.world.trajectory import hand_held
from lerf_ros.world.truth import Box, TruthObject, TruthQuery
from lerf_ros.world.viewpoints import random_viewpoint

HORIZONTAL_FOV_DEG = 62.0
WELL_VISIBLE = 0.00125  # of the picture: 384 of 640 x 480 pixels, about 20 x 20
HARDLY_VISIBLE = 100 / (640 * 480)  # of the picture: 10 x 10 of 640 x 480 pixels; LERF's smallest crops are 24 x 24
SEEN_IN = 3  # frames that must show a thing, or a part, well before it is asked for
NESTED = 0.7  # of a part's volume inside one piece of another part: it lies within that part


class Room:
    """Room number `seed`: the same in every process and on every machine.

    Seeds: 0..9999 evaluation (never trained or tuned on), 10,000..19,999 validation, 1,000,000 and up training.
    `split="train"` leaves the held-out combinations of kind and colour away and takes training seeds only.

    As a `FrameSource`: `name`, `camera`, `rate_hz`, `len(room)`, `room[i]` -> `Frame` with a sensor's noise.
    """

    rate_hz = 5.0
    units: Units = METRES

    def __init__(
        self, seed: int, width: int = 640, height: int = 480, frames: int = 80, split: str = "evaluation"
    ) -> None:
        if split not in ("train", "evaluation"):
            raise ValueError(f'split must be "train" or "evaluation", not {split!r}')
        if seed < 0:
            raise ValueError(f"a room's seed must not be negative, got {seed}")
        if split == "train" and seed not in TRAINING_SEEDS:
            raise ValueError(f"training rooms have seeds from {TRAINING_SEEDS.start} up, {seed} is kept for evaluation")
        if frames < 2:
            raise ValueError(f"a trajectory needs at least 2 frames, got {frames}")
        self.seed, self.name, self._frames = seed, f"room:{seed}", frames
        f = width / (2 * math.tan(math.radians(HORIZONTAL_FOV_DEG / 2)))
        self.camera = Camera(f, f, (width - 1) / 2, (height - 1) / 2, width, height)
        rng = np.random.default_rng([seed, 0])
        layout = Layout(rng, split)
        self.size = layout.size
        self.things: dict[int, TruthObject] = {i: _truth(i, placed) for i, placed in enumerate(layout.placed)}
        lights = rng.uniform([-0.35, -0.35, 0.92], [0.35, 0.35, 0.96], (2, 3)) * self.size
        self.scene = Scene([(i, p.shape, p.T_world_shape) for i, p in enumerate(layout.placed)], lights)

    @property
    def objects(self) -> list[TruthObject]:
        """The things that stand on furniture and floor."""
        return [thing for thing in self.things.values() if thing.role == "object"]

    @property
    def furniture(self) -> list[TruthObject]:
        return [thing for thing in self.things.values() if thing.role == "furniture"]

    # -- pictures ---------------------------------------------------------------------------------------------------

    def view(self, camera: Camera, T_world_camera: np.ndarray) -> View:
        """The truth from any pose (4, 4): clean image, depth, instance and part masks."""
        return self.scene.view(camera, T_world_camera)

    def truth_view(self, i: int) -> View:
        """The truth at frame i of the walk."""
        return self.view(self.camera, self.trajectory[self._index(i)])

    def random_viewpoint(self, rng: np.random.Generator) -> np.ndarray:
        """T_world_camera (4, 4) of a random free place that looks at something; see `viewpoints.random_viewpoint`."""
        return random_viewpoint(self.scene, self.size, self.things, rng)

    # -- the walk ---------------------------------------------------------------------------------------------------

    @cached_property
    def trajectory(self) -> np.ndarray:
        """T_world_camera of all frames (frames, 4, 4)."""
        return hand_held(self.scene, self.size, self.things, self._frames, np.random.default_rng([self.seed, 1]))

    def __len__(self) -> int:
        return self._frames

    def __getitem__(self, i: int) -> Frame:
        i = self._index(i)
        view, rng = self.truth_view(i), np.random.default_rng([self.seed, 2, i])
        image, depth_z = expose(view.image, rng), measure_depth(view, rng)
        return Frame(round(i * 1e9 / self.rate_hz), image, depth_z, self.camera, self.trajectory[i])

    def _index(self, i: int) -> int:
        if not -self._frames <= i < self._frames:
            raise IndexError(f"{self.name} has {self._frames} frames, there is no frame {i}")
        return i % self._frames

    # -- questions --------------------------------------------------------------------------------------------------

    @cached_property
    def sightings(self) -> dict[int, int]:
        """In how many frames of the walk each thing is well visible: at least `WELL_VISIBLE` of the picture."""
        small = self.camera.scaled(160 / self.camera.width)
        counts = np.zeros(max(self.things) + 1, dtype=int)
        for pose in self.trajectory:
            pixels = np.bincount(self.scene.masks(small, pose)[1].ravel() + 1, minlength=len(counts) + 1)[1:]
            counts += pixels >= WELL_VISIBLE * small.width * small.height
        return {i: int(counts[i]) for i in self.things}

    @cached_property
    def part_sizes(self) -> dict[tuple[int, str], float]:
        """Which share of the picture the `SEEN_IN` frames of the walk that show it largest show at least of each part
        of each thing."""
        small = self.camera.scaled(320 / self.camera.width)
        label = self.scene.instance * (len(PARTS) + 1) + self.scene.part
        labels = (max(self.things) + 1) * (len(PARTS) + 1)
        seen = [self.scene.faces_seen(small, pose) for pose in self.trajectory]
        pixels = np.stack([np.bincount(label[faces[faces >= 0]], minlength=labels) for faces in seen])
        table = np.sort(pixels, axis=0)[-SEEN_IN].reshape(-1, len(PARTS) + 1) / (small.width * small.height)
        return {(i, p): float(table[i, 1 + PARTS.index(p)]) for i, thing in self.things.items() for p in thing.parts}

    @cached_property
    def askable(self) -> tuple[int, ...]:
        """Instance ids of the objects and furniture that at least `SEEN_IN` frames show well."""
        return tuple(
            t.instance_id for t in (*self.objects, *self.furniture) if self.sightings[t.instance_id] >= SEEN_IN
        )

    def queries(self) -> list[TruthQuery]:
        """Every question about this room, in every category of `truth.CATEGORIES`; no text comes twice."""
        parts = {
            (i, p): "part" if self.part_sizes[i, p] >= WELL_VISIBLE else "small_part"
            for i in self.askable
            for p in self.things[i].parts
            if self.part_sizes[i, p] >= HARDLY_VISIBLE and p != "body"  # the rest: nobody says where it begins
        }
        return queries.every(self.things, self.askable, parts, np.random.default_rng([self.seed, 5]))

    def present_queries(self, n: int = 10) -> list[TruthQuery]:
        """Up to n questions for things of different kinds that at least 3 frames show well."""
        return queries.present(self.things, list(self.askable), n, np.random.default_rng([self.seed, 3]))

    def absent_queries(self, n: int = 5) -> list[TruthQuery]:
        """n questions for kinds that are not in the room, nor anything like them."""
        return queries.absent(self.things, n, np.random.default_rng([self.seed, 4]))


def _truth(instance: int, placed: Placed) -> TruthObject:
    shape, pose = placed.shape, placed.T_world_shape
    parts = {part: Box.around(shape.vertices(part), pose) for part in shape.parts()}
    return TruthObject(
        instance_id=instance,
        kind=placed.kind,
        colour=placed.colour,
        caption=noun_phrase(placed.kind, placed.colour),
        box=Box.around(shape.vertices(), pose),
        role=placed.role,
        parts=parts,
        supported_by=placed.supported_by,
        nested=_nested(shape),
    )


def _nested(shape: Shape) -> dict[str, tuple[str, ...]]:
    """Which parts belong to which: those of `PARTS_OF_PARTS`, and what lies inside by the boxes in the shape's frame,
    piece by piece of the outer part, since the box around four legs holds much that is no leg."""
    boxes = {part: _extremes(shape.vertices(part)) for part in shape.parts()}
    pieces = [(piece.part, _extremes(piece.vertices)) for piece in shape.pieces if piece.part]
    within: dict[str, tuple[str, ...]] = {}
    for outer in boxes:
        around = [box for part, box in pieces if part == outer]
        jutting = PARTS_OF_PARTS.get(outer, ())
        within[outer] = tuple(
            inner
            for inner, box in boxes.items()
            if inner != outer and (inner in jutting or max(_share(box, a) for a in around) >= NESTED)
        )
    return {outer: inner for outer, inner in within.items() if inner}


def _extremes(points: np.ndarray) -> np.ndarray:
    return np.stack([points.min(axis=0), points.max(axis=0)])


def _share(box: np.ndarray, other: np.ndarray) -> float:
    """How much of a box (2, 3: low, high) lies in another one; flat boxes count by area, or length."""
    extent = np.ptp(box, axis=0)
    common = np.minimum(box[1], other[1]) - np.maximum(box[0], other[0])
    flat = extent < 1e-9
    return float(np.prod(np.where(flat, common >= 0, np.clip(common, 0, None) / np.where(flat, 1, extent))))
