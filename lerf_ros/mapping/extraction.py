"""Surface points of the trained map: well spread over the keyframes, at the median depth of rendered rays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures, asked_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import render_rays
from lerf_ros.mapping.rays import rays_of_slots
from lerf_ros.mapping.surface import SurfacePoints, local_normals
from lerf_ros.render.volume import depth_spread, median_depth, opacity

_OVERSAMPLING = 2  # rays per point asked for: some are gated away, some fall into a cell that is taken
_VISIBLE_WITHIN = 0.05  # of the depth: a keyframe sees a point if it measured this close to it


@dataclass(frozen=True)
class MapSurface:
    """A `SemanticSurface` of the trained map.

    Attributes:
        points: N surface points.
        features: what each point's own ray knows about language: the quantity that training supervised.
    """

    points: SurfacePoints
    features: LanguageFeatures

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T)."""
        return self.features.similarity(scales, text_embeds)


@torch.no_grad()
def extract_surface(
    fields: MapFields, config: MapperConfig, bounds: SceneBounds, store: KeyframeStore, max_points: int
) -> MapSurface:
    """Casts rays from all keyframes and keeps the clear hits, at most one per cell of `surface.spacing`.

    A hit is clear when the ray's opacity is high and its weight lies in one place: at silhouettes the weight is split
    between two surfaces. Where the cells hold more than `max_points`, an even random share is kept.
    """
    assert fields.language is not None
    slots, uv = _spread_pixels(store, _OVERSAMPLING * max_points)
    rays, _ = rays_of_slots(store, slots, uv, bounds)
    t, clear, features = [], [], []
    for marched in render_rays(fields, config, rays):
        weights, t_edges = marched.weights, marched.t_edges
        t_median = median_depth(weights, t_edges)
        spread = depth_spread(weights, t_edges) / t_median.clamp_min(1e-6)
        t.append(t_median)
        clear.append((opacity(weights) > config.surface.min_opacity) & (spread < config.surface.max_spread))
        features.append(asked_features(fields.language, marched, config.language))
    x_world = store.poses[slots, :3, 3] + torch.cat(t).double()[:, None] * rays.directions.double()
    hits = torch.cat(clear).nonzero()[:, 0]
    hits = hits[_one_per_cell(x_world[hits], config.surface.spacing)]
    hits = hits[torch.linspace(0, len(hits) - 1, min(len(hits), max_points), device=hits.device).long()]
    crop_scale = CropScale(config.language.scale, store.layout, bounds.radius)
    points = _observed(x_world[hits], rays.directions[hits], store, config, crop_scale)
    return MapSurface(points, LanguageFeatures.cat(features)[hits])


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
    x_world: Tensor, own_directions: Tensor, store: KeyframeStore, config: MapperConfig, crop_scale: CropScale
) -> SurfacePoints:
    """What the keyframes say about points (N, 3): how many see each, from where, and at which scales.

    A keyframe sees a point inside its image unless it measured something else there; where it measured nothing, the
    image decides alone. A point that no keyframe sees is known from its own ray only, with no supervised scale.
    """
    N, device = len(x_world), x_world.device
    crop_px = np.array([level.crop_px for level in store.layout.levels])
    views = torch.zeros(N, dtype=torch.int64, device=device)
    directions = own_directions.clone()
    scale_min, scale_max = torch.full((N,), torch.inf, device=device), torch.zeros(N, device=device)
    for slot in range(len(store)):
        T, (fx, fy, cx, cy) = store.poses[slot], store.intrinsics[slot]
        x_camera = ((x_world - T[:3, 3]) @ T[:3, :3]).float()
        depth_z = x_camera[:, 2].clamp_min(1e-6)
        u = (fx * x_camera[:, 0] / depth_z + cx).round()
        v = (fy * x_camera[:, 1] / depth_z + cy).round()
        inside = (x_camera[:, 2] > 1e-6) & (u >= 0) & (u < store.camera.width) & (v >= 0) & (v < store.camera.height)
        column, row = torch.where(inside, u, 0).long(), torch.where(inside, v, 0).long()
        measured = store.depth_z[slot, row, column].float()
        sees = inside & ~((measured - depth_z).abs() > _VISIBLE_WITHIN * depth_z)
        views += sees
        directions += torch.where(sees[:, None], (x_world - T[:3, 3]).float(), 0)
        if store.host_valid[slot].any():
            sizes = crop_px[store.host_valid[slot]]
            t = torch.linalg.vector_norm(x_camera, dim=-1).clamp_min(1e-6)
            low, high = crop_scale.asked(float(sizes[0]), float(sizes[-1]), t, depth_z / t, fy)
            scale_min = torch.where(sees, torch.minimum(scale_min, low), scale_min)
            scale_max = torch.where(sees, torch.maximum(scale_max, high), scale_max)
    directions = normalize(directions, dim=-1)
    normals = local_normals(x_world, directions, config.surface.neighbours)
    return SurfacePoints(x_world, normals, directions, views, scale_min, scale_max)
