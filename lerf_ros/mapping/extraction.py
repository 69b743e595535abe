"""Surface points of the trained map: well spread over the keyframes, at the median depth of rendered rays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.closer_looks import OVERSAMPLING, CloserLooks
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.hits import RayCaster, one_per_cell
from lerf_ros.mapping.keyframe_crops import KeyframeCrops
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.observation import observed, scales_per_metre
from lerf_ros.mapping.surface import Closer, MapState, SurfacePoints


@dataclass(frozen=True)
class MapSurface:
    """A `SemanticSurface` of the trained map.

    Attributes:
        points: N surface points.
        features: what each point's own ray knows about language: the quantity that training supervised.
        source: where they come from, for a closer look.
        depth_uncertainty: see `Hits.depth_uncertainty`.
    """

    points: SurfacePoints
    features: LanguageFeatures
    source: SurfaceSource
    depth_uncertainty: float

    def state(self, steps: int, keyframes: int) -> MapState:
        """State of the map with this surface, after so many training steps on so many keyframes."""
        points = self.points
        return MapState(steps, keyframes, len(points.views), points.language_points, self.depth_uncertainty)

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T)."""
        return self.features.similarity(scales, text_embeds)

    def closer(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """The surface inside balls, as densely as the keyframes show it; see `CloserLooks.at`."""
        return self.source.closer_looks.at(centres, radii, max_points)

    @property
    def keyframe_crops(self) -> KeyframeCrops | None:
        """The single crops of the keyframes; None without close-ups: the field is to be asked alone then."""
        return self.source.keyframe_crops


class SurfaceSource:
    """Casts rays of the keyframes into the trained map and keeps the clear hits, each moved to where the keyframes
    measured the surface, if they did so close by.

    Attributes:
        close_ups: what a closer look asks beside the field; None: nothing.
        closer_looks: that look.
        keyframe_crops: None without close-ups.
    """

    def __init__(
        self,
        fields: MapFields,
        config: MapperConfig,
        bounds: SceneBounds,
        store: KeyframeStore,
        close_ups: CloseUps | None = None,
    ) -> None:
        self._spacing, self._store, self.close_ups = config.surface.spacing, store, close_ups
        self._caster = RayCaster(fields, config, bounds, store)
        self._crop_scale = CropScale(config.language.scale, store.layout, bounds.radius)
        self._ranges = scales_per_metre(store, self._crop_scale)
        self.closer_looks = CloserLooks(self._caster, config.close_up, store, self._crop_scale, self._ranges, close_ups)
        self.keyframe_crops = KeyframeCrops(store) if close_ups is not None else None

    @torch.no_grad()
    def everywhere(self, max_points: int) -> MapSurface:
        """Points spread over all that the keyframes see, at most one per cell of `surface.spacing`. Where the cells
        hold more than `max_points`, an even random share is kept."""
        store = self._store
        self._ranges.copy_(scales_per_metre(store, self._crop_scale))  # more crops may be encoded by now
        hits = self._caster.cast(*_spread_pixels(store, OVERSAMPLING * max_points))
        kept, places = one_per_cell(hits.x_world[None] / self._spacing, hits.clear[None], max_points)
        kept = kept[: int(places.sizes)]
        every = torch.arange(len(store), device=kept.device)[:, None]
        of_hits = hits.x_world[kept], hits.directions[kept], hits.along[kept], hits.across[kept]
        points = observed(store, self._ranges, self._crop_scale, *of_hits, every, every >= 0)
        return MapSurface(points, hits.features[kept], self, float(hits.depth_uncertainty))


def _spread_pixels(store: KeyframeStore, count: int) -> tuple[Tensor, Tensor]:
    """About `count` pixels, equally many from every keyframe: slots (R,) and uv (R, 2) on jittered grids, so that the
    grids of keyframes that see the same surface do not coincide."""
    camera, device = store.camera, store.images.device
    step = max(1.0, (camera.width * camera.height * len(store) / count) ** 0.5)
    v, u = torch.meshgrid(
        torch.arange(0, camera.height, step, device=device),
        torch.arange(0, camera.width, step, device=device),
        indexing="ij",
    )
    uv = torch.stack([u, v], dim=-1).reshape(1, -1, 2) + step * torch.rand(len(store), u.numel(), 2, device=device)
    last = torch.tensor([camera.width - 1, camera.height - 1], device=device)
    slots = torch.arange(len(store), device=device).repeat_interleave(u.numel())
    return slots, torch.minimum(uv.reshape(-1, 2), last)
