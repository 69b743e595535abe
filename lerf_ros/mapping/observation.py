"""What keyframes say about points of the surface: where exactly they are, who sees them, and at which scales."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.geometry.covariance import position_covariance
from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.decoding import CropScale
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import seen_by_torch
from lerf_ros.mapping.surface import SurfacePoints

_MEASURED_WITHIN = 0.01  # of the depth: a point is moved to what was measured this close to it
_CORRELATION = 0.1  # of the errors of stereo in two keyframes: the same texture misleads both
_VIEWS_AT_ONCE = 16  # keyframes that are asked about all points together
_ACROSS = (
    1.0 / 3.0
)  # of the deviation along the ray: how far beside the ray a surface with a slant of 18 degrees is nearest


def observed(
    store: KeyframeStore,
    ranges: Tensor,
    crop_scale: CropScale,
    x_world: Tensor,
    own_directions: Tensor,
    along: Tensor,
    across: Tensor,
    slots: Tensor,
    known: Tensor,
) -> SurfacePoints:
    """Points (N, 3) hit by rays along own_directions (N, 3), as the keyframes slots (V, 1) or (V, N), where known (of
    the same shape), see them.

    A point is moved to the mean of what n keyframes measured close to it. The variance of its distance along the rays
    is then ``m / n + v (rho + (1 - rho) / n)``: m is the variance of these measurements about their mean, v the mean of
    the variances that stereo gives them, and rho the correlation of the errors of stereo. Else it is the variance of
    where the rendered ray ends.

    A point that no keyframe sees, or that more keyframes have measured to be free space than to be a surface, has no
    supervised scale: it is not asked about. Where our kernels run, one launch asks all keyframes, and agrees to
    rounding.

    Args:
        ranges: see `scales_per_metre`.
        along, across: (N,) m, standard deviation of where the rendered rays end, and `pixel_deviation` there.
    """
    if runs_kernels(x_world.device):
        from lerf_ros.mapping.observation_triton import observed_triton  # not everywhere installed

        kind = crop_scale.kind
        of_points = x_world, own_directions, slots, known
        found = Observed(*observed_triton(store, ranges, kind, *of_points, _MEASURED_WITHIN, _CORRELATION))
    else:
        found = observed_torch(store, ranges, crop_scale, x_world, own_directions, slots, known)
    measured = (found.variance + across.square()).sqrt()
    deviation = torch.where(found.variance.isnan(), along, measured)
    covariance = position_covariance(found.directions, deviation, _ACROSS * deviation)
    return SurfacePoints(found.x_world, found.directions, found.views, found.scale_min, found.scale_max, covariance)


class Observed(NamedTuple):
    """N points as keyframes see them: x_world, directions, views, scale_min and scale_max as in `SurfacePoints`, and
    variance (N,) m^2 of the mean distance that keyframes measured along their rays; NaN: none did."""

    x_world: Tensor
    directions: Tensor
    views: Tensor
    scale_min: Tensor
    scale_max: Tensor
    variance: Tensor


def scales_per_metre(store: KeyframeStore, crop_scale: CropScale) -> Tensor:
    """(2, capacity) of the store's slots: smallest and largest scale of a point that is a metre away and was trained
    with the crops of that keyframe; inf and 0 where none is encoded."""
    valid, sizes = store.valid, store.layout.sizes_on(store.valid.device)
    smallest = torch.where(valid, sizes, torch.inf).amin(dim=1)
    largest = torch.where(valid, sizes, 0.0).amax(dim=1)
    one = torch.ones_like(largest)
    low, high = crop_scale.asked(smallest, largest, one, one, store.intrinsics[:, 1])
    return torch.stack([torch.where(largest > 0, low, torch.inf), torch.where(largest > 0, high, 0.0)])


def observed_torch(
    store: KeyframeStore,
    ranges: Tensor,
    crop_scale: CropScale,
    x_world: Tensor,
    own_directions: Tensor,
    slots: Tensor,
    known: Tensor,
) -> Observed:
    """Reference backend of `observed`."""
    N, device = len(x_world), x_world.device
    views, free, occupied = torch.zeros(3, N, dtype=torch.int64, device=device).unbind()
    directions = own_directions.clone()
    scale_min, scale_max = torch.full((N,), torch.inf, device=device), torch.zeros(N, device=device)
    shift, (squares, noise, measured) = torch.zeros(N, 3, device=device), torch.zeros(3, N, device=device)
    for part, there in zip(slots.split(_VIEWS_AT_ONCE), known.split(_VIEWS_AT_ONCE), strict=True):
        sight = seen_by_torch(store, part, x_world)
        sees = sight.sees & there
        offsets = (x_world - store.poses[part, :3, 3]).float()
        views += sees.sum(dim=0)
        free += (sight.inside & there & ~sight.sees & (sight.measured_z > sight.depth_z)).sum(dim=0)
        occupied += (sees & ~sight.measured_z.isnan()).sum(dim=0)
        directions += torch.where(sees[..., None], offsets, 0).sum(dim=0)
        behind = sight.measured_z / sight.depth_z - 1  # by this part of its depth, the surface is
        close = sees & (behind.abs() <= _MEASURED_WITHIN)
        shift += torch.where(close[..., None], behind[..., None] * offsets, 0).sum(dim=0)
        length2 = offsets.square().sum(dim=-1)
        squares += torch.where(close, behind.square() * length2, 0).sum(dim=0)
        noise += torch.where(close, (sight.sigma_z / sight.depth_z).square() * length2, 0).sum(dim=0)
        measured += close.sum(dim=0)
        distance = crop_scale.distance(torch.linalg.vector_norm(offsets, dim=-1), sight.depth_z)
        low, high = (of_keyframes[part] * distance for of_keyframes in ranges)
        scale_min = torch.minimum(scale_min, torch.where(sees, low, torch.inf).amin(dim=0))
        scale_max = torch.maximum(scale_max, torch.where(sees, high, 0.0).amax(dim=0))
    is_surface = free <= occupied
    scale_min, scale_max = torch.where(is_surface, scale_min, torch.inf), torch.where(is_surface, scale_max, 0.0)
    mean = shift / measured.clamp_min(1)[:, None]
    scatter = (squares / measured - mean.square().sum(dim=-1)).clamp_min(0)
    variance = scatter / measured + noise / measured * (_CORRELATION + (1 - _CORRELATION) / measured)
    return Observed(x_world + mean.double(), normalize(directions, dim=-1), views, scale_min, scale_max, variance)
