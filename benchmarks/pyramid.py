"""Speed of the crop pyramid: cutting and resizing crops, encoding them, both, and whole keyframes.

    python benchmarks/pyramid.py [--encoders mini ViT-B-16] [--batches 256 512 1024 2048] [--data FOLDER]

A batch has crops of all levels in LERF's own mix. open_clip models have random weights, which are as fast as trained
ones. Keyframes go through `OnlineMapper`, which does nothing else meanwhile: the time until their coarse scales, and
until all of them, can be trained on. Limits, over the copy bandwidth and matrix rate of the same run:

- cutting: the image is read and the resized crops are written, float32;
- encoding: the model's matrix operations, convolutions included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from measuring import Machine, Timing, count_operations, measure, provenance, synchronise, write_json
from scenes import COARSE, EVERY_FRAME, build_encoder, load_frames, parser_of
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper

_HALF = 0.5  # of the limit is the target of encoding
_READY_TARGETS = {"coarse scales": 100.0, "all scales": 1000.0}  # ms after a keyframe's message, one H200


@dataclass(frozen=True)
class Row:
    """Work on a batch of crops: its time, crops/s, the limit of these, and the share of it that is reached."""

    encoder: str
    gflop_per_crop: float
    batch: int
    work: str
    timing: Timing
    crops_per_s: float
    limit_crops_per_s: float
    share: float


@dataclass(frozen=True)
class KeyframeRow:
    """One keyframe's crops at the batch size of its settings; ms."""

    encoder: str
    batch: int
    scales: str
    crops: int
    timing: Timing
    limit_ms: float
    target_ms: float


