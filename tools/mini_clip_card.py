"""The model card of mini CLIP, written from what was measured."""

from __future__ import annotations

import argparse
import datetime
import platform

import torch
from mini_clip_evaluation import CLEAR_RELEVANCY, MIN_VISIBLE, MIN_WHOLE
from mini_clip_parts import MIN_PART_PX
from mini_clip_texts import CANONICAL_PHRASES, TextBank

from lerf_ros.features.encoder import Encoder
from lerf_ros.world.kinds.catalogue import FURNITURE, HELD_OUT_COMBINATIONS, OBJECTS, STRUCTURE
from lerf_ros.world.materials import COLOURS


def model_card(
    encoder: Encoder, bank: TextBank, figures: dict[str, float], options: argparse.Namespace, steps: int, views: int
) -> str:
    """Markdown; ``figures`` from ``mini_clip_evaluation.evaluate``, ``steps`` and ``views`` as trained."""
    parameters = sum(p.numel() for p in encoder.model.parameters()) / 1e6
    device = torch.cuda.get_device_name() if encoder.device.type == "cuda" else platform.machine()
    percent = {name: f"{100 * value:.1f} %" for name, value in figures.items()}
    calibration = encoder.calibration
    rooms = views // (options.views * (1 + options.repainted))
    held_out = ", ".join(f"{colour} {kind}" for kind, colour in HELD_OUT_COMBINATIONS)
    return f"""# mini CLIP

The encoder that makes text mean something in `lerf_ros` without a download: open_clip's `CLIP` class in a small
configuration (`mini.json`; {parameters:.2f} M parameters, {encoder.image_size} px crops, {encoder.embed_dim}
dimensions, fp16), trained on crops of the procedural rooms of `lerf_ros/world` and on nothing else. On a robot use
`ViT-B-16`.

## What it knows

- Objects: {", ".join(OBJECTS)}.
- Furniture: {", ".join(FURNITURE)}. Of the room itself: {", ".join(STRUCTURE)}.
- Colours and materials: {", ".join(COLOURS)}; said as "red mug" or "something red".
- Parts of objects, said as "bear nose" or "nose of the bear": less reliably than whole objects (figures below).
- {len(bank.tokenizer.words)} words (`vocabulary.txt`): the names above, some synonyms ("couch", "cup"), phrases around
  them ("where is the red mug"), at most {bank.tokenizer.context_length - 2} words. Case, punctuation and plural do not
  matter.

## What it does not know

- Any other word. A text with an unknown word is reported, and the model was trained to match it with nothing.
- Relations ("the mug on the table"), counts, sizes ("small" is read but means nothing), negation.
- Photographs: it has only seen rendered rooms. In a recording of a real room its answers are close to chance.
- A crop's embedding is about what is at the crop's middle; what is only at its rim is left out on purpose.
- Kinds that look alike (bowl and plate, bin and bucket, ball and globe from behind) are mixed up at times.

## Figures

2D crops of {options.test_rooms} evaluation rooms (seeds never used in training, calibration or any choice),
{options.views} views each with a sensor's noise; crops centred on objects and furniture of at least {MIN_VISIBLE}
visible pixels and at least {MIN_WHOLE:.0%} of their projected 3D box in view and not hidden
({figures["crops"]:.0f} crops, of which
{figures["crops held out"]:.0f} of combinations of kind and colour never seen in training).

| | all | held-out combinations |
| --- | --- | --- |
| kind, among all {len(OBJECTS) + len(FURNITURE)} | {percent["kind"]} | {percent.get("kind, held out", "-")} |
| colour, among all {len(COLOURS)}, kind given | {percent["colour"]} | {percent.get("colour, held out", "-")} |
| kind x colour, in the room | {percent["kind x colour"]} | {percent.get("kind x colour, held out", "-")} |

| over the full crop pyramid of all views of a room | |
| --- | --- |
| best crop's centre in the object's 2D box, {figures["present queries"]:.0f} present queries | {percent["localised"]} |
| found (relevancy above the threshold) | {percent["found"]} |
| absent objects rejected, {figures["absent queries"]:.0f} queries | {percent["absent rejected"]} |
| of these: kind present, but in another colour | {percent["absent colour rejected"]} |
| AUROC of present against absent queries, best crop of all views | {figures["existence AUROC"]:.4f} |
| AUROC of the relevancy of object-centred crops, right against absent texts | {figures["relevancy AUROC"]:.4f} |

| parts of at least {MIN_PART_PX} visible pixels | |
| --- | --- |
| best crop's centre in the part's 2D box grown by a quarter and on no sibling, {figures["part queries"]:.0f} queries \
| {percent["part localised"]} |
| best crop's centre pixel is of the part, or of a part of it | {percent["part met"]} |
| part-centred crops: own text above the whole's and all siblings' (chance {percent["part, chance"]}), \
{figures["part crops"]:.0f} crops | {percent["part"]} |

Held-out combinations: {held_out}.

## Relevancy

Canonical phrases: {", ".join(f'"{phrase}"' for phrase in CANONICAL_PHRASES)}; they were trained to lie between what is
true of a crop and what is false. k = {calibration.k} gives the median object-centred crop of the validation rooms a
relevancy of {CLEAR_RELEVANCY} for its own text; the threshold {calibration.found_threshold} parts present from absent
objects best there (best crop of all views).

That threshold is for single crops, and the figures above are taken with it. A map averages crops of many views, and
what it says of absent things is far lower: `calibration.json` holds the threshold for maps, {options.map_threshold}. It
was given to the tool (`--map-threshold`), not measured by it; it has to be chosen on maps of validation rooms.

Places in a map are ranked by the similarity to the text, less {calibration.contrast:g} times that to the canonical
phrases (`contrast`; LERF's relevancy is 1): these lie low on crops beside a thing, so that relevancy peaks there.

## Training

`tools/train_mini_clip.py` on {datetime.date.today()}, {device}, PyTorch {torch.__version__.split("+")[0]}: {steps}
steps of {options.batch} crops in {options.minutes:g} minutes, from {views} views of {rooms} training rooms
({options.repainted} of {1 + options.repainted} views with things in other colours; seed {options.seed}, learning rate
{options.learning_rate:g}). `--minutes {options.minutes:g}` repeats it.
Weights: Apache-2.0, as the package.
"""
