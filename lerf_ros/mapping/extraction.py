"""Surface points of the trained map: well spread over the keyframes, at the median depth of rendered rays."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.crop_means import ScaledEmbeds
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures, asked_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import render_rays
from lerf_ros.mapping.rays import rays_of_slots
from lerf_ros.mapping.sight import best_views, seen_by
from lerf_ros.mapping.surface import SurfacePoints, local_normals
from lerf_ros.render.volume import depth_spread, median_depth, opacity

_OVERSAMPLING = 2  # rays per point asked for: some are gated away, some fall into a cell that is taken
_LEAST_CROP = 0.2  # of a closer look's radius: smaller crops show less than what can be told apart there


@dataclass(frozen=True)
class MapSurface:
    """A `SemanticSurface` of the trained map.

    Attributes:
        points: N surface points.
        features: what each point's own ray knows about language: the quantity that training supervised.
        source: where they come from, for a closer look.
        crops: in a closer look, what close-ups say about each point ...
        crop_shares: ... and how much that counts beside the field, (N,).
    """

    points: SurfacePoints
    features: LanguageFeatures
    source: SurfaceSource
    crops: ScaledEmbeds | None = None
    crop_shares: Tensor | None = None

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T); with crops, the weighted mean of the field's and theirs."""
        similarity = self.features.similarity(scales, text_embeds)
        if self.crops is None or self.crop_shares is None:
            return similarity
        return torch.lerp(similarity, self.crops.similarity(scales, text_embeds), self.crop_shares[:, None])

    def closer(self, centre: NDArray[np.float64], radius: float, max_points: int) -> MapSurface | None:
        """The surface inside a ball, as densely as the keyframes show it; see `SurfaceSource.around`."""
        return self.source.around(centre, radius, max_points)


class SurfaceSource:
    """Casts rays of the keyframes into the trained map and keeps the clear hits.

    A hit is clear when the ray's opacity is high and its weight lies in one place: at silhouettes the weight is split
    between two surfaces.
    """

    def __init__(
        self,
        fields: MapFields,
        config: MapperConfig,
        bounds: SceneBounds,
        store: KeyframeStore,
        close_ups: CloseUps | None = None,
    ) -> None:
        assert fields.language is not None
        self._fields, self._config, self._bounds, self._store = fields, config, bounds, store
        self._close_ups = close_ups

    def everywhere(self, max_points: int) -> MapSurface:
        """Points spread over all that the keyframes see, at most one per cell of `surface.spacing`. Where the cells
        hold more than `max_points`, an even random share is kept."""
        slots, uv = _spread_pixels(self._store, _OVERSAMPLING * max_points)
        every = torch.arange(len(self._store), device=uv.device)
        return self._cast(slots, uv, self._config.surface.spacing, max_points, every)

    def around(self, centre: NDArray[np.float64], radius: float, max_points: int) -> MapSurface | None:
        """Points of the surface inside a ball, evenly spaced; from the keyframes that show it best.

        The field blurs what is smaller than its cells. Here, where points are few, close-ups of those keyframes are
        asked as well, where there are any.

        Args:
            centre: (3,) m, map frame: a point of the surface.
            radius: m.
            max_points: at most so many.
        Returns:
            None where no keyframe sees the centre.
        """
        store, centre_ = self._store, torch.from_numpy(np.asarray(centre, np.float64)).to(self._store.poses)
        slots, centre_uv, px_per_m = best_views(store, centre_, radius, self._config.close_up.views)
        if len(slots) == 0:
            return None
        radius_px = radius * px_per_m
        side = math.ceil((_OVERSAMPLING * max_points / len(slots)) ** 0.5)
        offsets = (torch.arange(side, device=store.images.device) + 0.5) / side * 2 - 1  # of the radius
        v, u = torch.meshgrid(offsets, offsets, indexing="ij")
        grid = torch.stack([u, v], dim=-1).reshape(-1, 2)
        uv = centre_uv[:, None] + radius_px[:, None, None] * grid
        of_ray, uv = slots.repeat_interleave(len(grid)), uv.reshape(-1, 2)
        inside = ((uv >= 0) & (uv <= uv.new_tensor([store.camera.width - 1, store.camera.height - 1]))).all(dim=1)
        spacing = radius * (math.pi / max_points) ** 0.5
        surface = self._cast(of_ray[inside], uv[inside], spacing, max_points, slots, (centre_, radius))
        if self._close_ups is None:
            return surface
        points = surface.points
        means, seen = self._close_ups.means(points.x_world, slots, _LEAST_CROP * radius_px)
        scale_min, scale_max = means.scale_range()
        points = replace(
            points,
            scale_min=torch.minimum(points.scale_min, scale_min),
            scale_max=torch.maximum(points.scale_max, scale_max),
        )
        shares = torch.where(seen, self._config.close_up.share, 0.0)
        return replace(surface, points=points, crops=means[:], crop_shares=shares)

    @torch.no_grad()
    def _cast(
        self,
        slots: Tensor,
        uv: Tensor,
        spacing: float,
        max_points: int,
        known_to: Tensor,
        ball: tuple[Tensor, float] | None = None,
    ) -> MapSurface:
        """Rays of the pixels uv (R, 2) of keyframes slots (R,): their clear hits, thinned out to the spacing, m, and
        what the keyframes known_to (V,) know of them."""
        language, store, settings = self._fields.language, self._store, self._config.surface
        assert language is not None
        rays, _ = rays_of_slots(store, slots, uv, self._bounds)
        t, clear, features = [], [], []
        for marched in render_rays(self._fields, self._config, rays):
            weights, t_edges = marched.weights, marched.t_edges
            t_median = median_depth(weights, t_edges)
            spread = depth_spread(weights, t_edges) / t_median.clamp_min(1e-6)
            t.append(t_median)
            clear.append((opacity(weights) > settings.min_opacity) & (spread < settings.max_spread))
            features.append(asked_features(language, marched, self._config.language))
        x_world = store.poses[slots, :3, 3] + torch.cat(t).double()[:, None] * rays.directions.double()
        usable = torch.cat(clear)
        if ball is not None:
            centre, radius = ball
            usable = usable & ((x_world - centre).norm(dim=-1) <= radius)
        hits = usable.nonzero()[:, 0]
        hits = hits[_one_per_cell(x_world[hits], spacing)]
        hits = hits[torch.linspace(0, len(hits) - 1, min(len(hits), max_points), device=hits.device).long()]
        crop_scale = CropScale(self._config.language.scale, store.layout, self._bounds.radius)
        points = _observed(x_world[hits], rays.directions[hits], store, known_to, self._config, crop_scale)
        return MapSurface(points, LanguageFeatures.cat(features)[hits], self)


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


