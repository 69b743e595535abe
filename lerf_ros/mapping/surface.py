"""Surface points of a map and what is known about them: the whole interface between mapping and query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from torch import Tensor

from lerf_ros.captured import CapturedCalls
from lerf_ros.geometry.neighbours import Places
from lerf_ros.mapping.keyframe_crops import KeyframeCrops


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """N points on the mapped surface.

    Attributes:
        x_world: (N, 3) float64, metres, map frame.
        view_directions: (N, 3) unit, mean direction from the cameras to the point.
        views: (N,) int64, number of keyframes that see the point.
        scale_min, scale_max: (N,) metres, the range of physical crop sizes that supervision has seen at the point;
            empty (scale_min > scale_max) where no crop has been encoded yet.
        covariance: (N, 3, 3) float32, m^2, map frame: position covariance of x_world.
    """

    x_world: Tensor
    view_directions: Tensor
    views: Tensor
    scale_min: Tensor
    scale_max: Tensor
    covariance: Tensor

    @cached_property
    def language_points(self) -> int:
        """Number of points at which at least one crop has been encoded."""
        return int((self.scale_min <= self.scale_max).sum())

    @property
    def has_language(self) -> bool:
        """Whether any point can be asked yet."""
        return self.language_points > 0


class AskedSurface(Protocol):
    """Points that know how well texts fit them."""

    @property
    def points(self) -> SurfacePoints: ...

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T) of the N points, seen at the scales (S,) in metres, or at (S, N), for each point its own,
        with the unit text_embeds (T, D)."""
        ...


class SemanticSurface(AskedSurface, Protocol):
    """What a question needs. The trained map and the voxel baseline both give one."""

    def closer(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """The surface inside balls with centres (L, 3) m, map frame, and radii (L,) m, with up to max_points points
        each: ball by ball, as many at a time as memory allows. Nothing at all where there is no more to see."""
        ...

    @property
    def keyframe_crops(self) -> KeyframeCrops | None:
        """The single crops beside it; None where `similarity` says it all."""
        ...


class Closer(NamedTuple):
    """A closer look at several places, a ball each: their points, place by place. Of what fills places up nothing is
    supervised; places beyond those asked for are empty. Calls of functions of it, whose shapes are those of its points,
    are captured, where a GPU looks as often as that pays."""

    surface: AskedSurface
    places: Places
    calls: CapturedCalls
