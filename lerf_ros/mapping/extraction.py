"""Surface points of the trained map: well spread over the keyframes, at the median depth of rendered rays."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.neighbours import Places
from lerf_ros.host import on_device
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.crop_means import ScaledEmbeds
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures, asked_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframe_crops import KeyframeCrops
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import render_rays
from lerf_ros.mapping.observation import observed, scales_per_metre
from lerf_ros.mapping.rays import rays_of_slots
from lerf_ros.mapping.sight import Views, best_views
from lerf_ros.mapping.surface import Closer, SurfacePoints

_OVERSAMPLING = 2  # rays per point asked for: some are gated away, some fall into a cell that is taken
_LEAST_CROP = 0.2  # of a closer look's radius: smaller crops show less than what can be told apart there
_PLACES_AT_ONCE = 16  # closer looks ...
_CROP_MEANS_AT_ONCE = 2**25  # ... and floats of their means
_CELLS_ACROSS = 2**21 - 9  # a prime: cells that are fewer apart along each axis have different numbers
_NOWHERE = -(2**63)  # the number of no cell


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

    def closer(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """The surface inside balls, as densely as the keyframes show it; see `SurfaceSource.around`."""
        return self.source.around(centres, radii, max_points)

    @property
    def keyframe_crops(self) -> KeyframeCrops | None:
        """The single crops of the keyframes; None without close-ups: the field is to be asked alone then."""
        return self.source.keyframe_crops


@dataclass(frozen=True)
class _Hits:
    """Where R rays hit the surface, whether clearly (R,), their directions, and what they know about language."""

    x_world: Tensor
    clear: Tensor
    directions: Tensor
    features: LanguageFeatures


class SurfaceSource:
    """Casts rays of the keyframes into the trained map and keeps the clear hits.

    A hit is clear when the ray's opacity is high and its weight lies in one place: at silhouettes the weight is split
    between two surfaces. It is then moved to where the keyframes measured the surface, if they did so close by.
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
        self._crop_scale = CropScale(config.language.scale, store.layout, bounds.radius)
        self.keyframe_crops = KeyframeCrops(store) if close_ups is not None else None
        self._ranges = scales_per_metre(store, self._crop_scale)  # of the crops that there are by now

    @torch.no_grad()
    def everywhere(self, max_points: int) -> MapSurface:
        """Points spread over all that the keyframes see, at most one per cell of `surface.spacing`. Where the cells
        hold more than `max_points`, an even random share is kept."""
        hits = self._cast(*_spread_pixels(self._store, _OVERSAMPLING * max_points))
        cells = hits.x_world / self._config.surface.spacing
        kept, places = _one_per_cell(cells[None], hits.clear[None], max_points)
        kept = kept[: int(places.sizes)]
        every = torch.arange(len(self._store), device=kept.device)[:, None]
        points = observed(
            self._store, self._ranges, self._crop_scale, hits.x_world[kept], hits.directions[kept], every, every >= 0
        )
        return MapSurface(points, hits.features[kept], self)

    @torch.no_grad()
    def around(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """Points of the surface inside balls, evenly spaced; from the keyframes that show each best.

        The field blurs what is smaller than its cells. Here, where points are few, close-ups of those keyframes are
        asked as well, where there are any.

        Args:
            centres: (L, 3) m, map frame: points of the surface.
            radii: (L,) m.
            max_points: at most so many in each.
        """
        device, close_up = self._store.images.device, self._config.close_up
        at_once = max(1, _CROP_MEANS_AT_ONCE // (max_points * close_up.scale_bins * self._store.embed_dim))
        at_once = min(at_once, _PLACES_AT_ONCE, self._close_ups.places if self._close_ups else _PLACES_AT_ONCE)
        centres, radii = on_device(centres.double(), device), on_device(radii.float(), device)
        for part in zip(centres.split(at_once), radii.split(at_once), strict=True):
            yield self._around(*part, max_points)

    def _around(self, centres: Tensor, radii: Tensor, max_points: int) -> Closer:
        """As `around`, of all places at once. How many points there are, the host never asks."""
        store = self._store
        views = best_views(store, centres, radii, self._config.close_up.views)
        slots, uv, within = _dense_pixels(store, views, radii, max_points)
        hits = self._cast(slots.flatten(), uv.flatten(0, 1))
        x_world, clear = hits.x_world.unflatten(0, slots.shape), hits.clear.view_as(slots)
        inside = (x_world - centres[:, None]).norm(dim=-1) <= radii[:, None]
        spacing = radii * (math.pi / max_points) ** 0.5
        kept, places = _one_per_cell(x_world / spacing[:, None, None], clear & inside & within, max_points)
        exists = places.exists.flatten()
        x_world = torch.where(exists[:, None], hits.x_world[kept], places.each(centres))
        slots, known = places.each(views.slots.T).T, places.each(views.known.T).T & exists
        points = observed(store, self._ranges, self._crop_scale, x_world, hits.directions[kept], slots, known)
        surface = MapSurface(points, hits.features[kept], self)
        if self._close_ups is None:
            return Closer(surface, places)
        least_px = places.each((_LEAST_CROP * radii * views.px_per_m).T).T
        means = self._close_ups.means(points.x_world, slots, known, least_px)
        points = replace(
            points,
            scale_min=torch.minimum(points.scale_min, means.scale_min),
            scale_max=torch.maximum(points.scale_max, means.scale_max),
        )
        shares = torch.where(means.seen, self._config.close_up.share, 0.0)
        return Closer(replace(surface, points=points, crops=means.embeds, crop_shares=shares), places)

    def _cast(self, slots: Tensor, uv: Tensor) -> _Hits:
        """Where rays of the pixels uv (R, 2) of keyframes slots (R,) hit the surface."""
        language, store, settings = self._fields.language, self._store, self._config.surface
        assert language is not None
        rays, _ = rays_of_slots(store, slots, uv, self._bounds)
        t, clear, features = [], [], []
        for rendered in render_rays(self._fields, self._config, rays):
            ends = rendered.ends
            t.append(ends.t_median)
            spread = ends.spread / ends.t_median.clamp_min(1e-6)
            clear.append((ends.opacity > settings.min_opacity) & (spread < settings.max_spread))
            features.append(asked_features(language, rendered.march, self._config.language))
        x_world = store.poses[slots, :3, 3] + torch.cat(t).double()[:, None] * rays.directions.double()
        return _Hits(x_world, torch.cat(clear), rays.directions, LanguageFeatures.cat(features))


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


def _dense_pixels(store: KeyframeStore, views: Views, radii: Tensor, max_points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of the views (V, L) of places with radii (L,), R of each place: slots (L, R), uv (L, R, 2) and within
    (L, R), whether there is such a pixel.

    Where fewer than V keyframes show a place, they are taken again, between their former pixels.
    """
    (count, L), device = views.slots.shape, radii.device
    number = views.known.sum(dim=0)
    turn, every = torch.arange(count, device=device)[:, None], torch.arange(L, device=device)
    again, view = turn // number.clamp_min(1), turn % number.clamp_min(1)  # (V, L)
    side = math.ceil((_OVERSAMPLING * max_points / count) ** 0.5)
    axis = (np.arange(side) + 0.5) / side * 2 - 1  # of the radius
    grid = on_device(np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2).astype(np.float32), device)
    radius_px = (radii * views.px_per_m[view, every])[..., None, None]
    shift = (2 / side / count * again)[..., None, None]
    uv = views.uv[view, every][..., None, :] + radius_px * (grid + shift)  # (V, L, side^2, 2)
    uv = uv.transpose(0, 1).flatten(1, 2)
    last = on_device(np.array([store.camera.width - 1, store.camera.height - 1], np.float32), device)
    within = ((uv >= 0) & (uv <= last)).all(dim=-1) & (number > 0)[:, None]
    slots = views.slots[view, every].T.repeat_interleave(len(grid), dim=1)
    return slots, uv.clamp_min(0).minimum(last), within


def _one_per_cell(cells: Tensor, clear: Tensor, most: int) -> tuple[Tensor, Places]:
    """One clear hit per occupied cell, in random order, at most so many in each of L places.

    Args:
        cells: (L, R, 3) coordinates of hits, in cells.
        clear: (L, R) bool; others occupy nothing.

    Returns:
        Indices of the L R hits, one for each point of the places that they make up.
    """
    (L, R), device = clear.shape, clear.device
    order = torch.randperm(L * R, device=device)
    place, clear = order // R, clear.flatten()[order]
    number = torch.zeros_like(order)
    for coordinate in (*torch.floor(cells.flatten(0, 1)[order]).long().unbind(dim=1), place):
        number = _CELLS_ACROSS * number + coordinate
    number, rank = torch.where(clear, number, _NOWHERE).sort(stable=True)
    is_first = F.pad(number[1:] != number[:-1], (1, 0), value=True) & (number != _NOWHERE)
    # Those that are, place by place, as the order has them: a key each, and one beyond all others for the rest.
    keys = torch.where(is_first, L * R * place[rank] + rank, L * R * L).sort().values
    starts = torch.searchsorted(keys, L * R * torch.arange(L + 1, device=device))
    sizes = starts.diff().clamp_max(most)
    if device.type == "cpu":  # it knows the sizes: no work for points that are not there
        most = max(1, int(sizes.max()))
    turn = starts[:-1, None] + torch.arange(most, device=device)
    return order[keys[turn.clamp_max(L * R - 1)] % (L * R)].flatten(), Places(sizes, most)
