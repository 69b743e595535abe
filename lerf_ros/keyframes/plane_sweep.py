"""Plane sweep: how well a view agrees with its neighbours, for each of its pixels and each of several depths.

Shapes: V source views, D planes, H x W pixels of the reference view. Planes are parallel to the reference image, at
inverse depths q (1/m).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lerf_ros.kernels import runs_kernels

PATCH = 5  # px, side of the windows that are correlated
NOISE_VARIANCE = (2 / 255) ** 2  # of grey values in [0, 1]: windows that vary by less say nothing
NO_EVIDENCE = 1.0  # cost where no source view covers a plane: that of windows without any correlation


def plane_projections(K_reference: Tensor, K_sources: Tensor, T_sources_reference: Tensor) -> Tensor:
    """Projections of a reference's pixels into source views: ``H @ (u, v, 1, q) = z_source q (u_source, v_source, 1)``
    for the pixel (u, v) with inverse depth q, so that also ``q_source = q / (H @ (u, v, 1, q))[2]``.

    Args:
        K_reference: (3, 3) px.
        K_sources: (V, 3, 3) px.
        T_sources_reference: (V, 4, 4), m.

    Returns:
        H (V, 3, 4).
    """
    R, t = T_sources_reference[:, :3, :3], T_sources_reference[:, :3, 3:]
    return K_sources @ torch.cat([R @ torch.linalg.inv(K_reference), t], dim=2)


def plane_sweep(reference: Tensor, sources: Tensor, projections: Tensor, inverse_depths: Tensor) -> Tensor:
    """Matching cost 1 - rho of each pixel at each plane, rho being the zero-normalised cross-correlation of windows.

    The mean is taken over the better half of the source views that cover a pixel: in the others it may be occluded
    (Kang, Szeliski and Chai, CVPR 2001). Our kernels agree to rounding.

    Args:
        reference: (H, W) grey values in [0, 1].
        sources: (V, H, W) likewise.
        projections: (V, 3, 4) float32, see `plane_projections`.
        inverse_depths: (D,) 1/m.

    Returns:
        (H, W, D), in [0, 2].
    """
    if runs_kernels(reference.device):
        from lerf_ros.keyframes.plane_sweep_triton import MOST_SOURCES, plane_sweep_triton  # not everywhere installed

        if len(sources) <= MOST_SOURCES:
            noise = NOISE_VARIANCE, NO_EVIDENCE
            return plane_sweep_triton(reference, sources, projections, inverse_depths, PATCH, *noise)
    return plane_sweep_torch(reference, sources, projections, inverse_depths)


def plane_sweep_torch(reference: Tensor, sources: Tensor, projections: Tensor, inverse_depths: Tensor) -> Tensor:
    """Reference backend of `plane_sweep`."""
    windows = _Windows.of(reference[None])
    costs = [
        1 - correlation(windows, warped(source, projection, inverse_depths))
        for source, projection in zip(sources, projections, strict=True)
    ]
    return better_half(torch.stack(costs)).permute(1, 2, 0).contiguous()


def warped(source: Tensor, projection: Tensor, inverse_depths: Tensor) -> Tensor:
    """What a source (H, W) shows where the pixels of the reference would lie: (D, H, W), NaN outside it."""
    height, width = source.shape
    v, u = torch.meshgrid(
        torch.arange(height, device=source.device), torch.arange(width, device=source.device), indexing="ij"
    )
    at_infinity = projection[:, 0, None, None] * u + projection[:, 1, None, None] * v + projection[:, 2, None, None]
    x, y, z = (at_infinity[:, None] + projection[:, 3, None, None, None] * inverse_depths[:, None, None]).unbind()
    x, y = x / z, y / z
    inside = (z > 0) & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    grid = torch.stack([x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1], dim=-1)
    values = F.grid_sample(source[None, None], grid.flatten(0, 1)[None], align_corners=True).view(inside.shape)
    return torch.where(inside, values, torch.nan)


class _Windows:
    """Means and variances of the windows of images (B, H, W) without NaN."""

    def __init__(self, values: Tensor, mean: Tensor, variance: Tensor) -> None:
        self.values, self.mean, self.variance = values, mean, variance

    @classmethod
    def of(cls, values: Tensor) -> _Windows:
        mean = _window_mean(values)
        return cls(values, mean, (_window_mean(values.square()) - mean.square()).clamp_min(0))


def correlation(reference: _Windows, planes: Tensor) -> Tensor:
    """Zero-normalised cross-correlation in [-1, 1] of the windows of the reference and of planes (D, H, W), to which
    neither gain nor offset makes a difference; NaN where the centre of a window is not known. Of other pixels that
    are not known, the reference stands in for the plane."""
    known = ~planes.isnan()
    other = _Windows.of(torch.where(known, planes, reference.values))
    covariance = _window_mean(reference.values * other.values) - reference.mean * other.mean
    variances = (reference.variance + NOISE_VARIANCE) * (other.variance + NOISE_VARIANCE)
    return torch.where(known, (covariance * variances.rsqrt()).clamp(-1, 1), torch.nan)


def better_half(costs: Tensor) -> Tensor:
    """(V, ...) costs, NaN: not known -> (...), mean of the lower half (rounded up) of those that are known."""
    known = ~costs.isnan()
    taken = (known.sum(dim=0) + 1) // 2
    costs = torch.where(known, costs, torch.inf)
    total = torch.zeros_like(costs[0])
    for i, cost in enumerate(costs):  # its rank among the others says whether it is taken: faster than to sort
        rank = sum(((other <= cost) if j < i else (other < cost)).int() for j, other in enumerate(costs) if j != i)
        total += torch.where((rank < taken) & known[i], cost, 0.0)
    return torch.where(taken > 0, total / taken.clamp_min(1), NO_EVIDENCE)


def _window_mean(values: Tensor) -> Tensor:
    """(B, H, W) -> means over windows; of those at the border, over what lies in the image."""
    for dim in (1, 2):
        size = values.shape[dim]
        padded = F.pad(values, (0, 0, PATCH // 2, PATCH // 2) if dim == 1 else (PATCH // 2, PATCH // 2))
        values = sum((padded.narrow(dim, i, size) for i in range(1, PATCH)), start=padded.narrow(dim, 0, size))
        at = torch.arange(size, device=values.device)
        count = at.clamp_max(PATCH // 2) + (size - 1 - at).clamp_max(PATCH // 2) + 1
        values = values / (count[:, None] if dim == 1 else count)
    return values
