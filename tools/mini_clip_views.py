"""Rendered views on the training device, and random crops of them with what each crop shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_REGIONS = 256
MAX_TEXTS = 4
CROP_FRACTIONS = (0.05, 0.5)  # of the image height: the range of LERF's pyramid
_LABEL_GRID = 32


@dataclass(frozen=True)
class RoomViews:
    """Views of one room: what a render worker sends."""

    seed: int
    images: np.ndarray  # (V, H, W, 3) uint8
    masks: np.ndarray  # (V, H, W) uint8, region number: a part of an instance; 0 is nothing
    instance: np.ndarray  # (regions,) the instance that a region belongs to
    texts: list[list[str]]  # per region: what is true of its whole instance ("mug", "red mug")
    part_texts: list[list[str]]  # per region: what is true of the part alone ("mug handle")
    structure: np.ndarray  # (regions,) bool: walls, floor, ..: known by their surface, not by their outline
    visible: np.ndarray  # (2, V, regions) px of the region's instance, of the region itself
    whole: np.ndarray  # (V, regions) how much of the instance's projected 3D box is in view and not hidden
    boxes: np.ndarray  # (V, regions, 4) of the region's instance: u and v of its middle, width, height, px


@dataclass(frozen=True)
class Crops:
    """A batch of crops. A text is true of a crop, false, or (an object half seen, at the rim) neither."""

    images: Tensor  # (B, 3, S, S) in [0, 1]
    true: Tensor  # (B, T) bool
    false: Tensor  # (B, T) bool


class ViewStore:
    """A growing set of views, pre-allocated on the device; cuts and labels crops there."""

    def __init__(self, capacity: int, height: int, width: int, texts: list[str], device: torch.device):
        self.texts = {text: i for i, text in enumerate(texts)}
        self.height, self.width, self.count = height, width, 0
        self.images = torch.zeros(capacity, height, width, 4, dtype=torch.uint8, device=device)  # RGB and padding
        self.masks = torch.zeros(capacity, height, width, dtype=torch.uint8, device=device)
        shape = (capacity, MAX_REGIONS)
        unused = len(texts)  # fills the places of the tables that hold no text
        self.labels = torch.full(
            (2, *shape, MAX_TEXTS), unused, dtype=torch.int64, device=device
        )  # of wholes, of parts
        self.instance = torch.zeros(shape, dtype=torch.int64, device=device)
        self.structure = torch.zeros(shape, dtype=torch.bool, device=device)
        self.visible = torch.zeros(2, *shape, device=device)  # px of the region's instance, of the region itself
        self.boxes = torch.zeros(*shape, 4, device=device)  # of the instance: u, v of the middle; width, height, px

    @property
    def full(self) -> bool:
        return self.count == len(self.images)

    def add(self, room: RoomViews) -> None:
        """Appends the room's views, as many as there is space for."""
        n, regions = min(len(room.images), len(self.images) - self.count), len(room.instance)
        labels = np.full((2, regions, MAX_TEXTS), len(self.texts))
        for table, texts_of_regions in zip(labels, (room.texts, room.part_texts)):
            for row, texts in zip(table, texts_of_regions):
                known = [self.texts[text] for text in texts if text in self.texts]
                row[: len(known)] = known
        device, rows = self.images.device, slice(self.count, self.count + n)
        self.images[rows, ..., :3] = torch.from_numpy(room.images[:n]).to(device)
        self.masks[rows] = torch.from_numpy(room.masks[:n]).to(device)
        self.labels[:, rows, :regions] = torch.from_numpy(labels).to(device)[:, None]
        self.instance[rows, :regions] = torch.from_numpy(room.instance).to(device)
        self.structure[rows, :regions] = torch.from_numpy(room.structure).to(device)
        self.visible[:, rows, :regions] = torch.from_numpy(room.visible[:, :n]).to(device, torch.float32)
        self.boxes[rows, :regions] = torch.from_numpy(room.boxes[:n]).to(device, torch.float32)
        self.count += n

    def draw(self, batch: int, size: int, generator: torch.Generator) -> Crops:
        """Random crops: four in ten anywhere in a view, as the pyramid cuts them, the others around an object in it."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=self.images.device)

        view = (uniform(batch) * self.count).long()
        low, high = (fraction * self.height for fraction in CROP_FRACTIONS)
        anywhere = uniform(batch, 2) * torch.tensor([self.width, self.height], device=view.device)
        any_size = torch.exp(uniform(batch) * math.log(high / low)) * low
        instance = self.instance[view]
        objects = ((self.visible[1, view] > 20) & ~self.structure[view] & (instance > 0)).float()
        siblings = (
            torch.zeros_like(objects).scatter_add(1, instance, objects).gather(1, instance)
        )  # parts share a chance
        chance = torch.where(objects.any(dim=1, keepdim=True), objects / siblings.clamp(min=1.0), 1.0)
        box = self.boxes[view, torch.multinomial(chance, 1, generator=generator)[:, 0]]
        object_size = box[:, 2:].amax(dim=1) * torch.exp(uniform(batch) * math.log(6.0)) * 0.6
        around = box[:, :2] + (uniform(batch, 2) - 0.5) * box[:, 2:]
        use_object = (uniform(batch) < 0.6) & (box[:, 2] > 0)
        crop_px = torch.where(use_object, object_size, any_size).clamp(low, high)
        centre = torch.where(use_object[:, None], around, anywhere)
        return self.cut(view, centre, crop_px, size)

    def cut(self, view: Tensor, centre: Tensor, crop_px: Tensor, size: int) -> Crops:
        """Crops of ``crop_px`` (B,) around ``centre`` (B, 2) uv; the image is mirrored beyond its border."""
        images = torch.cat(
            [self._cut_images(*c, size) for c in zip(view.split(512), centre.split(512), crop_px.split(512))]
        )
        u, v = self._positions(centre, crop_px, _LABEL_GRID)
        u, v = (_mirror(x.round().long(), n) for x, n in ((u, self.width), (v, self.height)))
        shown = self.masks[view[:, None, None], v[:, :, None], u[:, None, :]].flatten(1).long()  # (B, G*G)
        window = _centre_window(_LABEL_GRID, shown.device).flatten().expand(shown.shape)
        empty = torch.zeros(len(view), MAX_REGIONS, device=shown.device)
        prominence = empty.scatter_add(1, shown, window)
        inside = empty.scatter_add(1, shown, torch.ones_like(window)) * (crop_px[:, None] / _LABEL_GRID) ** 2
        instance = self.instance[view]
        inside = torch.stack([empty.scatter_add(1, instance, inside).gather(1, instance), inside])
        recognisable = self.structure[view] | (inside > 0.25 * self.visible[:, view])
        weight = prominence * torch.where(self.structure[view], 0.4, 1.0)  # a wall has to fill half of a crop
        true, present = self._texts_of(view, weight * recognisable), self._texts_of(view, weight.expand(2, -1, -1))
        return Crops(images, true > 0.2, present < 0.05)

    def _texts_of(self, view: Tensor, weights: Tensor) -> Tensor:
        """(B, T): for each text the sum of ``weights`` (2, B, regions) over the wholes and parts it is true of."""
        labels = self.labels[:, view].movedim(0, 1).flatten(1)
        weights = weights.movedim(0, 1)[..., None].expand(-1, -1, -1, MAX_TEXTS).flatten(1)
        texts = torch.zeros(len(view), len(self.texts) + 1, device=view.device).scatter_add(1, labels, weights)
        return texts[:, :-1]  # the last column collects the unused places of the tables

    def _positions(self, centre: Tensor, crop_px: Tensor, n: int) -> tuple[Tensor, Tensor]:
        steps = (torch.arange(n, device=centre.device) + 0.5) / n - 0.5
        offsets = crop_px[:, None] * steps
        return centre[:, :1] + offsets, centre[:, 1:] + offsets

    def _cut_images(self, view: Tensor, centre: Tensor, crop_px: Tensor, size: int) -> Tensor:
        """Bilinear at twice the size, then 2x2 means: smooth when enlarged, little aliasing when shrunk."""
        u, v = self._positions(centre, crop_px, 2 * size)
        left, top = u.floor(), v.floor()
        weight_u, weight_v = (u - left)[:, None, :, None], (v - top)[:, :, None, None]
        columns = [_mirror(left.long() + i, self.width)[:, None, :] for i in (0, 1)]
        rows = [_mirror(top.long() + i, self.height)[:, :, None] for i in (0, 1)]
        packed, view = self.images.view(torch.int32)[..., 0], view[:, None, None]  # a pixel is gathered as one number

        def pixels(row: Tensor, column: Tensor) -> Tensor:
            return packed[view, row, column].unsqueeze(-1).view(torch.uint8)[..., :3].float()

        upper, lower = (torch.lerp(pixels(row, columns[0]), pixels(row, columns[1]), weight_u) for row in rows)
        return F.avg_pool2d(torch.lerp(upper, lower, weight_v).permute(0, 3, 1, 2), 2) / 255.0


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Light, white balance, blur, noise and mirroring of crops (B, 3, S, S) in [0, 1], so mild that red stays red."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(len(images), *shape, generator=generator, device=images.device)

    mirrored = uniform(0, 1, 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    small = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    images = torch.lerp(images, small, uniform(0, 1, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.5))
    images = images.clamp(1e-4, 1.0) ** torch.exp(uniform(-0.25, 0.25, 1, 1, 1))
    images = images * uniform(0.75, 1.2, 1, 1, 1) * uniform(0.93, 1.07, 3, 1, 1)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    return (images + noise * uniform(0, 0.03, 1, 1, 1)).clamp(0.0, 1.0)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turns the hue of each crop by a random angle: a rotation of RGB about the grey axis (Rodrigues' formula)."""
    angle = 2 * math.pi * torch.rand(len(images), 1, 1, generator=generator, device=images.device)
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=images.device) / math.sqrt(3)
    rotation = torch.eye(3, device=images.device) + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)
    return torch.einsum("bij,bjhw->bihw", rotation, images).clamp(0.0, 1.0)


def _mirror(index: Tensor, n: int) -> Tensor:
    """Index reflected into [0, n), as ``reflect`` padding does."""
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _centre_window(n: int, device: torch.device) -> Tensor:
    """Gaussian weights (n, n) that sum to 1: a crop's caption is about its middle, where the pyramid is read."""
    x = (torch.arange(n, device=device) + 0.5) / n - 0.5
    line = torch.exp(-0.5 * (x / 0.25) ** 2)
    return (line[:, None] * line) / line.sum() ** 2
