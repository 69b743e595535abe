"""What close-ups say about points: which of their crops lie around them, and the means of those over keyframes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.features.pyramid import Corners, PyramidLayout
from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.crop_means import CropMeans, ScaledEmbeds

CELL = 4  # px, of the picture of what is in front
BEHIND = 0.4  # of a crop's side: what lies farther behind the front is not what the crop is about
_READ = 2**20  # floats of embeddings at a time: a CPU's cache holds them


class Sights(NamedTuple):
    """N points in V keyframes slots (V, N): uv (V, N, 2) px and depth_z (V, N) m there, sees (V, N) bool, whether the
    keyframe is asked about the point, and least_px (V, N): in crops of this size and larger, and in the largest."""

    slots: Tensor
    uv: Tensor
    depth_z: Tensor
    sees: Tensor
    least_px: Tensor


@dataclass(frozen=True)
class Pyramids:
    """Close-ups of keyframes, as far as they are encoded.

    Attributes:
        layout: of the crops, of L sizes.
        embeds: (R, total, D), ...
        front: (R, L, h, w) m: of every `CELL`-th pixel and each crop size, the least depth in the middle of a crop.
        focal_px: (K,) of the keyframes.
        log_scales, scales: (B,) of the bins that embeddings are averaged in, and their exponential, m.
    """

    layout: PyramidLayout
    embeds: Tensor
    front: Tensor
    focal_px: Tensor
    log_scales: Tensor
    scales: Tensor


class Means(NamedTuple):
    """Crop embeddings of N points, averaged over views, by physical scale: embeds; counts (N, B), how many are in each
    bin; scale_min, scale_max (N,) m of those bins that are not empty (min > max: all are); seen (N,) bool, whether a
    keyframe sees the point."""

    embeds: ScaledEmbeds
    counts: Tensor
    scale_min: Tensor
    scale_max: Tensor
    seen: Tensor


def needed_crops(sights: Sights, layout: PyramidLayout, keyframes: int) -> Tensor:
    """(keyframes, total) bool: which crops `means` reads. Where our kernels run, one launch finds them."""
    if runs_kernels(sights.uv.device):
        from lerf_ros.mapping.close_up_means_triton import needed_triton  # not everywhere installed

        return needed_triton(sights, layout, keyframes)
    return needed_torch(sights, layout, keyframes)


def means(sights: Sights, pyramids: Pyramids, of_slot: Tensor) -> Means:
    """Means of the crops that are about the points.

    A crop is about what is in front at its middle. It says nothing about a wall that is seen past the edge of a mug, or
    through its handle: such a point has only the smaller crops. Where our kernels run, one launch does it all, and
    agrees to rounding.

    Args:
        of_slot: (K, 1 + L) int64 of keyframes: the row of its close-ups, and of each size whether all crops that
            `needed_crops` named are encoded; others count as if they were not there.
    """
    if runs_kernels(sights.uv.device):
        from lerf_ros.mapping.close_up_means_triton import means_triton

        return means_triton(sights, pyramids, of_slot)
    return means_torch(sights, pyramids, of_slot)


def asked(sights: Sights, layout: PyramidLayout) -> Tensor:
    """(V, N, L) bool: which crop sizes are asked about each point."""
    sizes = layout.sizes_on(sights.uv.device)
    return sights.sees[..., None] & ((sights.least_px[..., None] <= sizes) | (sizes == sizes[-1]))


def needed_torch(sights: Sights, layout: PyramidLayout, keyframes: int) -> Tensor:
    """Reference backend of `needed_crops`."""
    crops = layout.corners(sights.uv.flatten(0, 1)).crops.unflatten(0, sights.slots.shape)
    number = sights.slots[..., None, None] * layout.total + crops
    needed = torch.zeros(keyframes * layout.total, dtype=torch.bool, device=crops.device)
    needed[number[asked(sights, layout)]] = True
    return needed.view(keyframes, -1)


def means_torch(sights: Sights, pyramids: Pyramids, of_slot: Tensor) -> Means:
    """Reference backend of `means`."""
    layout, (N, D) = pyramids.layout, (sights.slots.shape[1], pyramids.embeds.shape[-1])
    row, encoded = of_slot[sights.slots].split([1, len(layout.levels)], dim=-1)
    scales = layout.sizes_on(row.device) * (sights.depth_z / pyramids.focal_px[sights.slots])[..., None]
    counts = asked(sights, layout) & (encoded > 0) & _in_front(sights, pyramids, row[..., 0], scales)
    points = torch.arange(N, device=row.device).expand(sights.slots.shape)
    sums = CropMeans(N, D, pyramids.log_scales)
    at_once = max(1, _READ // (4 * len(layout.levels) * D))
    of_sights = (
        *layout.corners(sights.uv.flatten(0, 1)),
        *(x.flatten(0, 1) for x in (row[..., 0], points, scales, counts)),
    )
    for crops, shares, slot, point, scale, count in zip(*(each.split(at_once) for each in of_sights), strict=True):
        embeds = layout.at_levels(pyramids.embeds, slot, Corners(crops, shares))
        sums.add(point[:, None].expand_as(scale), embeds, scale, count.float())
    return Means(sums[:], sums.counts, *sums.scale_range(), sights.sees.any(dim=0))


def _in_front(sights: Sights, pyramids: Pyramids, row: Tensor, scales: Tensor) -> Tensor:
    """(V, N, L) bool: whether points belong to what crops around them are about."""
    last_v, last_u = pyramids.front.shape[2] - 1, pyramids.front.shape[3] - 1
    u, v = (sights.uv / CELL).clamp_min(0).long().unbind(dim=-1)
    front = pyramids.front.permute(0, 2, 3, 1)[row, v.clamp_max(last_v), u.clamp_max(last_u)]
    return sights.depth_z[..., None] - front <= BEHIND * scales
