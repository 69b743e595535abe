"""How well an encoder tells crops of unseen rooms apart, picture by picture; the calibration of its relevancy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from mini_clip_parts import confusions, kind_of, locate_parts, name_parts, part_candidates, part_sights
from mini_clip_views import RoomViews
from scipy.stats import rankdata
from torch import Tensor

from lerf_ros.features.encoder import Encoder, RelevancyCalibration
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.query.relevancy import relevancy
from lerf_ros.world.kinds.catalogue import HELD_OUT_COMBINATIONS, KINDS, OBJECTS, lookalikes
from lerf_ros.world.materials import COLOURS

MIN_VISIBLE = 300  # px of an object in a 640x480 view that counts as reasonably visible
MIN_WHOLE = 0.4  # .. and how much of its 2D box must be in view and not hidden
CENTRED_CROP = 1.25  # side of an object-centred crop, in sides of the object's 2D box
ABSENT_QUERIES = 5  # of each sort in a room
CLEAR_RELEVANCY = 0.8  # what k makes of the median object-centred crop
_HELD_OUT = {f"{colour} {kind}" for kind, colour in HELD_OUT_COMBINATIONS}


@dataclass(frozen=True)
class Sight:
    """A thing in a view: what it is ("mug", "red mug") and its 2D box (u0, v0, u1, v1)."""

    kind: str
    pair: str
    view: int
    box: tuple[float, float, float, float]


def sights(room: RoomViews, pixels: float = MIN_VISIBLE, whole: float = MIN_WHOLE) -> list[Sight]:
    """Every object and piece of furniture in every view where it is (by default reasonably) visible."""
    found = []
    for number in np.unique(room.instance[1:]):
        region = int(np.argmax(room.instance == number))
        kind, pair, _ = room.texts[region]
        visible = (room.visible[0, :, region] >= pixels) & (room.whole[:, region] >= whole)
        for view in np.flatnonzero(visible):
            u, v, width, height = room.boxes[0, view, region]
            if kind in KINDS:
                found.append(
                    Sight(kind, pair, int(view), (u - width / 2, v - height / 2, u + width / 2, v + height / 2))
                )
    return found


def absent_queries(room: RoomViews, rng: np.random.Generator) -> list[str]:
    """Objects that are not in the room: some of a kind that is, in another colour, and some of a kind that is not."""
    kinds = {texts[0] for texts in room.texts if texts}
    pairs = {texts[1] for texts in room.texts if texts}
    taken = set().union(*(lookalikes(kind) for kind in kinds))
    named = {f"{pair.split()[0]} {other}" for pair in pairs for other in lookalikes(" ".join(pair.split()[1:]))}
    recoloured = [f"{c} {k}" for k in OBJECTS if k in kinds for c in OBJECTS[k].colours if f"{c} {k}" not in named]
    foreign = [f"{c} {k}" for k in OBJECTS if k not in taken for c in OBJECTS[k].colours]
    return [str(text) for texts in (recoloured, foreign) for text in rng.choice(texts, ABSENT_QUERIES, replace=False)]


def sight_embeds(encoder: Encoder, room: RoomViews, seen: Sequence[Sight]) -> Tensor:
    """Embeddings (N, D) of a square crop around each sight."""
    boxes = np.array([sight.box for sight in seen]).reshape(-1, 2, 2)
    sides = CENTRED_CROP * np.ptp(boxes, axis=1).max(axis=1)
    return centred_embeds(encoder, room, [sight.view for sight in seen], boxes.mean(axis=1), sides)


def centred_embeds(
    encoder: Encoder, room: RoomViews, views: Sequence[int], centres: np.ndarray, sides: np.ndarray
) -> Tensor:
    """Embeddings (N, D) of square crops around ``centres`` (N, 2) uv; ``sides`` (N,) px, cut to the pyramid's range."""
    crops = []
    for view, (u, v), side in zip(views, centres, sides):
        half = min(max(side, 24), 240) / 2
        image = np.pad(room.images[view], ((120, 120), (120, 120), (0, 0)), mode="reflect")
        top, left = round(v - half) + 120, round(u - half) + 120
        crop = torch.from_numpy(image[top : top + round(2 * half), left : left + round(2 * half)]).permute(2, 0, 1)
        size = (encoder.image_size, encoder.image_size)
        crops.append(F.interpolate(crop[None] / 255.0, size, mode="bilinear", antialias=True))
    if not crops:
        return torch.zeros(0, encoder.embed_dim, device=encoder.device)
    return torch.cat([encoder.encode_images(batch) for batch in torch.cat(crops).split(256)])


