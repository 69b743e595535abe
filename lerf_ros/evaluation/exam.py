"""The exam of one room: its frames, all questions, and held-out views with the truth in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lerf_ros.evaluation.true_surface import TrueSurface
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.render import View
from lerf_ros.world.room import WELL_VISIBLE, Room
from lerf_ros.world.truth import TruthQuery

PixelBox = tuple[int, int, int, int]

_LOOK_WIDTH = 160  # px, at which views are chosen
_CHANCE_POINTS = 400


@dataclass(frozen=True)
class HeldOutView:
    """A view that no frame of the walk shows, and the box (u0, v0, u1, v1), pixels, inclusive, of everything that is
    well visible in it, by instance id."""

    view: View
    boxes: dict[int, PixelBox]

    def frame(self) -> Frame:
        """The view as a frame with true colours and depth, for comparison with renderings."""
        return Frame(0, self.view.image, self.view.depth_z, self.view.camera, self.view.T_world_camera)


class Exam:
    """Everything that is asked about a room, made once and used for every variant.

    Args:
        views: number of held-out views.
    """

    def __init__(self, room: Room, views: int) -> None:
        self.room, self._views = room, views
        self.surface = TrueSurface(room)
        self.queries: list[TruthQuery] = room.queries()

    @cached_property
    def frames(self) -> list[Frame]:
        return [self.room[index] for index in range(len(self.room))]

    @cached_property
    def held_out(self) -> list[HeldOutView]:
        """Views half way between frames of the walk; together they show as many of the askable things as they can."""
        between = halfway(self.room.trajectory)
        seen = [self.well_visible(pose) & set(self.room.askable) for pose in between]
        chosen = cover(seen, self._views)
        return [self._held_out(between[index]) for index in chosen]

    @cached_property
    def part_chances(self) -> list[float]:
        """For each part question, how often a random visible point of the whole thing is a right answer."""
        rng = np.random.default_rng([self.room.seed, 6])
        parts = [query for query in self.queries if query.part is not None]
        return [self.surface.chance(query, _CHANCE_POINTS, rng) for query in parts]

    @cached_property
    def room_chance(self) -> float:
        """How often a random point of all that the walk shows of the room answers a part question."""
        parts = [query for query in self.queries if query.part is not None]
        points, _ = self.surface.sample(10 * _CHANCE_POINTS, np.random.default_rng([self.room.seed, 7]))
        return float(np.mean([[self.surface.answers(x, query) for x in points] for query in parts])) if parts else 0.0

    def part_of_part(self, query: TruthQuery) -> bool:
        """Whether a question is for a part that belongs to another one, as a bear's nose to its head."""
        return query.part is not None and any(
            query.part in inner for i in query.instance_ids for inner in self.room.things[i].nested.values()
        )

    def well_visible(self, T_world_camera: NDArray[np.float64]) -> set[int]:
        """Instance ids of everything that the room's camera shows well (`WELL_VISIBLE`) from a pose (4, 4)."""
        small = self.room.camera.scaled(_LOOK_WIDTH / self.room.camera.width)
        ids, counts = np.unique(self.room.scene.masks(small, T_world_camera)[1], return_counts=True)
        return {int(i) for i, count in zip(ids, counts) if count >= WELL_VISIBLE * small.width * small.height}

    def _held_out(self, T_world_camera: NDArray[np.float64]) -> HeldOutView:
        view = self.room.view(self.room.camera, T_world_camera)
        boxes = {}
        for instance in np.unique(view.instance):
            mask = view.instance == instance
            if instance >= 0 and mask.mean() >= WELL_VISIBLE:
                boxes[int(instance)] = pixel_box(mask)
        return HeldOutView(view, boxes)


def pixel_box(mask: NDArray[np.bool_]) -> PixelBox:
    """The tight box (u0, v0, u1, v1), inclusive, around the True pixels (at least one) of a mask (H, W)."""
    v, u = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(u[0]), int(v[0]), int(u[-1]), int(v[-1])


def halfway(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Poses (N - 1, 4, 4) half way between those (N, 4, 4) of a walk, rotations along the shorter arc."""
    middle = poses[:-1].copy()
    turn = Rotation.from_matrix(poses[:-1, :3, :3]).inv() * Rotation.from_matrix(poses[1:, :3, :3])
    half = Rotation.from_rotvec(turn.as_rotvec() / 2)
    middle[:, :3, :3] = poses[:-1, :3, :3] @ half.as_matrix()
    middle[:, :3, 3] = (poses[:-1, :3, 3] + poses[1:, :3, 3]) / 2
    return middle


def cover(sets: Sequence[set[int]], count: int) -> list[int]:
    """Indices, ascending, of at most `count` sets: greedily those that add most, then those in between."""
    chosen: list[int] = []
    covered: set[int] = set()
    while len(chosen) < min(count, len(sets)):
        best = max(range(len(sets)), key=lambda i: (i not in chosen, len(sets[i] - covered)))
        if not sets[best] - covered:
            break
        chosen.append(best)
        covered |= sets[best]
    while len(chosen) < min(count, len(sets)):  # the one farthest from all that are chosen
        chosen.append(max(range(len(sets)), key=lambda i: min((abs(i - c) for c in chosen), default=0)))
    return sorted(chosen)
