"""What is true about a room: boxes of objects and their parts, and queries with their right answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

GROWTH_LIMIT = 0.05  # m


@dataclass(frozen=True, eq=False)
class Box:
    """An oriented box: `T_world_box` (4, 4) with the box's centre as origin, `size` (3,) its full extents in metres."""

    T_world_box: np.ndarray
    size: np.ndarray

    def __post_init__(self) -> None:
        pose, size = np.asarray(self.T_world_box, dtype=np.float64), np.asarray(self.size, dtype=np.float64)
        if pose.shape != (4, 4) or not np.isfinite(pose).all():
            raise ValueError(f"T_world_box must be a finite (4, 4) matrix, got shape {pose.shape}")
        if size.shape != (3,) or not (size >= 0).all():
            raise ValueError(f"size must be three extents of at least 0 m, got {size}")
        object.__setattr__(self, "T_world_box", pose)
        object.__setattr__(self, "size", size)

    @property
    def centre(self) -> np.ndarray:
        return self.T_world_box[:3, 3]

    def contains(self, x_world: np.ndarray, grow: float | np.ndarray = 0.0) -> np.ndarray:
        """Whether points (.., 3) lie in the box, each side moved out by `grow` m (or per axis (3,)) -> (..) bool."""
        x_box = (np.asarray(x_world, dtype=np.float64) - self.centre) @ self.T_world_box[:3, :3]
        return (np.abs(x_box) <= self.size / 2 + grow).all(axis=-1)

    def grown(self) -> Box:
        """Where an answer has to lie: every side moved out by 5 cm or a quarter of its extent, whichever is less."""
        return Box(self.T_world_box, self.size + 2 * np.minimum(GROWTH_LIMIT, self.size / 4))

    def corners(self) -> np.ndarray:
        """The eight corners in the world -> (8, 3)."""
        signs = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5], indexing="ij"), axis=-1).reshape(8, 3)
        return (signs * self.size) @ self.T_world_box[:3, :3].T + self.centre

    @classmethod
    def around(cls, points: np.ndarray, T_world_local: np.ndarray) -> Box:
        """The tight box around local points (N, 3), with the axes of the local frame."""
        low, high = points.min(axis=0), points.max(axis=0)
        pose = np.array(T_world_local, dtype=np.float64)
        pose[:3, 3] += pose[:3, :3] @ ((low + high) / 2)
        return cls(pose, high - low)


@dataclass(frozen=True, eq=False)
class TruthObject:
    """One thing in the room. `role` is "object", "furniture" or "structure" (walls, floor, door, rug, ...).

    `parts` maps names to boxes; `nested` maps a part to those that lie within it (a bear's nose in its head).
    """

    instance_id: int
    kind: str
    colour: str
    caption: str
    box: Box
    role: str = "object"
    parts: dict[str, Box] = field(default_factory=dict)
    supported_by: int | None = None
    nested: dict[str, tuple[str, ...]] = field(default_factory=dict)


CATEGORIES = ("object", "attribute", "instances", "part", "small_part", "absent", "absent_colour")


@dataclass(frozen=True)
class TruthQuery:
    """A text and the boxes of everything it names: any of them is a right answer; none means absent from the room.

    Attributes:
        instance_ids, boxes: of what is named, one each; for a part, the thing that it belongs to and the part's box.
        category: one of `CATEGORIES`. "object": one thing; "attribute": one thing whose colour tells it from `rivals`;
            "instances": a kind, all of which is wanted; "part": a part of one thing; "small_part": one that no picture
            shows as large as what counts as well visible; "absent": neither the kind nor a look-alike is there;
            "absent_colour": the kind is there, in other colours.
        part: name of the part, of questions about one.
        rivals: instance ids of what might be mistaken for it: the same kind or a look-alike, for which the text is
            wrong.
    """

    text: str
    instance_ids: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    category: str = "object"
    part: str | None = None
    rivals: tuple[int, ...] = ()

    @property
    def present(self) -> bool:
        return bool(self.boxes)
