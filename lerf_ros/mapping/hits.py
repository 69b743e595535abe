"""Where rays of the keyframes hit the mapped surface, and an even share of the hits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.covariance import pixel_deviation
from lerf_ros.geometry.neighbours import Places
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.decoding import LanguageFeatures, asked_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import render_rays
from lerf_ros.mapping.rays import rays_of_slots

_CELLS_ACROSS = 2**21 - 9  # a prime: cells that are fewer apart along each axis have different numbers
_NOWHERE = -(2**63)  # the number of no cell


@dataclass(frozen=True)
class Hits:
    """Where R rays hit the surface.

    Attributes:
        x_world: (R, 3) float64, metres, map frame.
        clear: (R,) bool, see `RayCaster`.
        directions: (R, 3) unit, map frame.
        features: what the rays know about language.
        t: (R,) metres along the ray, median depth.
        along, across: (R,) metres, standard deviations of the position along the ray and perpendicular to it.
    """

    x_world: Tensor
    clear: Tensor
    directions: Tensor
    features: LanguageFeatures
    t: Tensor
    along: Tensor
    across: Tensor

    @property
    def depth_uncertainty(self) -> Tensor:
        """Median over all R rays, clear or not, of the standard deviation of depth divided by depth: a scalar."""
        return (self.along / self.t.clamp_min(1e-6)).median()


class RayCaster:
    """Casts rays of the keyframes into the trained map.

    A hit is clear when the ray's opacity is high and its weight lies in one place: at silhouettes the weight is split
    between two surfaces.
    """

    def __init__(self, fields: MapFields, config: MapperConfig, bounds: SceneBounds, store: KeyframeStore) -> None:
        assert fields.language is not None
        self._fields, self._language = fields, fields.language
        self._config, self._bounds, self._store = config, bounds, store

    @torch.no_grad()
    def cast(self, slots: Tensor, uv: Tensor) -> Hits:
        """Where rays of the pixels uv (R, 2) of keyframes slots (R,) hit the surface."""
        store, settings = self._store, self._config.surface
        rays, _ = rays_of_slots(store, slots, uv, self._bounds)
        depths, spreads, clear, features = [], [], [], []
        for rendered in render_rays(self._fields, self._config, rays):
            ends = rendered.ends
            depths.append(ends.t_median)
            spreads.append(ends.spread)
            spread = ends.spread / ends.t_median.clamp_min(1e-6)
            clear.append((ends.opacity > settings.min_opacity) & (spread < settings.max_spread))
            features.append(asked_features(self._language, rendered.march, self._config.language))
        t = torch.cat(depths)
        x_world = store.poses[slots, :3, 3] + t.double()[:, None] * rays.directions.double()
        across = pixel_deviation(t, store.intrinsics[slots, 1])
        known = torch.cat(clear), rays.directions, LanguageFeatures.cat(features)
        return Hits(x_world, *known, t, torch.cat(spreads), across)


def one_per_cell(cells: Tensor, clear: Tensor, most: int) -> tuple[Tensor, Places]:
    """One clear hit per occupied cell, in random order, at most so many in each of L places. The device is not asked
    how many these are.

    Args:
        cells: (L, R, 3) coordinates of hits, in cells.
        clear: (L, R) bool; others occupy nothing.

    Returns:
        Indices of the L R hits, one for each point of the places that they make up.
    """
    (L, R), device = clear.shape, clear.device
    order = torch.rand(L * R, device=device).argsort()
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
    if device.type == "cpu":  # which knows the sizes: no work for points that are not there
        most = max(1, int(sizes.max()))
    turn = starts[:-1, None] + torch.arange(most, device=device)
    return order[keys[turn.clamp_max(L * R - 1)] % (L * R)].flatten(), Places(sizes, most)
