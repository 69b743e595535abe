"""CUDA backend of `observation.observed`: one launch, a program per block of points, that asks keyframe after keyframe.

The launch depends on shapes only and never synchronises.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lerf_ros.field.language import ScaleInput
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.sight import NEAREST, VISIBLE_SIGMAS, VISIBLE_WITHIN
from lerf_ros.mapping.sight_triton import look

_POINTS = 64  # per program
_EPS = tl.constexpr(1e-12)  # of torch's normalize
# Some are numbers of points: whether 16 divides them is not worth a compilation, for which a question would wait.
_NUMBERS = ["points", "views", "keyframes", "slots_view", "slots_point", "known_view", "known_point", "height", "width"]


@triton.jit(do_not_specialize=_NUMBERS)
def _observed(
    x_world,
    own_directions,
    slots,
    known,
    ranges,
    poses,
    intrinsics,
    depth_images,
    sigma_images,
    x_out,
    floats,
    views_out,
    points,
    views,
    keyframes,
    slots_view,
    slots_point,
    known_view,
    known_point,
    height,
    width,
    nearest,
    within,
    sigmas,
    measured_within,
    correlation,
    KIND: tl.constexpr,
    POINTS: tl.constexpr,
):
    """x_world, own_directions (N, 3), slots and known with strides, ranges (2, K) -> x_out (N, 3), floats (6 N):
    directions (N, 3), scale_min, scale_max and variance (N,), and views_out (N,)."""
    point = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    exists = point < points
    x = tl.load(x_world + 3 * point, mask=exists, other=0.0)
    y = tl.load(x_world + 3 * point + 1, mask=exists, other=0.0)
    z = tl.load(x_world + 3 * point + 2, mask=exists, other=0.0)
    along_x = tl.load(own_directions + 3 * point, mask=exists, other=0.0)
    along_y = tl.load(own_directions + 3 * point + 1, mask=exists, other=0.0)
    along_z = tl.load(own_directions + 3 * point + 2, mask=exists, other=0.0)
    shift_x, shift_y, shift_z = tl.zeros_like(along_x), tl.zeros_like(along_x), tl.zeros_like(along_x)
    squares, noise, measured_by = tl.zeros_like(along_x), tl.zeros_like(along_x), tl.zeros_like(along_x)
    least, most = tl.full([POINTS], float("inf"), tl.float32), tl.zeros([POINTS], tl.float32)
    seen = tl.zeros([POINTS], tl.int64)
    free, occupied = tl.zeros([POINTS], tl.int32), tl.zeros([POINTS], tl.int32)
    for view in range(0, views):
        slot = tl.load(slots + view * slots_view + point * slots_point, mask=exists, other=0)
        there = tl.load(known + view * known_view + point * known_point, mask=exists, other=0) != 0
        _, _, depth, measured, sigma, inside, sees, right, down, ahead = look(
            x, y, z, slot, exists, poses, intrinsics, depth_images, sigma_images, height, width, nearest, within, sigmas
        )
        free += (inside & there & (sees == 0) & (measured > depth)).to(tl.int32)
        sees = sees & there
        seen += sees.to(tl.int64)
        occupied += (sees & (measured == measured)).to(tl.int32)
        along_x += tl.where(sees, right, 0.0)
        along_y += tl.where(sees, down, 0.0)
        along_z += tl.where(sees, ahead, 0.0)
        behind = measured / depth - 1.0  # by this part of its depth, the surface is
        close = sees & (tl.abs(behind) <= measured_within)
        moves = tl.where(close, behind, 0.0)
        measured_by += close.to(tl.float32)
        length2 = right * right + down * down + ahead * ahead
        squares += tl.where(close, behind * behind * length2, 0.0)
        noise += tl.where(close, (sigma / depth) * (sigma / depth) * length2, 0.0)
        shift_x += moves * right
        shift_y += moves * down
        shift_z += moves * ahead
        distance = depth
        if KIND == "normalised":
            distance = tl.sqrt(right * right + down * down + ahead * ahead)
        if KIND == "none":
            distance = tl.full([POINTS], 1.0, tl.float32)
        low = tl.load(ranges + slot, mask=exists, other=0.0) * distance
        high = tl.load(ranges + keyframes + slot, mask=exists, other=0.0) * distance
        least = tl.minimum(least, tl.where(sees, low, float("inf")))
        most = tl.maximum(most, tl.where(sees, high, 0.0))

    is_surface = free <= occupied
    least, most = tl.where(is_surface, least, float("inf")), tl.where(is_surface, most, 0.0)
    count = tl.maximum(measured_by, 1.0)
    mean_x, mean_y, mean_z = shift_x / count, shift_y / count, shift_z / count
    tl.store(x_out + 3 * point, x + mean_x.to(tl.float64), mask=exists)
    tl.store(x_out + 3 * point + 1, y + mean_y.to(tl.float64), mask=exists)
    tl.store(x_out + 3 * point + 2, z + mean_z.to(tl.float64), mask=exists)
    scatter = tl.maximum(squares / count - mean_x * mean_x - mean_y * mean_y - mean_z * mean_z, 0.0)
    variance = scatter / count + noise / count * (correlation + (1.0 - correlation) / count)
    variance = tl.where(measured_by > 0.0, variance, float("nan"))
    length = tl.maximum(tl.sqrt(along_x * along_x + along_y * along_y + along_z * along_z), _EPS)
    tl.store(floats + 3 * point, along_x / length, mask=exists)
    tl.store(floats + 3 * point + 1, along_y / length, mask=exists)
    tl.store(floats + 3 * point + 2, along_z / length, mask=exists)
    tl.store(floats + 3 * points + point, least, mask=exists)
    tl.store(floats + 4 * points + point, most, mask=exists)
    tl.store(floats + 5 * points + point, variance, mask=exists)
    tl.store(views_out + point, seen, mask=exists)


def observed_triton(
    store: KeyframeStore,
    ranges: Tensor,
    kind: ScaleInput,
    x_world: Tensor,
    own_directions: Tensor,
    slots: Tensor,
    known: Tensor,
    measured_within: float,
    correlation: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As `observation.observed`, on a CUDA GPU: the fields of `Observed`. ranges: of `scales_per_metre`."""
    N, device = len(x_world), x_world.device
    x_out, floats = torch.empty_like(x_world), torch.empty(6 * N, device=device)
    views = torch.empty(N, dtype=torch.int64, device=device)
    of_points = x_world.contiguous(), own_directions.contiguous(), slots, known, ranges.contiguous()
    of_store = store.poses, store.intrinsics, store.depth_z, store.depth_sigma
    strides = [stride for each in (slots, known) for stride in (each.stride(0), each.stride(1) * (each.shape[1] == N))]
    camera = store.camera
    numbers = N, len(slots), ranges.shape[1], *strides, camera.height, camera.width, NEAREST, VISIBLE_WITHIN
    numbers = *numbers, VISIBLE_SIGMAS
    with torch.cuda.device_of(x_world):
        if N:
            grid = (triton.cdiv(N, _POINTS),)
            results, sizes = (x_out, floats, views), {"KIND": kind, "POINTS": _POINTS}
            numbers = *numbers, measured_within, correlation
            _observed[grid](*of_points, *of_store, *results, *numbers, **sizes, enable_fp_fusion=False)
    directions, scale_min, scale_max, variance = floats.split([3 * N, N, N, N])
    return x_out, directions.view(N, 3), views, scale_min, scale_max, variance
