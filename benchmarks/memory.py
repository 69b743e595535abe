"""GPU memory of a map: before the first frame, in training, while a question is asked and a view is rendered.

    python benchmarks/memory.py [--data FOLDER] [--presets robot base] [--keyframes 50 100 300] [--encoders mini RN50]

One row for each preset, encoder and number of keyframes, for which `keyframe.capacity` is set: memory is reserved for
all of them at once. Keyframes beyond the preset's own capacity are left away. A row whose memory runs out says so, and
the next one is measured; a warning before tells what shrank to avoid it.

Columns, GB of 10^9 bytes: what PyTorch has reserved before the first frame (weights of the encoder and of the fields);
then for each kind of work the most that tensors took, and in brackets the most that PyTorch reserved for them; and what
the device lacked after the work that took the most: the CUDA context, kernels and libraries included, and other
programs too. Beside it, what is predicted: what a map keeps (`lerf_ros.mapping.memory`) and the encoder's weights,
without what a unit of work needs for itself. Last, how much a question found to work on: points of the surface, and
crops of the keyframes that its closer looks encoded.

Embeddings are random but for those of the newest keyframe, whose crops are encoded while the map trains. Between rows
everything but the encoder is freed, between kinds of work PyTorch's cache is emptied.
"""

from __future__ import annotations

import argparse
import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from measuring import provenance, write_json
from query import phrases
from scenes import (
    EVERY_FRAME,
    build_encoder,
    fill_pyramids,
    in_fixed_volume,
    keyframe_each,
    load_frames,
    moved,
    parser_of,
    train,
)

from lerf_ros.evaluation.methods import SURFACE_POINTS
from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.memory import MapMemory, encoder_bytes, map_memory
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query import targets

_VIEW_HEIGHT = 480  # px, of the rendered view
_WHOLE_SURFACE = {"surface.min_opacity": 0.0, "surface.max_spread": 1e6}  # however little is learned of it
_TARGET = ("base", 300, "ViT-B-16", 6e9)  # preset, keyframes, encoder; bytes that PyTorch may reserve


@dataclass(frozen=True)
class Case:
    """What is mapped: keyframes is the capacity, too."""

    preset: str
    keyframes: int
    encoder: str

    def config(self, frames: Sequence[Frame]) -> MapperConfig:
        config = in_fixed_volume(PRESETS[self.preset], frames).override(EVERY_FRAME)
        return config.override({"keyframe.capacity": self.keyframes, **_WHOLE_SURFACE})

    @property
    def target_bytes(self) -> float | None:
        preset, keyframes, encoder, target = _TARGET
        return target if (self.preset, self.keyframes, self.encoder) == (preset, keyframes, encoder) else None


@dataclass(frozen=True)
class Use:
    """Bytes during one kind of work: the most that tensors took, the most that PyTorch reserved; and after it, what is
    not free on the device."""

    allocated: int
    reserved: int
    device: int


@dataclass(frozen=True)
class Row:
    """Bytes. reserved_before: by PyTorch, before the first frame; predicted: what the map keeps; failed: empty, or
    why the row ends early, with what was measured until then. surface_points: of the question; close_up_crops: that it
    had encoded."""

    case: Case
    reserved_before: int
    encoder: int
    predicted: MapMemory
    uses: dict[str, Use]
    surface_points: int
    close_up_crops: int
    target: float | None
    failed: str = ""

    @property
    def reserved(self) -> int:
        """The most that PyTorch reserved in any work; 0 when there was none."""
        return max((use.reserved for use in self.uses.values()), default=0)


def cases_of(presets: Sequence[str], keyframes: Sequence[int], encoders: Sequence[str]) -> list[Case]:
    """Every combination, as many keyframes as the preset holds at most; those of one encoder together."""
    limited = {preset: [min(k, PRESETS[preset].keyframe.capacity) for k in keyframes] for preset in presets}
    return [
        Case(preset, count, encoder)
        for encoder in encoders
        for preset in presets
        for count in dict.fromkeys(limited[preset])
    ]


