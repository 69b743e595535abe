"""Maps generated rooms, asks every question, and says how often the answer is right.

python -m lerf_ros.evaluation --seeds 4000,4001 --preset cpu --seconds 150
python -m lerf_ros.evaluation --device cuda --preset base --seconds 30 --jobs 4 --variants default,dino

Every room is one line in `OUT/rooms/*.jsonl` as soon as it is done. What is there already, under the same settings, is
not done again: a large set can be collected over several runs, and a run may be ended at any time.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from lerf_ros.evaluation import records, report
from lerf_ros.evaluation.ablations import VARIANTS
from lerf_ros.evaluation.collect import Job, collect, pending, run_file
from lerf_ros.evaluation.pacing import Budget
from lerf_ros.evaluation.records import RunSettings
from lerf_ros.features.encoder import load_encoder
from lerf_ros.mapping.config import PRESETS

COMPARED = ("default", "no_depth")  # variants unless others are named: an RGB-D camera, and colours alone
INTERRUPTED = 130  # exit status, as shells have it for SIGINT
# Rooms 4040 to 4059 were never trained on, tuned on or looked at during development.
FIRST_SEED, ROOMS_CUDA, ROOMS_CPU = 4040, 20, 2
SECONDS_CUDA, SECONDS_CPU = 60.0, 150.0


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    cuda = options.device.startswith("cuda")
    interrupted = False
    if not options.report_only:
        seconds = options.seconds or (SECONDS_CUDA if cuda else SECONDS_CPU)
        settings = RunSettings(
            preset=options.preset or ("base" if cuda else "cpu"),
            budget=Budget(steps=options.steps) if options.steps else Budget(seconds=seconds),
            device=options.device,
            encoder_hash=records.encoder_hash(load_encoder(options.encoder, options.pretrained)),
            overrides=dict(options.set),
            jobs=options.jobs,
            views=options.views,
            stops=options.stops,
        )
        folders = [options.out / "rooms", *options.known]
        known = {(r.seed, r.variant, r.fingerprint) for folder in folders for r in records.read(folder)}
        seeds = options.seeds or list(range(FIRST_SEED, FIRST_SEED + (ROOMS_CUDA if cuda else ROOMS_CPU)))
        tasks = pending(seeds, options.variants, settings, known)
        pictures = options.out / "pictures" if options.pictures else None
        try:
            collect(tasks, Job(settings, (options.encoder, options.pretrained), run_file(options.out), pictures))
        except KeyboardInterrupt:
            interrupted = True
    results = [r for folder in (*options.known, options.out / "rooms") for r in records.read(folder)]
    for other in options.against:
        results += [replace(r, variant=f"{r.variant} of {other.name}") for r in records.read(other / "rooms")]
    if not results:
        print(f"there are no results in {options.out} to report on", file=sys.stderr)
        return INTERRUPTED if interrupted else 1
    values = report.write(options.out, records.latest(results))
    print(report.markdown(values))
    print(f"written to {options.out}: summary.json, report.md, precision_recall.png, accuracy_seconds.png")
    if interrupted:
        print("interrupted: the same command goes on where this one was", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m lerf_ros.evaluation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--seeds",
        type=seed_list,
        default=os.environ.get("LERF_SEEDS", ""),
        help=f"rooms: a,b,c or a-b; default: LERF_SEEDS, or {ROOMS_CUDA} from {FIRST_SEED} on, {ROOMS_CPU} on a CPU",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: base on a GPU, else cpu")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--seconds", type=float, help=f"training a room; default {SECONDS_CUDA:.0f}, CPU {SECONDS_CPU:.0f}"
    )
    budget.add_argument("--steps", type=int, help="training steps a room, instead of seconds")
    parser.add_argument(
        "--variants",
        type=lambda text: text.split(","),
        default=list(COMPARED),
        help=f"default: {','.join(COMPARED)} (with depth, and from colours alone); there are {', '.join(VARIANTS)}",
    )
    parser.add_argument("--jobs", type=int, default=1, help="rooms at a time, each in a process of its own")
    parser.add_argument("--out", type=Path, default=Path("out/evaluation"))
    parser.add_argument("--known", type=Path, action="append", default=[], help="folder with results of earlier runs")
    parser.add_argument(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="of another run's --out, say of another commit: its variants are reported, and paired differences to them",
    )
    parser.add_argument("--report-only", action="store_true", help="report on the results that there are")
    parser.add_argument("--views", type=int, default=12, help="held-out views a room")
    parser.add_argument(
        "--stops", type=_shares, default=RunSettings.stops, help="ask at these shares of the budget, too"
    )
    parser.add_argument(
        "--pictures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a sheet of relevancy views for every room",
    )
    parser.add_argument("--encoder", default="mini", help="mini, or the name of an open_clip model")
    parser.add_argument("--pretrained", default="", help="its weights: tag or file")
    parser.add_argument(
        "--set", nargs="*", type=name_and_value, default=[], metavar="NAME=VALUE", help="other numbers of the preset"
    )
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: there is no GPU here that torch can use")
    for name in options.variants:
        if name not in VARIANTS:
            parser.error(f"there is no variant {name}; there are {', '.join(VARIANTS)}")
    return options


def seed_list(text: str) -> list[int]:
    """ "4,7-9" -> [4, 7, 8, 9]."""
    seeds: list[int] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _shares(text: str) -> tuple[float, ...]:
    """ "0.25,0.5" -> (0.25, 0.5, 1.0)."""
    return tuple(sorted({1.0, *(float(share) for share in text.split(",") if 0.0 < float(share) <= 1.0)}))


def name_and_value(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting: write name=value, as in pyramid.batch=1024")
    return name, yaml.safe_load(value)
