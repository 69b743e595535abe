"""Rendered views on the training device, and random crops of them with what each crop shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mini_clip_paint import draw_paints, repaint
from torch import Tensor

from lerf_ros.world.materials import COLOURS

MAX_REGIONS = 256
MAX_TEXTS = 6
CROP_FRACTIONS = (0.05, 0.5)  # of the image height: the range of LERF's pyramid
ANYWHERE, AROUND_WHOLES = 0.25, 0.3  # of the crops; the others are around parts
WHOLE_SIZES, PART_SIZES = (0.6, 3.6), (0.8, 4.0)  # crop sides, in sides of the box that they are around
SENSOR_NOISE = 2.0  # grey levels, as in lerf_ros.world.sensor
_LABEL_GRID = 32
_OWN_TEXTS = 2  # of a part come first: without and with the colour of the whole
_WHOLE_WINDOW, _PART_WINDOW = 0.25, 0.15  # sigma in crop sides: what counts as a crop's middle


@dataclass(frozen=True)
class RoomViews:
    """Views of one room: what a render worker sends."""

    seed: int
    images: np.ndarray  # (V, H, W, 3) uint8
    masks: np.ndarray  # (V, H, W) uint8, region number: a part of an instance; 0 is nothing
    instance: np.ndarray  # (regions,) the instance that a region belongs to
    texts: list[list[str]]  # per region: what is true of its whole instance ("mug", "red mug")
    part_texts: list[list[str]]  # per region: the part ("bear nose"), and the parts around it ("bear head")
    colours: list[str]  # per region: of its whole instance; "" for what is no object or furniture
    structure: np.ndarray  # (regions,) bool: walls, floor, ..: known by their surface, not by their outline
    visible: np.ndarray  # (2, V, regions) px of the region's instance, of the region itself
    whole: np.ndarray  # (V, regions) how much of the instance's projected 3D box is in view and not hidden
    boxes: np.ndarray  # (2, V, regions, 4) of the same two: u and v of the middle, width, height, px


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
        self.colours = torch.tensor([i for text, i in self.texts.items() if text in COLOURS], device=device).long()
        self.height, self.width, self.count = height, width, 0
        self.uv_size = torch.tensor([width, height], device=device)
        self.available = torch.zeros((), device=device)  # `count`, for steps that are recorded
        self.images = torch.zeros(capacity, height, width, 4, dtype=torch.uint8, device=device)  # RGB and region
        shape = (capacity, MAX_REGIONS)
        unused = len(texts)  # fills the places of the tables that hold no text
        self.labels = torch.full(
            (2, *shape, MAX_TEXTS), unused, dtype=torch.int64, device=device
        )  # of wholes; of parts, the region's own first, without and with the colour of the whole
        self.instance = torch.zeros(shape, dtype=torch.int64, device=device)
        self.structure = torch.zeros(shape, dtype=torch.bool, device=device)
        self.visible = torch.zeros(2, *shape, device=device)  # px of the region's instance, of the region itself
        self.boxes = torch.zeros(2, *shape, 4, device=device)  # of the same: u, v of the middle; width, height, px

    def add(self, room: RoomViews, repainted: int = 0) -> None:
        """Appends the room's views with a sensor's noise, and so many times again with its things in other colours."""
        rng = np.random.default_rng([room.seed, 12])
        kinds = [texts[0] if texts else "" for texts in room.texts]
        images, masks = (torch.from_numpy(planes).to(self.images.device) for planes in (room.images, room.masks))
        self._append(room, room.texts, room.colours, images, masks)
        for _ in range(repainted):
            colours = draw_paints(kinds, room.colours, room.instance, rng)
            texts = [
                [kind, f"{colour} {kind}", colour] if colour else said
                for kind, colour, said in zip(kinds, colours, room.texts)
            ]
            self._append(room, texts, colours, repaint(images, masks, room.colours, colours), masks)

    def _append(
        self, room: RoomViews, whole_texts: list[list[str]], colours: list[str], images: Tensor, masks: Tensor
    ) -> None:
        """As many of the views as there is space for."""
        part_texts = [
            [text for part in parts for text in (part, f"{colour} {part}")]
            for parts, colour in zip(room.part_texts, colours)
        ]
        n, regions = min(len(images), len(self.images) - self.count), len(room.instance)
        labels = np.full((2, regions, MAX_TEXTS), len(self.texts))
        for table, texts_of_regions in zip(labels, (whole_texts, part_texts)):
            for row, texts in zip(table, texts_of_regions):
                row[: len(texts)] = [self.texts.get(text, len(self.texts)) for text in texts]
        device, rows = self.images.device, slice(self.count, self.count + n)
        noise = SENSOR_NOISE * torch.randn(images[:n].shape, device=device)
        self.images[rows, ..., :3] = (images[:n] + noise + 0.5).clamp(0, 255).to(torch.uint8)
        self.images[rows, ..., 3] = masks[:n]
        self.labels[:, rows, :regions] = torch.from_numpy(labels).to(device)[:, None]
        self.instance[rows, :regions] = torch.from_numpy(room.instance).to(device)
        self.structure[rows, :regions] = torch.from_numpy(room.structure).to(device)
        self.visible[:, rows, :regions] = torch.from_numpy(room.visible[:, :n]).to(device, torch.float32)
        self.boxes[:, rows, :regions] = torch.from_numpy(room.boxes[:, :n]).to(device, torch.float32)
        self.count += n
        self.available.fill_(self.count)

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Where to cut crops: views (B,), centres (B, 2) uv, sides (B,) px; ``batch`` is even.

        Some lie anywhere in a view, as the pyramid's do, some around wholes, some around parts. The second half of the
        batch looks at the same things in the same views as the first: what tells a handle from its mug is learned from
        pictures of both.
        """

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=self.images.device)

        def log_uniform(low: float, high: float) -> Tensor:
            return torch.exp(math.log(low) + uniform(batch) * math.log(high / low))

        def pick(chance: Tensor) -> Tensor:
            # The largest ratio is a draw with these chances, as multinomial's, but the host need not wait for it.
            return (chance / -uniform(*chance.shape).clamp(min=1e-12).log()).argmax(dim=1)

        half = batch // 2
        view = (uniform(half) * self.available).minimum(self.available - 1).long()  # rounding may reach `available`
        instance = self.instance[view]
        things = ((self.visible[1, view] > 20) & ~self.structure[view] & (instance > 0)).float()
        siblings = torch.zeros_like(things).scatter_add(1, instance, things).gather(1, instance)
        chance = torch.where(things.any(dim=1, keepdim=True), things / siblings.clamp(min=1.0), 1.0)  # shared by parts
        region = pick(chance)
        sibling = pick(chance * (instance == instance.gather(1, region[:, None])))
        view, region = view.repeat(2), torch.cat([region, sibling])
        low, high = (fraction * self.height for fraction in CROP_FRACTIONS)
        anywhere = uniform(batch, 2) * self.uv_size
        sort = uniform(half).repeat(2)
        part = sort >= ANYWHERE + AROUND_WHOLES
        box = self.boxes[part.long(), view, region]
        around = box[:, :2] + (uniform(batch, 2) - 0.5) * box[:, 2:]
        around_px = box[:, 2:].amax(dim=1) * torch.where(part, log_uniform(*PART_SIZES), log_uniform(*WHOLE_SIZES))
        use_anywhere = (sort < ANYWHERE) | (box[:, 2] == 0)
        crop_px = torch.where(use_anywhere, log_uniform(low, high), around_px).clamp(low, high)
        return view, torch.where(use_anywhere[:, None], anywhere, around), crop_px

    def cut(self, view: Tensor, centre: Tensor, crop_px: Tensor, size: int) -> Crops:
        """Crops of ``crop_px`` (B,) around ``centre`` (B, 2) uv; the image is mirrored beyond its border."""
        images = torch.cat(
            [self._cut_images(*c, size) for c in zip(view.split(512), centre.split(512), crop_px.split(512))]
        )
        u, v = self._positions(centre, crop_px, _LABEL_GRID)
        u, v = (_mirror(x.round().long(), n) for x, n in ((u, self.width), (v, self.height)))
        shown = self.images[..., 3][view[:, None, None], v[:, :, None], u[:, None, :]].flatten(1).long()  # (B, G*G)
        window, part_window = (
            _centre_window(_LABEL_GRID, sigma, shown.device).flatten().expand(shown.shape)
            for sigma in (_WHOLE_WINDOW, _PART_WINDOW)
        )
        empty = torch.zeros(len(view), MAX_REGIONS, device=shown.device)
        prominence, central = empty.scatter_add(1, shown, window), empty.scatter_add(1, shown, part_window)
        inside = empty.scatter_add(1, shown, torch.ones_like(window)) * (crop_px[:, None] / _LABEL_GRID) ** 2
        instance, structure = self.instance[view], self.structure[view]
        whole_inside = empty.scatter_add(1, instance, inside).gather(1, instance)
        whole = prominence * (structure | (whole_inside > 0.25 * self.visible[0, view]))
        whole = whole * torch.where(structure, 0.4, 1.0)  # a wall has to fill half of a crop
        part = central * (inside > 0.1 * self.visible[1, view])  # one leg of four is legs
        true = self._texts_of(view, whole, part, _OWN_TEXTS) > 0.2
        # A part beside the middle is false although its thing is in the picture: else "table top" fits what is below.
        false = self._texts_of(view, prominence, 2.5 * central, MAX_TEXTS) < 0.05
        false[:, self.colours] &= true[:, self.colours].any(dim=1, keepdim=True)  # a black nose denies no brown bear
        return Crops(images, true, false)

    def _texts_of(self, view: Tensor, whole: Tensor, part: Tensor, nesting: int) -> Tensor:
        """(B, T): for each text the sum of the weights (B, regions) of the wholes and of the parts it is true of.

        ``nesting``: how many texts of a part count, its own being the first.
        """
        sizes = MAX_TEXTS, nesting
        labels = [table[view][..., :n].flatten(1) for table, n in zip(self.labels, sizes)]
        weights = [x[..., None].expand(-1, -1, n).flatten(1) for x, n in zip((whole, part), sizes)]
        texts = torch.zeros(len(view), len(self.texts) + 1, device=view.device)
        texts = texts.scatter_add(1, torch.cat(labels, dim=1), torch.cat(weights, dim=1))
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


def _mirror(index: Tensor, n: int) -> Tensor:
    """Index reflected into [0, n), as ``reflect`` padding does."""
    return (n - 1) - ((n - 1) - index.abs()).abs()


def _centre_window(n: int, sigma: float, device: torch.device) -> Tensor:
    """Gaussian weights (n, n) that sum to 1: a crop's texts are about its middle, where the pyramid is read."""
    x = (torch.arange(n, device=device) + 0.5) / n - 0.5
    line = torch.exp(-0.5 * (x / sigma) ** 2)
    return (line[:, None] * line) / line.sum() ** 2