def _one_per_cell(x_world: Tensor, size: float) -> Tensor:
    """Indices, in random order, of one point per occupied cell of edge `size` metres."""
    order = torch.randperm(len(x_world), device=x_world.device)
    cells = torch.floor(x_world[order] / size).long()
    _, cell = torch.unique(cells, dim=0, return_inverse=True)
    first = torch.full((len(order),), len(order), device=order.device)
    first.scatter_reduce_(0, cell, torch.arange(len(order), device=order.device), "amin")
    return order[first[first < len(order)].sort().values]


def _observed(
    x_world: Tensor,
    own_directions: Tensor,
    store: KeyframeStore,
    slots: Tensor,
    config: MapperConfig,
    crop_scale: CropScale,
) -> SurfacePoints:
    """What the keyframes slots (V,) say about points (N, 3): how many see each, from where, and at which scales.

    A point that no keyframe sees is known from its own ray only, with no supervised scale.
    """
    N, device = len(x_world), x_world.device
    crop_px = store.layout.sizes
    views = torch.zeros(N, dtype=torch.int64, device=device)
    directions = own_directions.clone()
    scale_min, scale_max = torch.full((N,), torch.inf, device=device), torch.zeros(N, device=device)
    for slot, only in zip(slots.tolist(), slots.split(1), strict=True):
        _, depth_z, sees = (seen[0] for seen in seen_by(store, only, x_world))
        offsets = (x_world - store.poses[slot, :3, 3]).float()
        views += sees
        directions += torch.where(sees[:, None], offsets, 0)
        if store.host_valid[slot].any():
            sizes = crop_px[store.host_valid[slot]]
            t = torch.linalg.vector_norm(offsets, dim=-1).clamp_min(1e-6)
            low, high = crop_scale.asked(float(sizes[0]), float(sizes[-1]), t, depth_z / t, store.intrinsics[slot, 1])
            scale_min = torch.where(sees, torch.minimum(scale_min, low), scale_min)
            scale_max = torch.where(sees, torch.maximum(scale_max, high), scale_max)
    directions = normalize(directions, dim=-1)
    normals = local_normals(x_world, directions, config.surface.neighbours)
    return SurfacePoints(x_world, normals, directions, views, scale_min, scale_max)
