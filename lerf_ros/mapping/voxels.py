"""The simplest semantic map: crop embeddings averaged into surface voxels. No training; the baseline for the field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.geometry.camera import directions_from_uv
from lerf_ros.geometry.covariance import voxel_covariance
from lerf_ros.mapping.config import VoxelConfig
from lerf_ros.mapping.crop_means import CropMeans, ScaledEmbeds, log_bins
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.surface import Closer, SurfacePoints

_AXIS_BITS = 21  # of a voxel's key per axis: two million voxels each way


class VoxelMap:
    """Mean embedding per surface voxel and scale bin.

    Every measured pixel on a coarse grid looks up the pyramid of its frame at each encoded level and adds the embedding
    to its voxel, in the bin of the physical scale ``crop_px * depth_z / f_px``. Bins are evenly spaced in log scale.
    Needs depth. Memory: about `voxel.capacity` * `voxel.scale_bins` * D * 4 bytes, reserved at once; surface that no
    longer fits is left out and counted in `dropped`.

    Args:
        layout: crop pyramid of the frames.
        embed_dim: D.
    """

    def __init__(
        self, config: VoxelConfig, layout: PyramidLayout, embed_dim: int, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config
        self.layout = layout
        self.dropped = 0
        capacity = config.capacity
        log_scales = log_bins(config.scale_bins, config.scale_min, config.scale_max, device)
        self._means = CropMeans(capacity, embed_dim, log_scales)
        self._x = torch.zeros(capacity, 3, dtype=torch.float64, device=device)
        self._directions = torch.zeros(capacity, 3, device=device)
        self._pixels = torch.zeros(capacity, device=device)
        self._views = torch.zeros(capacity, dtype=torch.int64, device=device)
        self._scale_min = torch.full((capacity,), math.inf, device=device)
        self._scale_max = torch.zeros(capacity, device=device)
        # Keys sorted for look-up, and the row of each in the buffers above.
        self._keys = torch.empty(0, dtype=torch.int64, device=device)
        self._rows = torch.empty(0, dtype=torch.int64, device=device)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, frame: Frame, embeds: Tensor, valid: Tensor) -> None:
        """Enters one frame.

        Args:
            frame: with depth; of the layout's image size.
            embeds: (layout.total, D) unit embeddings of its crops.
            valid: (L,) bool, levels that have been encoded.
        Raises:
            ValueError: the frame has no depth.
        """
        if frame.depth_z is None:
            raise ValueError("the voxel baseline needs depth; this frame has none")
        device = self._x.device
        uv, depth_z = self._measured_pixels(frame)
        directions, z_per_t = directions_from_uv(uv, frame.camera.fx, frame.camera.fy, frame.camera.cx, frame.camera.cy)
        T_world_camera = torch.from_numpy(frame.T_world_camera).to(device)
        directions = directions.double() @ T_world_camera[:3, :3].T
        x_world = T_world_camera[:3, 3] + (depth_z / z_per_t).double()[:, None] * directions
        rows, kept = self._rows_of(x_world)
        uv, depth_z, x_world, directions = uv[kept], depth_z[kept], x_world[kept], directions[kept]

        self._x.index_add_(0, rows, x_world)
        self._directions.index_add_(0, rows, directions.float())
        self._pixels.index_add_(0, rows, torch.ones_like(depth_z))
        self._views[torch.unique(rows)] += 1
        read = self.layout.at_levels(embeds.to(device)[None], torch.zeros_like(rows), self.layout.corners(uv))
        level = valid.to(device).nonzero()[:, 0]
        scales = self.layout.sizes_on(device)[level] * (depth_z / frame.camera.fy)[:, None]  # (P, levels)
        self._means.add(rows[:, None].expand_as(scales), read[:, level], scales)
        if len(level):
            self._scale_min.scatter_reduce_(0, rows, scales.amin(dim=1), "amin")
            self._scale_max.scatter_reduce_(0, rows, scales.amax(dim=1), "amax")

    def surface(self) -> VoxelSurface:
        """The map as it is now. Voxels without any embedding yet are left out."""
        rows = self._rows[self._means.counts[self._rows].any(dim=1)]
        pixels = self._pixels[rows]
        x_world = self._x[rows] / pixels[:, None].double()
        directions = normalize(self._directions[rows], dim=-1)
        points = SurfacePoints(
            x_world=x_world,
            view_directions=directions,
            views=self._views[rows],
            scale_min=self._scale_min[rows],
            scale_max=self._scale_max[rows],
            covariance=voxel_covariance(len(rows), self.config.size, rows.device),
        )
        return VoxelSurface(points, self._means[rows])

    def _measured_pixels(self, frame: Frame) -> tuple[Tensor, Tensor]:
        stride = self.config.pixel_stride
        depth_z = torch.from_numpy(frame.depth_z)[stride // 2 :: stride, stride // 2 :: stride]
        v, u = torch.isfinite(depth_z).nonzero(as_tuple=True)
        uv = torch.stack([u, v], dim=-1) * stride + stride // 2
        device = self._x.device
        return uv.float().to(device), depth_z[v, u].to(device)

    def _rows_of(self, x_world: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the voxels around points, taking new voxels while there is room; and which points have one."""
        i, j, k = (torch.floor(x_world / self.config.size).long() & ((1 << _AXIS_BITS) - 1)).unbind(dim=-1)
        keys = (i << 2 * _AXIS_BITS) | (j << _AXIS_BITS) | k
        new = torch.unique(keys)
        new = new[~torch.isin(new, self._keys)]
        room = self.config.capacity - len(self)
        self.dropped += max(0, len(new) - room)
        new = new[:room]
        rows = torch.arange(len(self), len(self) + len(new), device=keys.device)
        self._keys, order = torch.cat([self._keys, new]).sort()
        self._rows = torch.cat([self._rows, rows])[order]
        place = torch.searchsorted(self._keys, keys).clamp_max(len(self) - 1)
        kept = self._keys[place] == keys
        return self._rows[place[kept]], kept


@dataclass(frozen=True)
class VoxelSurface:
    """A `SemanticSurface` on voxel means: N points and the embeddings of their crops."""

    points: SurfacePoints
    crops: ScaledEmbeds
    keyframe_crops = None

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """Cosines (S, N, T)."""
        return self.crops.similarity(scales, text_embeds)

    def closer(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """There are no finer voxels."""
        return iter(())
