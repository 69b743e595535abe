"""How well an encoder tells the parts of a thing apart, picture by picture, and what it takes for what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mini_clip_rooms import parts_of
from mini_clip_views import RoomViews
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.world.kinds.catalogue import KINDS

MIN_PART_PX = 80  # visible pixels of a part that counts as reasonably visible: about 9 x 9
PART_CROP = 1.6  # side of a part-centred crop, in sides of the part's 2D box
GROWTH = 0.25  # of a part's 2D box on every side, as truth boxes are grown in 3D


@dataclass(frozen=True)
class PartSight:
    """A part in a view: "bear", "bear nose", and a pixel of it (u, v) near its middle with the side of a crop there."""

    kind: str
    text: str
    view: int
    pixel: tuple[int, int]
    crop_px: float


def part_sights(room: RoomViews) -> list[PartSight]:
    """Every part of every object and piece of furniture in every view where it is reasonably visible."""
    found = []
    for region, texts in enumerate(room.part_texts):
        if not texts or room.texts[region][0] not in KINDS or texts[0].endswith(" body"):
            continue
        for view in np.flatnonzero(room.visible[1, :, region] >= MIN_PART_PX):
            v, u = np.nonzero(room.masks[view] == region)
            nearest = int(np.argmin((u - u.mean()) ** 2 + (v - v.mean()) ** 2))
            side = PART_CROP * room.boxes[1, view, region, 2:].max()
            pixel = int(u[nearest]), int(v[nearest])
            found.append(PartSight(room.texts[region][0], texts[0], int(view), pixel, side))
    return found


def name_parts(encoder: Encoder, seen: Sequence[PartSight], embeds: Tensor) -> list[tuple[str, str]]:
    """(what it is, the best text among all parts of its kind and the whole) of each part-centred crop (N, D)."""
    answers = []
    for sight, embed in zip(seen, embeds):
        texts = part_candidates(sight.kind)
        answers.append((sight.text, texts[int((encoder.encode_texts(texts) @ embed).argmax())]))
    return answers


def part_candidates(kind: str) -> list[str]:
    """The texts that a part of a kind could be taken for: the whole and all its parts."""
    return [kind, *(f"{kind} {part}" for part in parts_of(kind))]


@dataclass(frozen=True)
class PartAnswers:
    """Where the best crop of all views lies for each part asked for: one entry each."""

    texts: list[str]
    on_part: list[bool]  # its centre pixel belongs to the part, or to a part of the part
    in_box: list[bool]  # .. or lies in the part's grown 2D box and on no sibling
    met: list[str]  # what the centre pixel belongs to
    crop_px: list[int]


def locate_parts(encoder: Encoder, room: RoomViews, layout: PyramidLayout, embeds: Tensor) -> PartAnswers:
    """Asks for every part that is reasonably visible in some view; ``embeds`` (V * crops, D): all pyramids."""
    texts = sorted({sight.text for sight in part_sights(room)})
    answers = PartAnswers(texts, [], [], [], [])
    if not texts:
        return answers
    canonical = embeds @ encoder.encode_texts(encoder.calibration.canonical_phrases).T
    best = (embeds @ encoder.encode_texts(texts).T - canonical.amax(dim=1, keepdim=True)).argmax(dim=0)
    centres = torch.cat([layout.centres(level) for level in range(len(layout.levels))]).numpy()
    sizes = np.concatenate([np.full(level.count, level.crop_px) for level in layout.levels])
    for text, crop in zip(texts, best.tolist()):
        view, number = divmod(crop, layout.total)
        u, v = np.clip(np.round(centres[number]).astype(int), 0, [layout.width - 1, layout.height - 1])
        region = int(room.masks[view, v, u])
        on_part = text in room.part_texts[region]
        met = (room.part_texts[region] or room.texts[region] or ["nothing"])[0]
        sibling = bool(room.part_texts[region]) and room.texts[region][0] == kind_of(text) and not on_part
        answers.on_part.append(on_part)
        answers.in_box.append(on_part or (not sibling and _in_grown_box(room, text, view, u, v)))
        answers.met.append(met)
        answers.crop_px.append(int(sizes[number]))
    return answers


def confusions(pairs: Iterable[tuple[str, str]], title: str, most: int = 25) -> str:
    """A table of what was taken for what most often, with how many of the asked there were."""
    pairs = list(pairs)
    asked = Counter(truth for truth, _ in pairs)
    wrong = Counter(pair for pair in pairs if pair[0] != pair[1])
    right = len(pairs) - sum(wrong.values())
    lines = [f"{title}: {right} of {len(pairs)} right"]
    lines += [f"  {count:3d} of {asked[a]:3d}  {a} -> {b}" for (a, b), count in wrong.most_common(most)]
    return "\n".join(lines)


def kind_of(text: str) -> str:
    """The kind of which "armchair legs" are a part."""
    return max((kind for kind in KINDS if text.startswith(f"{kind} ")), key=len)


def _in_grown_box(room: RoomViews, text: str, view: int, u: int, v: int) -> bool:
    for region, texts in enumerate(room.part_texts):
        if texts and texts[0] == text and room.visible[1, view, region]:
            at_u, at_v, width, height = room.boxes[1, view, region]
            if abs(u - at_u) <= width * (0.5 + GROWTH) and abs(v - at_v) <= height * (0.5 + GROWTH):
                return True
    return False
