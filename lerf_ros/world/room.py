"""A furnished room that behaves like a recorded camera stream and knows the truth about itself."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.kinds.catalogue import TRAINING_SEEDS
from lerf_ros.world.layout import Layout
from lerf_ros.world.render import Scene, View
from lerf_ros.world.sensor import expose, measure_depth
from lerf_ros.world.truth import Box, TruthObject

HORIZONTAL_FOV_DEG = 62.0


class Room:
    """Room number `seed`: the same in every process and on every machine.

    Seeds: 0..9999 evaluation (never trained or tuned on), 10,000..19,999 validation, 1,000,000 and up training.
    `split="train"` leaves the held-out combinations of kind and colour away and takes training seeds only.

    As a `FrameSource`: `name`, `camera`, `rate_hz`, `len(room)`, `room[i]` -> `Frame` with a sensor's noise.
    """

    rate_hz = 5.0

    def __init__(self, seed: int, width: int = 640, height: int = 480, frames: int = 72, split: str = "evaluation") -> None:
        if split not in ("train", "evaluation"):
            raise ValueError(f'split must be "train" or "evaluation", not {split!r}')
        if seed < 0:
            raise ValueError(f"a room's seed must not be negative, got {seed}")
        if split == "train" and seed not in TRAINING_SEEDS:
            raise ValueError(f"training rooms have seeds from {TRAINING_SEEDS.start} up, {seed} is kept for evaluation")
        if frames < 2:
            raise ValueError(f"a trajectory needs at least 2 frames, got {frames}")
        self.seed, self.name, self._frames = seed, f"room:{seed}", frames
        f = width / (2 * np.tan(np.radians(HORIZONTAL_FOV_DEG / 2)))
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


def _truth(instance: int, placed) -> TruthObject:
    shape, pose = placed.shape, placed.T_world_shape
    parts = {part: Box.around(shape.vertices(part), pose) for part in shape.parts()}
    return TruthObject(
        instance_id=instance,
        kind=placed.kind,
        colour=placed.colour,
        caption=f"a {placed.colour} {placed.kind}",
        box=Box.around(shape.vertices(), pose),
        role=placed.role,
        parts=parts,
        supported_by=placed.supported_by,
    )