def mixed_crops(layout: PyramidLayout, batch: int) -> Tensor:
    """Flat indices (B,) of `batch` crops, of every level its share, evenly over the level."""
    ends = [round(batch * (level.offset + level.count) / layout.total) for level in layout.levels]
    parts = []
    for level, begin, end in zip(layout.levels, [0, *ends], ends):
        if end > begin:
            parts.append(level.offset + torch.arange(end - begin) * level.count // (end - begin))
    return torch.cat(parts)


def batch_rows(encoder: Encoder, images: Tensor, batches: Sequence[int], machine: Machine, repeats: int) -> list[Row]:
    """Cutting, encoding and both, on a few images (K, H, W, 3) uint8 in turn."""
    device, size = images.device, encoder.image_size
    layout = PyramidLayout.build(*images.shape[1:3])
    operations = count_operations(lambda: encoder.encode_images(torch.zeros(1, 3, size, size, device=device)))
    rows = []
    for batch in batches:
        index = mixed_crops(layout, batch).to(device)
        slots = [torch.full_like(index, slot) for slot in range(len(images))]
        cuts = [partial(layout.cut, images, of_one, index, size) for of_one in slots]
        crops = [cut() for cut in cuts]
        written = crops[0].numel() * crops[0].element_size()
        cut_ms = machine.limit_ms(images[0].numel() * images[0].element_size() + written)
        encode_ms = machine.limit_ms(0, batch * operations)
        works = {
            "cut and resize": (cuts, cut_ms),
            "encode": ([partial(encoder.encode_images, cut) for cut in crops], encode_ms),
            "both": ([partial(_cut_and_encode, encoder, cut) for cut in cuts], max(cut_ms, encode_ms)),
        }
        for work, (calls, limit_ms) in works.items():
            timing = measure(calls, device, repeats, graph=False)  # as the map calls it
            rate, limit = 1e3 * batch / timing.median_ms, 1e3 * batch / limit_ms
            rows.append(Row(encoder.name, operations / 1e9, batch, work, timing, rate, limit, rate / limit))
    return rows


def _cut_and_encode(encoder: Encoder, cut: Callable[[], Tensor]) -> Tensor:
    return encoder.encode_images(cut())


def keyframe_rows(
    encoder: Encoder, frames: Sequence[Frame], config: MapperConfig, machine: Machine, device: torch.device
) -> list[KeyframeRow]:
    """From a keyframe's arrival until its coarse and until all of its levels can be trained on; the first frame only
    warms up."""
    online = OnlineMapper(config.override(EVERY_FRAME | {"pyramid.time_share": 1.0}), encoder, device)
    camera, pyramid = frames[0].camera, config.pyramid
    layout = PyramidLayout.build(camera.height, camera.width, pyramid.fractions, pyramid.strides)
    coarse = layout.sizes >= COARSE * layout.height
    ready: dict[str, list[float]] = {"coarse scales": [], "all scales": []}
    for frame in frames:
        synchronise(device)
        began = time.perf_counter()
        slot, store = online.ingest(frame).slot, online.mapper.store
        assert slot is not None and store is not None
        for scales, wanted in (("coarse scales", coarse), ("all scales", coarse | True)):
            while not store.host_valid[slot][wanted].all():
                online.advance()
            synchronise(device)
            ready[scales].append(1e3 * (time.perf_counter() - began))
    size = encoder.image_size
    operations = count_operations(lambda: encoder.encode_images(torch.zeros(1, 3, size, size, device=device)))
    of_coarse = sum(level.count for level, used in zip(layout.levels, coarse) if used)
    return [
        KeyframeRow(
            encoder.name,
            pyramid.batch,
            scales,
            crops,
            Timing.of(ready[scales][1:]),
            machine.limit_ms(0, crops * operations),
            _READY_TARGETS[scales],
        )
        for scales, crops in (("coarse scales", of_coarse), ("all scales", layout.total))
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, "pyramid", frames=8)
    parser.add_argument("--encoders", nargs="+", default=["mini", "ViT-B-16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[256, 512, 1024, 2048])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    device, origin = options.device, provenance(options.device)
    machine, preset = Machine.measured(device), PRESETS[options.preset]
    frames = load_frames(options.data, options.frames)
    images = torch.stack([torch.from_numpy(f.image) for f in frames[:2]]).to(device)
    rows, keyframes = [], []
    for name in options.encoders:
        encoder = build_encoder(name, device)
        rows += batch_rows(encoder, images, options.batches, machine, options.repeats)
        for batch in sorted({preset.pyramid.batch, max(options.batches)}):
            config = preset.override({"pyramid.batch": batch})
            keyframes += keyframe_rows(encoder, frames, config, machine, device)

    origin |= {"preset": options.preset, "data": options.data.rstrip("/").rpartition("/")[2]}
    origin |= {"image": list(images.shape[1:3]), "matrix_rate_tflop_s": round(machine.matrix_rate / 1e12, 2)}
    write_json(options.json, "pyramid", origin, machine.bandwidth, [*rows, *keyframes])
    print(", ".join(f"{name} {value}" for name, value in origin.items()), machine, sep="\n")
    spread = "ms, median (10 % .. 90 %)"
    print(f"\n{'encoder':12}{'batch':>6}  {'':16}{spread:30}{'crops/s':>10}{'limit':>12}{'share':>8}")
    for row in rows:
        aim = f"  target {_HALF:.0%}, {row.gflop_per_crop:.2f} GFLOP a crop" if row.work == "encode" else ""
        print(
            f"{row.encoder:12}{row.batch:6}  {row.work:16}{row.timing!s:30}{row.crops_per_s:10,.0f}"
            f"{row.limit_crops_per_s:12,.0f}{row.share:8.1%}{aim}"
        )
    print(f"\n{'a keyframe':12}{'batch':>6}  {'':16}{spread:30}{'crops':>10}{'limit':>12}{'target':>8}")
    for key in keyframes:
        print(
            f"{key.encoder:12}{key.batch:6}  {key.scales:16}{key.timing!s:30}{key.crops:10,}{key.limit_ms:12.1f}"
            f"{key.target_ms:8.0f}"
        )


if __name__ == "__main__":
    main()
