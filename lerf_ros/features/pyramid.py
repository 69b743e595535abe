"""LERF's multi-scale crop pyramid of one image size: where crops lie, how they are cut, how to read between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.kernels import runs_kernels

LERF_FRACTIONS = (0.05, 0.125, 0.2, 0.275, 0.35, 0.425, 0.5)


def lerf_stride(fraction: float) -> float:
    """Stride as a part of the crop: 1 up to 0.05 of the height, 0.5 from 0.15 up, linear between (LERF's code)."""
    return min(max(1.0 - 0.5 * (fraction - 0.05) / 0.1, 0.5), 1.0)


@dataclass(frozen=True)
class Level:
    """Square crops of one size on a regular grid, px; ``first_centre`` and ``stride`` are the same for u and v."""

    crop_px: int
    rows: int
    columns: int
    stride: int
    offset: int  # flat index of the level's first crop
    first_centre: float  # u and v of its centre; the image is mirrored beyond its border to fill such crops

    @property
    def count(self) -> int:
        return self.rows * self.columns


class Corners(NamedTuple):
    """The four around each of R pixels at L levels: flat indices (R, L, 4) int64, and bilinear weights (R, L, 4)."""

    crops: Tensor
    weights: Tensor


@dataclass(frozen=True)
class PyramidLayout:
    """All crops of one image, flat: level by level from the smallest crops up, row by row within a level."""

    height: int
    width: int
    levels: tuple[Level, ...]
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def build(
        cls,
        height: int,
        width: int,
        fractions: Sequence[float] = LERF_FRACTIONS,
        strides: Sequence[float] | None = None,
    ) -> PyramidLayout:
        """Crops of ``fractions`` of the image height, ascending; ``strides`` as parts of the crop, LERF's when None.

        640x480 with the defaults has 1,148 crops, half of them of the smallest size. ValueError on empty images,
        fractions that do not ascend within (0, 1], crops of less than 2 px, or strides outside (0, 1].
        """
        strides = [lerf_stride(fraction) for fraction in fractions] if strides is None else strides
        if height < 1 or width < 1:
            raise ValueError(f"the image is {width}x{height}")
        if not fractions or sorted(set(fractions)) != list(fractions) or not 0 < fractions[0] <= fractions[-1] <= 1:
            raise ValueError(f"crop fractions must ascend within (0, 1], got {tuple(fractions)}")
        if len(strides) != len(fractions) or not all(0 < stride <= 1 for stride in strides):
            raise ValueError(f"needs one stride in (0, 1] for each crop fraction, got {tuple(strides)}")
        levels: list[Level] = []
        offset = 0
        for fraction, part in zip(fractions, strides):
            crop_px = round(height * fraction)
            if not 2 <= crop_px <= min(height, width):
                raise ValueError(f"crops of {crop_px} px do not suit an image of {width}x{height}")
            stride, padding = max(int(crop_px * part + 1e-6), 1), crop_px // 2
            rows = (height + 2 * padding - crop_px) // stride + 1
            columns = (width + 2 * padding - crop_px) // stride + 1
            levels.append(Level(crop_px, rows, columns, stride, offset, (crop_px - 1) / 2 - padding))
            offset += rows * columns
        return cls(height, width, tuple(levels))

    @property
    def total(self) -> int:
        """Number of crops."""
        return self.levels[-1].offset + self.levels[-1].count

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(L,) px, side of the crops of each level."""
        return np.array([level.crop_px for level in self.levels], np.int64)

    def sizes_on(self, device: torch.device) -> Tensor:
        """As `sizes`, float32 on ``device``, without a copy to it."""
        return self.table_on(device)[0]

    def levels_of(self, crops: Tensor) -> Tensor:
        """Levels (B,) int64 of crops (B,) int64, flat indices."""
        offset = self.table_on(crops.device)[4].long()
        return torch.bucketize(crops.contiguous(), offset[1:], right=True)

    def centres(self, level: int) -> Tensor:
        """Crop centres (count, 2) as uv, pixels, in flat order."""
        at = self.levels[level]
        v, u = torch.meshgrid(torch.arange(at.rows), torch.arange(at.columns), indexing="ij")
        return at.first_centre + at.stride * torch.stack([u, v], dim=-1).reshape(-1, 2).float()

    def crops(self, image: Tensor, level: int, index: Tensor | None = None, size: int = 0) -> Tensor:
        """Crops of a level, cut from ``image`` (3, H, W) float: (B, 3, size, size).

        ``index`` (B,) int64 counts from the level's first crop; None: all of them. ``size`` is usually the
        encoder's ``image_size`` (bilinear, antialiased); 0 leaves the crops as they are.
        """
        if image.shape != (3, self.height, self.width):
            raise ValueError(f"this layout is for (3, {self.height}, {self.width}) images, got {tuple(image.shape)}")
        at = self.levels[level]
        index = torch.arange(at.count, device=image.device) if index is None else index
        padded = F.pad(image[None], [at.crop_px // 2] * 4, mode="reflect")[0]
        windows = padded.unfold(1, at.crop_px, at.stride).unfold(2, at.crop_px, at.stride)  # a view: nothing copied yet
        crops = windows[:, index // at.columns, index % at.columns].transpose(0, 1)
        return F.interpolate(crops, (size, size), mode="bilinear", antialias=True) if size else crops.contiguous()

    def cut(self, images: Tensor, slots: Tensor, crops: Tensor, size: int) -> Tensor:
        """Crops of any images and levels at once, resized as by `crops`: (B, 3, size, size) float32 in [0, 1].

        ``images`` (K, H, W, 3) uint8; ``slots`` (B,) int64: which of them, and ``crops`` (B,) int64: flat indices;
        ``size`` of at least 1 px. Where our kernels run, one launch does it all, and agrees to rounding.
        """
        if images.shape[1:] != (self.height, self.width, 3) or images.dtype != torch.uint8:
            wanted = f"(K, {self.height}, {self.width}, 3) uint8"
            raise ValueError(f"this layout is for images {wanted}, got {tuple(images.shape)} {images.dtype}")
        if runs_kernels(images.device):
            from lerf_ros.features.crops_triton import cut_triton  # not everywhere installed

            return cut_triton(images, slots, crops, size, self.table_on(images.device))
        return self._cut_by_level(images, slots, crops, size)

    def _cut_by_level(self, images: Tensor, slots: Tensor, crops: Tensor, size: int) -> Tensor:
        """What `cut` does, image by image and level by level."""
        cut = torch.empty(len(crops), 3, size, size, device=images.device)
        levels = self.levels_of(crops)
        for slot in slots.unique().tolist():
            of_slot = slots == slot
            image = images[slot].permute(2, 0, 1).float() / 255
            for level in levels[of_slot].unique().tolist():
                here = of_slot & (levels == level)
                cut[here] = self.crops(image, level, crops[here] - self.levels[level].offset, size)
        return cut

    def supervision(
        self, buffer: Tensor, valid: Tensor, slots: Tensor, uv: Tensor, random: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What rays learn from: `interpolate` at sizes that `draw_crop_px` draws. Targets (R, D), crop sizes (R,) px.

        Where our kernels run, one launch does both, and agrees to rounding. Needs no gradient and gives none.
        """
        if runs_kernels(buffer.device):
            from lerf_ros.features.pyramid_triton import supervision_triton  # not everywhere installed

            return supervision_triton(buffer, valid, slots, uv, random, self.table_on(buffer.device))
        crop_px = self.draw_crop_px(valid, slots, random)
        return self.interpolate(buffer, valid, slots, uv, crop_px), crop_px

    def draw_crop_px(self, valid: Tensor, slots: Tensor, random: Tensor) -> Tensor:
        """Crop sizes (R,) px, uniform between the smallest and largest valid level of each ray's slot.

        ``valid`` (K, levels) bool, ``slots`` (R,), ``random`` (R,) uniform in [0, 1). Slots without any valid level
        give the whole range.
        """
        sizes = self.sizes_on(valid.device)
        valid = valid[slots]
        valid = valid | ~valid.any(dim=1, keepdim=True)
        smallest = torch.where(valid, sizes, torch.inf).amin(dim=1)
        largest = torch.where(valid, sizes, 0.0).amax(dim=1)
        return smallest + random * (largest - smallest)

    def interpolate(self, buffer: Tensor, valid: Tensor, slots: Tensor, uv: Tensor, crop_px: Tensor) -> Tensor:
        """Embeddings (R, D) float32, unit norm, at pixels and crop sizes between those that were encoded.

        ``buffer`` (K, total, D) any float type: the pyramids of K keyframes; ``valid`` (K, levels) bool: which levels
        of them are encoded; ``slots`` (R,) int64; ``uv`` (R, 2) px; ``crop_px`` (R,).
        Bilinear between crop centres (clamped at the outermost ones) and linear in ``crop_px`` between the nearest
        valid levels on either side, then renormalised; beyond the outermost valid level, that level alone. A slot
        without any valid level gives zeros. Shapes are fixed and nothing depends on values: safe in a CUDA graph.
        """
        sizes, usable = self.sizes_on(buffer.device), valid[slots]
        number = torch.arange(len(self.levels), device=buffer.device)
        below = torch.where(usable & (sizes <= crop_px[:, None]), number, -1).amax(dim=1)
        above = torch.where(usable & (sizes > crop_px[:, None]), number, len(self.levels)).amin(dim=1)
        above = torch.where(above == len(self.levels), below, above)
        below = torch.where(below < 0, above, below)
        level = torch.stack([below, above], dim=1).clamp(min=0)  # (R, 2); -1 remains where nothing is valid
        span = (sizes[level[:, 1]] - sizes[level[:, 0]]).clamp(min=1.0)
        blend = ((crop_px - sizes[level[:, 0]]) / span).clamp(0.0, 1.0)
        level_weights = torch.stack([1.0 - blend, blend], dim=1) * usable.any(dim=1, keepdim=True)

        index, weights = self.corners(uv, level)
        read = self.read(buffer, slots, index).flatten(1, 2)  # (R, 8, D)
        return F.normalize(torch.einsum("rcd,rc->rd", read, (weights * level_weights[..., None]).flatten(1)), dim=-1)

    def at_levels(self, buffer: Tensor, slots: Tensor, corners: Corners) -> Tensor:
        """As `interpolate`, at crops of single levels, encoded or not: (R, L, D) float32; unit norm, or zero."""
        read = self.read(buffer, slots, corners.crops)
        return F.normalize(torch.einsum("rlcd,rlc->rld", read, corners.weights), dim=-1)

    def corners(self, uv: Tensor, level: Tensor | None = None) -> Corners:
        """The crops around pixels uv (R, 2), at every level or at level (R, L) int64, for each pixel its own.

        At every level, one launch finds them where our kernels run, to the last bit.
        """
        if level is None and runs_kernels(uv.device):
            from lerf_ros.features.pyramid_triton import corners_triton  # not everywhere installed

            return Corners(*corners_triton(uv, self.table_on(uv.device)))
        return self._corners_torch(uv, level)

    def _corners_torch(self, uv: Tensor, level: Tensor | None = None) -> Corners:
        """Reference backend of `corners`."""
        table = self.table_on(uv.device)
        table = table[:, None] if level is None else table[:, level]
        _, rows, columns, stride, offset, first = table.unbind()  # each (1, L) or (R, L)
        last = torch.stack([columns, rows], dim=-1) - 1
        place = ((uv[:, None] - first[..., None]) / stride[..., None]).clamp(min=0.0).minimum(last)  # (R, L, 2)
        low = place.floor()
        beside = torch.stack([low, (low + 1).minimum(last)], dim=-1)  # (R, L, 2, 2): before and after the pixel
        share = torch.stack([1 - (place - low), place - low], dim=-1)
        u, v = beside[..., 0, None, :], beside[..., 1, :, None]
        index = (offset[..., None, None] + v * columns[..., None, None] + u).flatten(2).to(torch.int64)
        return Corners(index, (share[..., 0, None, :] * share[..., 1, :, None]).flatten(2))

    def read(self, buffer: Tensor, slots: Tensor, index: Tensor) -> Tensor:
        """Embeddings (R, L, C, D) float32 of crops (R, L, C) of the slots (R,), see `interpolate`."""
        return buffer.reshape(-1, buffer.shape[-1])[slots[:, None, None] * self.total + index].float()

    def table_on(self, device: torch.device) -> Tensor:
        """(6, levels) float32 on ``device``, made once: crop_px, rows, columns, stride, offset, first_centre."""
        if device not in self._tables:
            names = ("crop_px", "rows", "columns", "stride", "offset", "first_centre")
            rows = [[float(getattr(level, name)) for level in self.levels] for name in names]
            self._tables[device] = torch.tensor(rows, device=device)
        return self._tables[device]
