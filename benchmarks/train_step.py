"""Training steps per second of a preset, what a step spends where, and the held-out quality that they buy.

    python benchmarks/train_step.py [--data FOLDER] [--encoder ViT-B-16]
    python benchmarks/train_step.py --data FOLDER --heldout FOLDER --psnr-steps 2000 --psnr-seconds 77
    LERF_TRITON=0 python benchmarks/train_step.py --steps 0 --data FOLDER --heldout FOLDER --psnr-steps 2000

The last is the held-out quality of the torch reference alone, without any kernel of ours, on the same GPU: what the
kernels must not fall below after the same number of steps. Give it a `--json` of its own.

Rows: with depth; the same without language; colours only, with the depth that stereo finds; and both while keyframes
arrive at `--rate` a second and their crops are encoded, counted in windows of a second; of these keyframes also,
how long after its arrival one can be trained on with its coarse scales, and with all. Steps are timed by the host's
clock.

The limit of a step counts, over the copy bandwidth and matrix rate of the same run: the 32-byte sectors of the tables
that it touches (read once, gradient written and read once, Adam's values and moments read and written), its language
targets, and the matrix operations of the networks, forward and backward; the larger of the two times, as if everything
else were hidden. Where keyframes arrive, the coarse crops of `--rate` of them take their matrix operations from every
second; a rate that leaves nothing has no limit.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from measuring import Machine, Timing, count_operations, measure_host, provenance, synchronise, write_json
from numpy.typing import NDArray
from quality import Quality, held_out_frames, held_out_quality
from scenes import (
    COARSE,
    EVERY_FRAME,
    build_encoder,
    fill_pyramids,
    in_fixed_volume,
    keyframe_each,
    load_frames,
    moved,
    parser_of,
    without_depth,
)
from step_parts import KernelKind, Part, StepWork, kernel_kinds, measure_parts

from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.online import OnlineMapper

_TARGETS = {
    "with depth": 400.0,
    "with depth, keyframes arriving": 300.0,
    "colours only": 800.0,
    "colours only, keyframes arriving": 450.0,
}  # steps/s, one H200
_COARSE_TARGET_MS, _ALL_TARGET_MS = 100.0, 1000.0  # from a keyframe's arrival, one H200
_WARM_UP = 8  # steps: a few run before the capture


@dataclass(frozen=True)
class Row:
    """Steps of one kind; times in ms. dense_adam_ms: what Adam over all parameters moves."""

    name: str
    keyframes: int
    step: Timing
    steps_per_s: float
    limit_ms: float | None
    dense_adam_ms: float
    target_steps_per_s: float | None


@dataclass(frozen=True)
class Arrival:
    """Keyframes that arrived during training, and what of their crops was encoded.

    Attributes:
        keyframes_per_s: that arrived, during `seconds`.
        coarse_share, all_share: of their coarse and of all crops, encoded in the end.
        coarse_ready, all_ready: from a keyframe's arrival until its coarse scales, and all, could be trained on, of
            those that came so far; None: none did.
        coarse_late, all_late: keyframes that did not, and in the end had waited for longer than the target.
    """

    seconds: float
    keyframes_per_s: float
    coarse_share: float
    all_share: float
    coarse_ready: Timing | None
    coarse_late: int
    all_ready: Timing | None
    all_late: int


class Readiness:
    """Since when keyframes wait for some of their scales, (L,) bool, and how long, ms, the others have waited."""

    def __init__(self, scales: NDArray[np.bool_]) -> None:
        self._scales = scales
        self._waiting: list[tuple[int, int, float]] = []  # slot, generation, s
        self._ready_ms: list[float] = []

    def arrived(self, slot: int, generation: int, now: float) -> None:
        self._waiting.append((slot, generation, now))

    def look(self, store: KeyframeStore, now: float) -> None:
        """A keyframe whose slot has gone to another one waits for ever."""
        present = self._waiting
        done = [
            store.generations[slot] == generation and bool(store.host_valid[slot][self._scales].all())
            for slot, generation, _ in present
        ]
        self._ready_ms += [1e3 * (now - since) for (_, _, since), ready in zip(present, done) if ready]
        self._waiting = [keyframe for keyframe, ready in zip(present, done) if not ready]

    @property
    def timing(self) -> Timing | None:
        return Timing.of(self._ready_ms) if self._ready_ms else None

    def late(self, now: float, target_ms: float) -> int:
        """How many wait, and have for longer than `target_ms`."""
        return sum(1e3 * (now - since) > target_ms for _, _, since in self._waiting)


Table = tuple[str, list[Part], list[KernelKind]]  # what kind of step, its parts, its kernels


def steps_row(name: str, online: OnlineMapper, machine: Machine, steps: int) -> Row:
    """Plain steps of a map whose keyframes have all their crops encoded."""
    mapper = online.mapper
    for _ in range(_WARM_UP):
        mapper.step()
    blocks = 10
    step = measure_host(mapper.step, mapper.device, blocks, max(1, steps // blocks))
    work = StepWork.of(mapper)
    return _row(name, online, step, work.limit_ms(machine), work.dense_adam_ms(machine))


def arrivals_row(
    name: str,
    online: OnlineMapper,
    frames: Sequence[Frame],
    machine: Machine,
    rate: float,
    seconds: float,
    window: float = 1.0,
) -> tuple[Row, Arrival]:
    """Units of work while frames arrive in real time, `rate` a second, over and over if need be."""
    mapper, store = online.mapper, online.mapper.store
    assert store is not None
    for _ in range(_WARM_UP):
        mapper.step()
    online.ingest(moved(frames[0], -1))
    while online.pyramid_progress < 1:  # cutting and encoding warm up, too
        online.advance()
    coarse = store.layout.sizes >= COARSE * store.layout.height
    counts = np.array([level.count for level in store.layout.levels])
    of_coarse, of_all = Readiness(coarse), Readiness(np.ones_like(coarse))
    slots, windows, fed = [], [], 0
    synchronise(mapper.device)
    began = opened = time.monotonic()
    steps = 0
    while opened < began + seconds:
        if time.monotonic() >= began + fed / rate:
            decision = online.ingest(moved(frames[fed % len(frames)], fed // len(frames)))
            assert decision.slot is not None and decision.generation is not None, decision.reason
            slots.append(decision.slot)
            for readiness in (of_coarse, of_all):
                readiness.arrived(decision.slot, decision.generation, began + fed / rate)
            fed += 1
        steps += online.advance() is not None
        for readiness in (of_coarse, of_all):
            readiness.look(store, time.monotonic())
        if time.monotonic() >= opened + window:
            synchronise(mapper.device)
            now = time.monotonic()
            windows.append(1e3 * (now - opened) / max(steps, 1))
            opened, steps = now, 0
    valid, work = store.host_valid[slots], StepWork.of(mapper)
    cut = torch.zeros(1, 3, online.encoder.image_size, online.encoder.image_size, device=mapper.device)
    crop_ms = machine.limit_ms(0, count_operations(lambda: online.encoder.encode_images(cut)))
    left = 1 - 1e-3 * crop_ms * float(counts[coarse].sum()) * rate  # of a second
    limit = work.limit_ms(machine) / left if left > 0 else None
    row = _row(name, online, Timing.of(windows), limit, work.dense_adam_ms(machine))
    coarse_share, all_share = (
        float((valid * used * counts).sum() / ((used * counts).sum() * len(slots))) for used in (coarse, coarse | True)
    )
    spent = opened - began
    return row, Arrival(
        spent,
        fed / spent,
        coarse_share,
        all_share,
        of_coarse.timing,
        of_coarse.late(opened, _COARSE_TARGET_MS),
        of_all.timing,
        of_all.late(opened, _ALL_TARGET_MS),
    )


def _row(name: str, online: OnlineMapper, step: Timing, limit_ms: float | None, dense_adam_ms: float) -> Row:
    aimed = _TARGETS.get(name) if online.mapper.config.sampling.rays == PRESETS["base"].sampling.rays else None
    return Row(name, online.mapper.keyframes, step, 1e3 / step.median_ms, limit_ms, dense_adam_ms, aimed)


def build(config: MapperConfig, frames: Sequence[Frame], encoder: Encoder, device: torch.device) -> OnlineMapper:
    """A map with its keyframes, random pyramids and, of frames without depth, what stereo finds."""
    online = keyframe_each(OnlineMapper(config, encoder, device), frames)
    assert online.mapper.store is not None and online.mapper.stereo is not None
    fill_pyramids(online.mapper.store)
    while (work := online.mapper.stereo.next_work) is not None:
        online.mapper.find_depth(work)
    return online


def measure_rows(
    frames: Sequence[Frame], preset: MapperConfig, encoder: Encoder, machine: Machine, options: argparse.Namespace
) -> tuple[list[Row], list[Table], dict[str, Arrival]]:
    """Every kind of step; what a step spends where, with depth and without."""
    device, cuda = options.device, options.device.type == "cuda"
    fixed, bare = in_fixed_volume(preset, frames), without_depth(frames)
    mute = fixed.override({"replay.language": 0.0})
    rows, tables = [], []
    arrivals: dict[str, Arrival] = {}
    for name, config, used in (
        ("with depth", fixed, frames),
        ("with depth, without language", mute, frames),
        ("colours only", fixed, bare),
    ):
        online = build(config, used, encoder, device)
        rows.append(steps_row(name, online, machine, options.steps))
        if name in ("with depth", "colours only"):
            kinds = kernel_kinds(name, online.mapper, 20 if cuda else 2)
            parts = measure_parts(name, online.mapper, rows[-1].step, machine, 30 if cuda else 2)
            tables.append((name, parts, kinds))
        del online  # before the next one takes its memory
    half = max(1, len(frames) // 2)
    for kind, used in (("with depth", frames), ("colours only", bare)):
        online = build(fixed, used[:half], encoder, device)
        name, coming = f"{kind}, keyframes arriving", used[half:] or used
        row, arrival = arrivals_row(name, online, coming, machine, options.rate, options.seconds)
        rows.append(row)
        arrivals[name] = arrival
        del online
    return rows, tables, arrivals


def print_rows(rows: Sequence[Row], tables: Sequence[Table], arrivals: Mapping[str, Arrival]) -> None:
    spread = "ms, median (10 % .. 90 %)"
    for name, parts, kinds in tables:
        print(f"\n{name + ', parts of a step':36}{spread:30}{'limit':>8}")
        for part in parts:
            print(f"{part.name:36}{part.timing!s:30}" + ("" if part.limit_ms is None else f"{part.limit_ms:8.3f}"))
        print(f"\n{name + ', kernels':36}{'ms a step':>10}{'share':>8}{'launches':>10}  the longest")
        for kind in kinds:
            print(f"{kind.name:36}{kind.ms:10.3f}{kind.share:8.1%}{kind.launches:10.0f}  {kind.longest}")
    print(f"\n{'steps':36}{spread:30}{'limit':>8}{'dense Adam':>12}{'steps/s':>10}{'target':>8}")
    for row in rows:
        limit = "       -" if row.limit_ms is None else f"{row.limit_ms:8.3f}"
        target = "" if row.target_steps_per_s is None else f"{row.target_steps_per_s:8.0f}"
        print(f"{row.name:36}{row.step!s:30}{limit}{row.dense_adam_ms:12.3f}{row.steps_per_s:10.1f}{target}")
    for kind, arrival in arrivals.items():
        arrived = f"{kind}: {arrival.keyframes_per_s:.1f} a second"
        print(f"\n{arrived:52}{'encoded':>8}  {spread:30}{'target':>8}{'late':>6}")
        for name, share, ready, target_ms, late in (
            ("coarse scales ready", arrival.coarse_share, arrival.coarse_ready, _COARSE_TARGET_MS, arrival.coarse_late),
            ("all scales ready", arrival.all_share, arrival.all_ready, _ALL_TARGET_MS, arrival.all_late),
        ):
            print(f"{name:52}{share:8.0%}  {ready or 'never'!s:30}{target_ms:8.0f}{late:6}")


def judge_maps(
    frames: Sequence[Frame], preset: MapperConfig, encoder: Encoder, options: argparse.Namespace
) -> list[Quality]:
    """Held-out quality of maps from different seeds, with depth and, where asked for, of colours alone."""
    views, config = held_out_frames(options.heldout, options.data), in_fixed_volume(preset, frames)
    kinds = {"with depth": frames, "colours only": without_depth(frames)}
    results = []
    for name in ["with depth"] if options.depth_only else kinds:
        for seed in range(options.maps):
            online = keyframe_each(OnlineMapper(config, encoder, options.device, seed), kinds[name])
            for quality in held_out_quality(name, online, views, options.psnr_steps, options.psnr_seconds):
                results.append(quality)
                print(
                    f"{name}: held-out PSNR {quality.psnr_db:.2f} dB, depth error {quality.depth_error_m:.3f} m after "
                    f"{quality.steps} steps, {quality.seconds:.1f} s of work",
                    flush=True,
                )
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "train_step", frames=50)
    parser.add_argument("--encoder", default="ViT-B-16", help="mini, or a model of open_clip with random weights")
    parser.add_argument("--steps", type=int, default=500, help="of each row; 0: held-out quality alone")
    parser.add_argument("--rate", type=float, default=5.0, help="keyframes that arrive a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which they arrive")
    parser.add_argument("--heldout", help="recording of the views that are held out")
    parser.add_argument("--psnr-steps", type=int, default=0, help="held-out quality after so many steps ...")
    parser.add_argument("--psnr-seconds", type=float, default=0.0, help="... and after so many seconds of work")
    parser.add_argument("--maps", type=int, default=1, help="that are judged, each from a seed of its own")
    parser.add_argument("--depth-only", action="store_true", help="judge no maps of colours alone")
    options = parser.parse_args(arguments)
    device, origin = options.device, provenance(options.device)
    machine, encoder = Machine.measured(device), build_encoder(options.encoder, device)
    preset, frames = PRESETS[options.preset].override(EVERY_FRAME), load_frames(options.data, options.frames)

    settings = {name: getattr(options, name) for name in ("preset", "frames", "encoder", "rate")}
    origin |= {**settings, "data": options.data.rstrip("/").rpartition("/")[2], "rays": preset.sampling.rays}
    origin |= {"matrix_rate_tflop_s": round(machine.matrix_rate / 1e12, 2)}
    print(", ".join(f"{name} {value}" for name, value in origin.items()), machine, sep="\n", flush=True)
    figures: list[Any] = []
    if options.steps:
        rows, tables, arrivals = measure_rows(frames, preset, encoder, machine, options)
        figures += [*rows, *arrivals.values(), *(figure for _, parts, kinds in tables for figure in (*parts, *kinds))]
        print_rows(rows, tables, arrivals)
    if options.heldout:
        figures += judge_maps(frames, preset, encoder, options)
    write_json(options.json, "train_step", origin, machine.bandwidth, figures)


if __name__ == "__main__":
    main()
