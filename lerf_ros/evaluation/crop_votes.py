"""The simplest semantic map in 3D: the relevancy of image crops, lifted by measured depth, voted on by the views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.geometry.covariance import voxel_covariance
from lerf_ros.mapping.config import VoxelConfig
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.surface import Closer, SurfacePoints
from lerf_ros.query.relevancy import relevancy


@dataclass(frozen=True)
class _View:
    """The pixels of one keyframe that vote: uv (P, 2); voxel (P,) index; share (P,), one over the number of this view's
    pixels in the voxel, so that each view has one vote in it."""

    slot: int
    uv: Tensor
    voxel: Tensor
    share: Tensor


class CropVotes:
    """A `SemanticSurface` whose points are the voxels of measured depth, and whose relevancy is voted on.

    One view: each crop of a keyframe has a relevancy; between crop centres it is interpolated, level by level, and a
    pixel takes its best level. Measured depth carries the pixel to its voxel. All views: the relevancy of a voxel is
    the mean over the views that measured it. Nothing is trained, there is no scale, and every question goes through all
    crops again.

    Attributes:
        points: one for each voxel.

    Args:
        config: size of the voxels and stride of the voting pixels.
        store: keyframes with depth (others do not vote) and encoded crops (levels that are not do not count).
        encoder: its calibration says what relevancy is.
    """

    keyframe_crops = None

    def __init__(self, config: VoxelConfig, store: KeyframeStore, encoder: Encoder) -> None:
        self._store, self._calibration = store, encoder.calibration
        slots = [slot for slot in range(len(store)) if store.host_valid[slot].any()]
        lifted = [(slot, *_lifted(store, slot, config.pixel_stride)) for slot in slots]
        nowhere = torch.empty(0, 3, dtype=torch.float64, device=store.poses.device)
        x_world = torch.cat([nowhere, *(x for _, _, x in lifted)])
        _, voxel = torch.unique(torch.floor(x_world / config.size).long(), dim=0, return_inverse=True)
        count, device = int(voxel.max()) + 1 if len(voxel) else 0, x_world.device

        def mean(values: Tensor) -> Tensor:
            sums = values.new_zeros(count, 3).index_add_(0, voxel, values)
            return sums / torch.bincount(voxel, minlength=count)[:, None]

        self._views: list[_View] = []
        views = torch.zeros(count, dtype=torch.int64, device=device)
        first = 0
        for slot, uv, _ in lifted:
            part = voxel[first : first + len(uv)]
            first += len(uv)
            pixels = torch.bincount(part, minlength=count)
            self._views.append(_View(slot, uv, part, 1 / pixels[part].float()))
            views += pixels > 0
        origins = torch.cat([nowhere, *(store.poses[slot, :3, 3].expand(len(x), 3) for slot, _, x in lifted)])
        centres = mean(x_world)
        directions = normalize(mean(normalize(x_world - origins, dim=-1)), dim=-1).float()
        one = torch.ones(count, device=device)  # no scale: votes have taken the best
        covariance = voxel_covariance(count, config.size, device)
        self.points = SurfacePoints(centres, directions, views, one, one, covariance)

    def votes(self, text_embeds: Tensor, canonical_embeds: Tensor) -> Tensor:
        """Mean relevancy (N, T) of N voxels with texts (T, D) against canonical phrases (C, D), all unit."""
        store, device = self._store, self.points.views.device
        text_embeds, canonical_embeds = text_embeds.to(device).float(), canonical_embeds.to(device).float()
        sums = torch.zeros(len(self.points.views), len(text_embeds), device=device)
        for view in self._views:
            embeds = store.embeds[view.slot].float()
            crops = relevancy(embeds @ text_embeds.T, embeds @ canonical_embeds.T, self._calibration.k)
            levels = store.host_valid[view.slot].nonzero()[0].tolist()
            best = torch.stack([_at_pixels(store.layout, level, crops, view.uv) for level in levels]).amax(dim=0)
            sums.index_add_(0, view.voxel, view.share[:, None] * best)
        return sums / self.points.views[:, None]

    def similarity(self, scales: Tensor, text_embeds: Tensor) -> Tensor:
        """What `find_targets` makes the votes of: (S, N, T) with relevancy logit / k, and 0 for the canonical phrases,
        which must be the last of text_embeds, as `find_targets` has them. The same at all scales."""
        texts = len(text_embeds) - len(self._calibration.canonical_phrases)
        votes = self.votes(text_embeds[:texts], text_embeds[texts:])
        logits = votes.clamp(1e-6, 1 - 1e-6).logit() / self._calibration.k
        similarity = torch.cat([logits, logits.new_zeros(len(votes), len(text_embeds) - texts)], dim=1)
        return similarity.expand(len(scales), -1, -1)

    def closer(self, centres: Tensor, radii: Tensor, max_points: int) -> Iterator[Closer]:
        """There are no finer voxels."""
        return iter(())


def _lifted(store: KeyframeStore, slot: int, stride: int) -> tuple[Tensor, Tensor]:
    """Every stride-th pixel of a keyframe that measured depth: uv (P, 2) and x_world (P, 3) float64."""
    v, u = torch.isfinite(store.depth_z[slot, stride // 2 :: stride, stride // 2 :: stride]).nonzero(as_tuple=True)
    uv = torch.stack([u, v], dim=-1) * stride + stride // 2
    return uv.float(), store.lifted(torch.full_like(u, slot), uv)[0]


def _at_pixels(layout: PyramidLayout, level: int, crops: Tensor, uv: Tensor) -> Tensor:
    """Values of a level's crops, of crops (total, T), at pixels uv (P, 2): (P, T). Bilinear between crop centres, the
    outermost beyond them, as in `PyramidLayout.interpolate`."""
    at = layout.levels[level]
    picture = crops[at.offset : at.offset + at.count].T.reshape(1, -1, at.rows, at.columns)
    last = torch.tensor([max(at.columns - 1, 1), max(at.rows - 1, 1)], device=uv.device)
    grid = 2 * (uv - at.first_centre) / at.stride / last - 1
    values = grid_sample(picture, grid[None, None], mode="bilinear", padding_mode="border", align_corners=True)
    return values[0, :, 0].T
