"""Results of rooms as lines of JSON: what was measured, under which settings, and which of them are there already."""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lerf_ros.evaluation.pacing import Budget
from lerf_ros.evaluation.variants import Variant
from lerf_ros.features.encoder import Encoder
from lerf_ros.mapping.config import PRESETS, MapperConfig

EXAM_VERSION = 5  # to be raised when questions, judging or what is recorded change: older results are then asked anew


@dataclass(frozen=True)
class RunSettings:
    """What all rooms of a run have in common; with the variant, all that results depend on.

    Attributes:
        preset, overrides: the mapper's settings, see `MapperConfig.override`; variants change them further.
        budget: of variants whose own is 1.
        device: "cpu" or "cuda".
        encoder_hash: of its weights and calibration.
        jobs: processes that share the device: seconds mean less when they do.
        frames, width, height: of the rooms.
        views: held-out views a room.
        stops: shares of the budget at which questions about things are asked, for accuracy against seconds.
    """

    preset: str
    budget: Budget
    device: str
    encoder_hash: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    jobs: int = 1
    frames: int = 80
    width: int = 640
    height: int = 480
    views: int = 12
    stops: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)

    def config(self, variant: Variant) -> MapperConfig:
        repeatable = PRESETS[self.preset].override({"close_up.seconds": 0.0})  # whatever the machine's pace
        return repeatable.override(self.overrides).override(variant.settings)

    def fingerprint(self, variant: Variant) -> str:
        """Results with the same fingerprint are comparable and are not measured twice; the commit plays no part."""
        config = self.config(variant).values()
        del config["scene.units"]  # a label: no result depends on it
        values = {
            "exam": EXAM_VERSION,
            "config": config,
            "variant": [variant.name, variant.methods, variant.frames.__qualname__, variant.mapper.__qualname__],
            "budget": asdict(self.budget * variant.budget),
            "run": [self.device, self.frames, self.width, self.height, self.views, self.stops],
            "jobs": self.jobs if self.budget.seconds is not None else 1,
            "encoder": self.encoder_hash,
        }
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class AnswerRecord:
    """One answer judged; metres.

    Attributes:
        relevancy: the best, without a threshold.
        correct: of present questions, whether the best target is right; of absent ones False.
        error: to the nearest point of the true surface; None without a target, or when absent.
        centre_error: to the centre of the nearest true box; None likewise.
        hits: of the first k targets, see `Outcome.hits`.
        position: of the best target, (3,) or None.
        landed: [instance id, part or "", metres] of the surface nearest to it, or None.
        in_ellipsoid: see `in_confidence_ellipsoid`; None without a target.
        views: [hits, views]: held-out views whose most relevant pixel lies in the true 2D box, of those that show it.
    """

    relevancy: float
    correct: bool
    error: float | None
    centre_error: float | None
    hits: int
    position: list[float] | None
    landed: list[Any] | None
    in_ellipsoid: bool | None
    views: list[int] = field(default_factory=lambda: [0, 0])


@dataclass(frozen=True)
class QueryRecord:
    """One question; `chance`: of part questions, how often a random visible point of the thing is right."""

    text: str
    category: str
    instance_ids: list[int]
    things: list[str]
    part: str | None
    part_of_part: bool
    rivals: list[int]
    chance: float | None


@dataclass(frozen=True)
class RoomResult:
    """One room mapped by one variant, and its answers; plain values, as they are written.

    Attributes:
        methods: method -> {"seconds": to answer all questions, "answers": one `AnswerRecord` for each of `queries`}.
        curve: at each stop {"share", "seconds", "steps", "keyframes", "correct": method -> one bool for each question
            about a thing ("object" and "attribute", in the order of `queries`)}.
        figures: psnr (dB), depth_error (m), fidelity (see `feature_fidelity`), memory_mb, keyframes, steps,
            seconds, pyramid_progress, room_chance (part questions, random point of the whole visible room).
    """

    seed: int
    variant: str
    fingerprint: str
    found_threshold: float
    settings: dict[str, Any]
    machine: dict[str, Any]
    things: dict[str, str]
    queries: list[dict[str, Any]]
    methods: dict[str, dict[str, Any]]
    curve: list[dict[str, Any]]
    figures: dict[str, Any]

    def column(self, method: str, name: str) -> list[Any]:
        """One value of every answer of a method."""
        return [answer[name] for answer in self.methods[method]["answers"]]


def append(path: Path, result: RoomResult) -> None:
    """Adds one line; several processes may write to the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(result), separators=(",", ":")) + "\n"
    with path.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line)


def read(folder: Path) -> Iterator[RoomResult]:
    """All results in the `*.jsonl` of a folder, oldest file first. A line that a killed run left unfinished is skipped;
    so are results of another `EXAM_VERSION`."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue
            if values["settings"]["exam"] == EXAM_VERSION:
                yield RoomResult(**values)


def latest(results: Iterable[RoomResult]) -> list[RoomResult]:
    """The newest result of each room and variant; all of a variant have one fingerprint, that of its newest result.

    The variant "default" comes first: the others are compared with it.
    """
    results = list(results)
    fingerprints = {result.variant: result.fingerprint for result in results}
    chosen = {(r.variant, r.seed): r for r in results if r.fingerprint == fingerprints[r.variant]}
    order = sorted(fingerprints, key=lambda variant: variant != "default")
    return [chosen[key] for key in sorted(chosen, key=lambda key: (order.index(key[0]), key[1]))]


def encoder_hash(encoder: Encoder) -> str:
    """Of its weights and calibration. Load it on the CPU for this: on a GPU weights may be rounded."""
    digest = hashlib.sha256(repr((encoder.name, encoder.calibration)).encode())
    for name, tensor in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures were measured on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {"device": name, "python": platform.python_version(), "torch": torch.__version__, "lerf_ros": _version()}


def _version() -> str:
    try:
        return version("lerf_ros")
    except PackageNotFoundError:
        return "source"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names: Sequence[str] = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
