"""Closer looks at places of the map: the surface around them as densely as the keyframes show it, with close-ups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.captured import CapturedCalls
from lerf_ros.geometry.neighbours import Places
from lerf_ros.host import on_device
from lerf_ros.mapping.close_up_means import Sights
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import CloseUpConfig
from lerf_ros.mapping.crop_means import ScaledEmbeds
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures
from lerf_ros.mapping.hits import RayCaster, one_per_cell
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.observation import observed
from lerf_ros.mapping.sight import Views, best_views
from lerf_ros.mapping.surface import Closer, SurfacePoints

OVERSAMPLING = 2  # rays per point asked for: some are gated away, some fall into a cell that is taken
_LEAST_CROP = 0.2  # of a closer look's radius: smaller crops show less than what can be told apart there
_PLACES_AT_ONCE = 16  # ...
_CROP_MEANS_AT_ONCE = 2**25  # ... and floats of their means
_FEWEST_CAPTURED = 4  # places; numbers in between are filled up to a power of two


@dataclass(frozen=True)
class CloserSurface:
    """Points of a closer look.

    Attributes:
        points: N surface points.
        features: what each point's own ray knows about language.
        crops: what close-ups say about each point; None: nothing.
        crop_shares: (N,), how much that counts beside the field.
    """

    points: SurfacePoints
    features: LanguageFeatures
    crops: ScaledEmbeds | None = None
    crop_shares: Tensor | None = None

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T): the weighted mean of the field's and of the crops'."""
        similarity = self.features.similarity(scales, text_embeds)
        if self.crops is None or self.crop_shares is None:
            return similarity
        return torch.lerp(similarity, self.crops.similarity(scales, text_embeds), self.crop_shares[:, None])


class _Look(NamedTuple):
    """What a look at L balls finds before close-ups are asked, and what it will ask them: sights of their crops, and of
    views slots (V L,) the crops needed (V L, total). None without close-ups."""

    points: SurfacePoints
    features: LanguageFeatures
    places: Places
    slots: Tensor
    sights: Sights | None
    needed: Tensor | None
    calls: CapturedCalls