def pyramid_embeds(encoder: Encoder, room: RoomViews) -> tuple[PyramidLayout, Tensor]:
    """The crop pyramid and the embeddings (V * crops, D) of all views, view by view."""
    layout = PyramidLayout.build(*room.images.shape[1:3])
    embeds = []
    for image in room.images:
        image = torch.from_numpy(image).to(encoder.device).permute(2, 0, 1) / 255.0
        levels = [layout.crops(image, level, size=encoder.image_size) for level in range(len(layout.levels))]
        embeds += [encoder.encode_images(batch) for batch in torch.cat(levels).split(256)]
    return layout, torch.cat(embeds)


@dataclass(frozen=True)
class RoomScores:
    """Best cosine margin over the best canonical phrase that any crop of the room's pyramids has for each text."""

    present: np.ndarray
    hit: np.ndarray  # (present,) bool: that crop's centre lies in the object's 2D box
    absent: np.ndarray


def score_room(encoder: Encoder, room: RoomViews, layout: PyramidLayout, embeds: Tensor) -> RoomScores:
    """Asks for all objects seen in the room and for some that are not there; pyramids from `pyramid_embeds`."""
    present = sorted({sight.pair for sight in sights(room)})
    absent = absent_queries(room, np.random.default_rng([room.seed, 2]))
    texts = encoder.encode_texts([*present, *absent])
    canonical = encoder.encode_texts(encoder.calibration.canonical_phrases)
    centres = torch.cat([layout.centres(level) for level in range(len(layout.levels))]).numpy()
    best = (embeds @ texts.T - (embeds @ canonical.T).amax(dim=1, keepdim=True)).cpu().numpy()
    where = best.argmax(axis=0)[: len(present)]
    targets = sights(room, pixels=1, whole=0.0)
    hits = [
        any(
            _inside(centres[crop % layout.total], target.box)
            for target in targets
            if (target.pair, target.view) == answer
        )
        for crop, answer in zip(where, zip(present, where // layout.total))
    ]
    top = best.max(axis=0)
    return RoomScores(top[: len(present)], np.array(hits), top[len(present) :])


def calibrate(encoder: Encoder, rooms: Sequence[RoomViews]) -> RelevancyCalibration:
    """k, so that a clear view of an object is clearly relevant; the threshold that best parts present from absent."""
    canonical = encoder.encode_texts(encoder.calibration.canonical_phrases)
    clear = []
    for room in rooms:
        seen = sights(room)
        embeds = sight_embeds(encoder, room, seen)
        own = (embeds * encoder.encode_texts([sight.pair for sight in seen])).sum(dim=1)
        clear.append(own - (embeds @ canonical.T).amax(dim=1))
    k = float(np.log(CLEAR_RELEVANCY / (1 - CLEAR_RELEVANCY)) / max(torch.cat(clear).median().item(), 0.02))
    scores = [score_room(encoder, room, *pyramid_embeds(encoder, room)) for room in rooms]
    present, absent = (
        1 / (1 + np.exp(-k * np.concatenate(values))) for values in zip(*((s.present, s.absent) for s in scores))
    )
    thresholds = np.linspace(0.3, 0.95, 131)
    balance = [(present > t).mean() + (absent <= t).mean() for t in thresholds]
    best = thresholds[np.isclose(balance, max(balance))]
    return replace(encoder.calibration, k=round(k, 2), found_threshold=round(float(best.mean()), 3))


def evaluate(encoder: Encoder, rooms: Sequence[RoomViews]) -> tuple[dict[str, float], str]:
    """Figures of the card, each a part of 1, and tables of what is taken for what."""
    kinds = list(KINDS)
    right: dict[str, list[bool]] = {}
    named: dict[str, list[tuple[str, str]]] = {"kinds": [], "colours": [], "parts": []}
    own, other, scores, located = [], [], [], []
    for room in rooms:
        seen = sights(room)
        embeds = sight_embeds(encoder, room, seen)
        pairs = sorted({sight.pair for sight in seen})
        by_kind, by_pair = embeds @ encoder.encode_texts(kinds).T, embeds @ encoder.encode_texts(pairs).T
        rivals = encoder.encode_texts(absent_queries(room, np.random.default_rng([room.seed, 2])))
        canonical = embeds @ encoder.encode_texts(encoder.calibration.canonical_phrases).T
        for i, sight in enumerate(seen):
            coloured = [f"{colour} {sight.kind}" for colour in COLOURS]
            colour = coloured[int((embeds[i] @ encoder.encode_texts(coloured).T).argmax())]
            kind = kinds[int(by_kind[i].argmax())]
            named["kinds"].append((sight.kind, kind))
            named["colours"].append((sight.pair, colour))
            answers = {
                "kind": kind == sight.kind,
                "colour": colour == sight.pair,
                "kind x colour": pairs[int(by_pair[i].argmax())] == sight.pair,
            }
            for name, answer in answers.items():
                right.setdefault(name, []).append(answer)
                if sight.pair in _HELD_OUT:
                    right.setdefault(f"{name}, held out", []).append(answer)
        texts = torch.cat(
            [encoder.encode_texts([sight.pair for sight in seen])[:, None], rivals.expand(len(seen), -1, -1)], dim=1
        )
        relevancies = relevancy(torch.einsum("nd,ntd->nt", embeds, texts), canonical, encoder.calibration.k)
        own.append(relevancies[:, 0].cpu().numpy())
        other.append(relevancies[:, 1:].flatten().cpu().numpy())
        parts = part_sights(room)
        centres, sides = np.array([part.pixel for part in parts]), np.array([part.crop_px for part in parts])
        named["parts"] += name_parts(
            encoder, parts, centred_embeds(encoder, room, [part.view for part in parts], centres, sides)
        )
        pyramids = pyramid_embeds(encoder, room)
        scores.append(score_room(encoder, room, *pyramids))
        located.append(locate_parts(encoder, room, *pyramids))
    margin = (
        np.log(encoder.calibration.found_threshold / (1 - encoder.calibration.found_threshold)) / encoder.calibration.k
    )
    present, hit, absent = (np.concatenate([getattr(s, name) for s in scores]) for name in ("present", "hit", "absent"))
    wrong_colour = np.concatenate([s.absent[:ABSENT_QUERIES] for s in scores])
    on_part, in_box = (np.concatenate([getattr(a, name) for a in located]) for name in ("on_part", "in_box"))
    figures = {
        **{name: float(np.mean(answers)) for name, answers in right.items()},
        "relevancy AUROC": _auroc(np.concatenate(own), np.concatenate(other)),
        "existence AUROC": _auroc(present, absent),
        "localised": float(hit.mean()),
        "found": float((present > margin).mean()),
        "localised and found": float(((present > margin) & hit).mean()),
        "absent rejected": float((absent <= margin).mean()),
        "absent colour rejected": float((wrong_colour <= margin).mean()),
        "part": float(np.mean([said == part for part, said in named["parts"]])),
        "part, chance": float(np.mean([1 / len(part_candidates(kind_of(part))) for part, _ in named["parts"]])),
        "part met": float(on_part.mean()),
        "part localised": float(in_box.mean()),
        "crops": len(right["kind"]),
        "crops held out": len(right.get("kind, held out", [])),
        "part crops": len(named["parts"]),
        "present queries": len(present),
        "absent queries": len(absent),
        "part queries": len(on_part),
    }
    met = [
        (text, text if good else thing)
        for answers in located
        for text, good, thing in zip(answers.texts, answers.in_box, answers.met)
    ]
    tables = [confusions(pairs, title) for title, pairs in named.items()]
    return figures, "\n".join([*tables, confusions(met, "parts sought, and what was met")])


def _inside(uv: np.ndarray, box: tuple[float, float, float, float]) -> bool:
    return bool(box[0] <= uv[0] < box[2] and box[1] <= uv[1] < box[3])


def _auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Chance that a positive scores above a negative (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    return float((ranks.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))