def repeated(frames: Sequence[Frame], count: int) -> list[Frame]:
    """`count` frames, over and over if need be, each time from a little farther."""
    return [moved(frames[i % len(frames)], i // len(frames)) for i in range(count)]


def measure_case(
    case: Case, frames: Sequence[Frame], encoder: Encoder, device: torch.device, steps: int, max_points: int
) -> Row:
    frames = repeated(frames, case.keyframes)
    config, camera = case.config(frames), frames[0].camera
    view = camera.scaled(_VIEW_HEIGHT / camera.height)
    uses: dict[str, Use] = {}
    asked = {"points": 0, "crops": 0}
    forget_other_rows()
    before = 0
    failed = ""

    def training() -> None:
        keyframe_each(online, frames[:-1])
        assert online.mapper.store is not None
        fill_pyramids(online.mapper.store)
        online.ingest(frames[-1])  # its crops are encoded
        train(online, steps)

    def question() -> None:
        surface = online.surface(max_points)
        targets.find_targets(surface, encoder, phrases(encoder, 1))
        asked["points"] = len(surface.points.x_world)
        asked["crops"] = int(online._close_ups._done.sum()) if online._close_ups is not None else 0

    def rendering() -> None:
        online.mapper.render(view, frames[0].T_world_camera)

    try:
        online = OnlineMapper(config, encoder, device)
        before = torch.cuda.memory_reserved(device)
        for name, work in (("training", training), ("question", question), ("rendering", rendering)):
            uses[name] = used_by(work, device)
    except torch.OutOfMemoryError as error:
        failed = str(error).partition("\n")[0]
    predicted = map_memory(config, camera, encoder, max_points)
    return Row(
        case,
        before,
        encoder_bytes(encoder),
        predicted,
        uses,
        asked["points"],
        asked["crops"],
        case.target_bytes,
        failed,
    )


def used_by(work: Callable[[], Any], device: torch.device) -> Use:
    """Runs it from an empty cache; what it keeps is counted in what comes next."""
    release()
    torch.cuda.reset_peak_memory_stats(device)
    work()
    torch.cuda.synchronize(device)
    free, total = torch.cuda.mem_get_info(device)
    return Use(torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device), total - free)


def forget_other_rows() -> None:
    """What outlives a map: the neighbours of its surface points, and workspaces, which no captured step needs now."""
    targets._prepared.cache_clear()
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    release()


def release() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def table_of(rows: Sequence[Row]) -> str:
    kinds = ("training", "question", "rendering")
    head = f"{'GB':26}{'before':>8}" + "".join(f"{kind:>15}" for kind in kinds)
    lines = [f"{head}{'device':>9}{'predicted':>11} = {'map':>5} + encoder{'target':>8}{'points':>8}{'crops':>8}"]
    for row in rows:
        case = row.case
        cells = [f"{case.preset} {case.keyframes} {case.encoder}".ljust(26), _gb(row.reserved_before).rjust(8)]
        for kind in kinds:
            use = row.uses.get(kind)
            cells.append((f"{_gb(use.allocated)} ({_gb(use.reserved)})" if use else "-").rjust(15))
        cells.append(_gb(max((use.device for use in row.uses.values()), default=0)).rjust(9))
        kept = row.predicted.total
        cells.append(f"{_gb(kept + row.encoder):>11} = {_gb(kept):>5} + {_gb(row.encoder):>7}")
        cells.append(f"{'-' if row.target is None else _gb(row.target):>8}")
        cells.append(f"{row.surface_points:8}{row.close_up_crops:8}")
        lines.append("".join(cells) + (f"  out of memory: {row.failed}" if row.failed else ""))
    return "\n".join(lines)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "memory", frames=50)
    parser.add_argument(
        "--presets", nargs="+", choices=sorted(PRESETS), default=["robot", "base"], help="--preset has no meaning here"
    )
    parser.add_argument("--keyframes", nargs="+", type=int, default=[50, 100, 300], help="2 or more; at most capacity")
    encoders = "mini, or models of open_clip with random weights"
    parser.add_argument("--encoders", nargs="+", default=["mini", "ViT-B-16"], help=encoders)
    parser.add_argument("--steps", type=int, default=300, help="of training, so that there is a surface to ask about")
    parser.add_argument("--points", type=int, default=SURFACE_POINTS, help="of the surface")
    options = parser.parse_args(arguments)
    if options.device.type != "cuda" or not torch.cuda.is_available():
        parser.error("GPU memory is measured, and there is no GPU here: give --device cuda on a machine with one")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    measure_all(options)


def measure_all(options: argparse.Namespace) -> None:
    device, origin = options.device, provenance(options.device)
    total = torch.cuda.mem_get_info(device)[1]
    origin |= {"data": options.data.rstrip("/").rpartition("/")[2], "steps": options.steps, "points": options.points}
    origin |= {"device_memory_gb": round(total / 1e9, 1)}
    print(", ".join(f"{name} {value}" for name, value in origin.items()), flush=True)
    frames, rows = load_frames(options.data, options.frames), []
    encoder = None
    for case in cases_of(options.presets, options.keyframes, options.encoders):
        if encoder is None or encoder.name != case.encoder:
            encoder = None  # before the next one takes its memory
            encoder = build_encoder(case.encoder, device)
        rows.append(measure_case(case, frames, encoder, device, options.steps, options.points))
        print(f"measured {case.preset} {case.keyframes} {case.encoder}", flush=True)
    write_json(options.json, "memory", origin, None, rows)
    print(f"\n{table_of(rows)}")


if __name__ == "__main__":
    main()