class CloserLooks:
    """Looks at balls around points of the surface; at each from the keyframes that show it best.

    The field blurs what is smaller than its cells. Here, where points are few, close-ups of those keyframes are asked
    as well, where there are any. All that the device does before and after crops are encoded for that has a fixed
    shape: on a GPU it is captured, for a few numbers of balls, to which others are filled up.

    Args:
        ranges: see `observation.scales_per_metre`; read anew at every look.
    """

    def __init__(
        self,
        caster: RayCaster,
        config: CloseUpConfig,
        store: KeyframeStore,
        crop_scale: CropScale,
        ranges: Tensor,
        close_ups: CloseUps | None,
    ) -> None:
        self._caster, self._config, self._store = caster, config, store
        self._crop_scale, self._ranges, self._close_ups = crop_scale, ranges, close_ups
        self._calls = CapturedCalls(store.images.device)
        self._patterns: dict[int, Tensor] = {}  # of pixels, by how many across

    def at(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """Points of the surface inside balls, evenly spaced, as many balls at a time as memory allows.

        Args:
            centres: (L, 3) m, map frame: points of the surface.
            radii: (L,) m.
            max_points: at most so many in each.
        """
        at_once = max(1, _CROP_MEANS_AT_ONCE // (max_points * self._config.scale_bins * self._store.embed_dim))
        at_once = min(at_once, _PLACES_AT_ONCE, self._close_ups.places if self._close_ups else _PLACES_AT_ONCE)
        for part in zip(centres.split(at_once), radii.split(at_once), strict=True):
            look = self._calls(max_points, partial(self._look, max_points), *self._filled_up(*part, at_once))
            if self._close_ups is None or look.needed is None:
                yield Closer(CloserSurface(look.points, look.features), look.places, look.calls)
            else:
                encoded = self._close_ups.encoded(look.slots, look.needed)
                yield look.calls("means", partial(self._with_close_ups, look, self._close_ups), encoded)

    def _filled_up(self, centres: Tensor, radii: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Centres (L, 3), radii (L,) and which of the balls there are: with L, where it matters, one of few numbers."""
        lacking, exists = 0, torch.ones(len(radii), dtype=torch.bool)
        if self._store.images.is_cuda:
            lacking = min(most, max(_FEWEST_CAPTURED, 1 << (len(radii) - 1).bit_length())) - len(radii)
        return (
            F.pad(centres.double(), (0, 0, 0, lacking)),
            F.pad(radii.float(), (0, lacking), value=1.0),
            F.pad(exists, (0, lacking)),
        )

    @torch.no_grad()
    def _look(self, max_points: int, centres: Tensor, radii: Tensor, exists: Tensor) -> _Look:
        store, close_ups = self._store, self._close_ups
        views = best_views(store, centres, radii, self._config.views)
        slots, uv, within = self._pixels(views, radii, max_points)
        hits = self._caster.cast(slots.flatten(), uv.flatten(0, 1))
        x_world, clear = hits.x_world.unflatten(0, slots.shape), hits.clear.view_as(slots)
        inside = (x_world - centres[:, None]).norm(dim=-1) <= radii[:, None]
        spacing = radii * (math.pi / max_points) ** 0.5
        clear = clear & inside & within & exists[:, None]
        kept, places = one_per_cell(x_world / spacing[:, None, None], clear, max_points)
        is_point = places.exists.flatten()
        x_world = torch.where(is_point[:, None], hits.x_world[kept], places.each(centres))
        slots, known = places.each(views.slots.T).T, places.each(views.known.T).T & is_point
        of_hits = x_world, hits.directions[kept], hits.along[kept], hits.across[kept]
        points = observed(store, self._ranges, self._crop_scale, *of_hits, slots, known)
        sights, needed = None, None
        if close_ups is not None:
            least_px = places.each((_LEAST_CROP * radii * views.px_per_m).T).T
            sights = close_ups.sights(points.x_world, slots, known, least_px)
            needed = close_ups.needed(sights)[views.slots.flatten()]
        calls = CapturedCalls(store.images.device)
        return _Look(points, hits.features[kept], places, views.slots.flatten(), sights, needed, calls)

    @torch.no_grad()
    def _with_close_ups(self, look: _Look, close_ups: CloseUps, encoded: Tensor) -> Closer:
        """Its points and what they and close-ups say, of which those are encoded that `CloseUps.encoded` tells."""
        assert look.sights is not None
        means = close_ups.means(look.sights, encoded)
        points = replace(
            look.points,
            scale_min=torch.minimum(look.points.scale_min, means.scale_min),
            scale_max=torch.maximum(look.points.scale_max, means.scale_max),
        )
        shares = torch.where(means.seen, self._config.share, 0.0)
        surface = CloserSurface(points, look.features, means.embeds, shares)
        return Closer(surface, look.places, CapturedCalls(encoded.device))

    def _pixels(self, views: Views, radii: Tensor, max_points: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of the views (V, L) of balls with radii (L,), R of each ball: slots (L, R), uv (L, R, 2) and within
        (L, R), whether there is such a pixel.

        Where fewer than V keyframes show a ball, they are taken again, between their former pixels.
        """
        (count, L), device = views.slots.shape, radii.device
        number = views.known.sum(dim=0)
        turn, every = torch.arange(count, device=device)[:, None], torch.arange(L, device=device)
        again, view = turn // number.clamp_min(1), turn % number.clamp_min(1)  # (V, L)
        side = math.ceil((OVERSAMPLING * max_points / count) ** 0.5)
        pattern = self._pattern(side)
        radius_px = (radii * views.px_per_m[view, every])[..., None, None]
        shift = (2 / side / count * again)[..., None, None]
        uv = views.uv[view, every][..., None, :] + radius_px * (pattern + shift)  # (V, L, side^2, 2)
        u, v = uv.transpose(0, 1).flatten(1, 2).unbind(dim=-1)
        width, height = self._store.camera.width, self._store.camera.height
        within = (u >= 0) & (u <= width - 1) & (v >= 0) & (v <= height - 1) & (number > 0)[:, None]
        slots = views.slots[view, every].T.repeat_interleave(side**2, dim=1)
        return slots, torch.stack([u.clamp(0, width - 1), v.clamp(0, height - 1)], dim=-1), within

    def _pattern(self, side: int) -> Tensor:
        """(side^2, 2), a square grid around 0, as wide as a ball of radius 1; made once: captured work reads it."""
        if side not in self._patterns:
            axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
            pattern = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
            self._patterns[side] = on_device(pattern, self._store.images.device)
        return self._patterns[side]
