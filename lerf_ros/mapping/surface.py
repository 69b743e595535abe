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

# Of the depth. A map with depth images falls below it after some 100 training steps and ends near 0.02; without depth
# images it is still above it after 2000.
_CERTAIN_DEPTH = 0.1


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


@dataclass(frozen=True)
class MapState:
    """How far training had come when a query was answered.

    Attributes:
        steps: training steps since the map was begun.
        keyframes: number of keyframes.
        points: number of surface points.
        language_points: number of surface points at which at least one crop has been encoded.
        depth_uncertainty: median over rays of the keyframes of the standard deviation of depth divided by depth.
    """

    steps: int
    keyframes: int
    points: int
    language_points: int
    depth_uncertainty: float

    @property
    def geometry_is_young(self) -> bool:
        """Whether the surface is still too uncertain for most rays of the keyframes."""
        return self.points == 0 or not self.depth_uncertainty <= _CERTAIN_DEPTH

    @property
    def language_is_young(self) -> bool:
        """Whether no crop has been encoded yet for most of the surface."""
        return 2 * self.language_points < self.points


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
