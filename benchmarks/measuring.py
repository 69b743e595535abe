"""What the benchmarks share: timing, the limits of the machine, and the record of where a figure comes from."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from lerf_ros.field.encoding import fastest_backend

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Timing:
    """Of repeated runs: median, 10th and 90th percentile, ms; `graph` when a CUDA graph was replayed."""

    median_ms: float
    low_ms: float
    high_ms: float
    graph: bool

    @classmethod
    def of(cls, milliseconds: Sequence[float], graph: bool = False) -> Timing:
        low, median, high = np.percentile(milliseconds, [10, 50, 90])
        return cls(float(median), float(low), float(high), graph)

    def __str__(self) -> str:
        return f"{self.median_ms:8.3f} ({self.low_ms:.3f} .. {self.high_ms:.3f})"


@dataclass(frozen=True)
class Machine:
    """What bounds any work on a device: copy bandwidth, bytes/s, and matrix rate, operations/s."""

    bandwidth: float
    matrix_rate: float

    @classmethod
    def measured(cls, device: torch.device) -> Machine:
        return cls(copy_bandwidth(device), matrix_rate(device))

    def limit_ms(self, moved: float, operations: float = 0.0) -> float:
        """Least time for so many bytes and matrix operations, each at its full rate and both at once."""
        return 1e3 * max(moved / self.bandwidth, operations / self.matrix_rate)

    def __str__(self) -> str:
        return f"copy bandwidth {self.bandwidth / 1e9:.0f} GB/s, matrix rate {self.matrix_rate / 1e12:.2f} TFLOP/s"


def measure(works: Sequence[Callable[[], Any]], device: torch.device, repeats: int = 50, graph: bool = True) -> Timing:
    """Times one call.

    Args:
        works: the same work on different inputs, called in turn, so that no run finds its inputs in the cache.
        device: on CUDA, device events are taken around a replay of all works captured in one graph, so that Python's
            launches do not count; elsewhere the clock of the host.
        repeats: rounds over all works, after a warm-up.
        graph: False for work that cannot be captured.
    """

    def everything() -> None:
        for work in works:
            work()

    if device.type != "cuda":
        everything()
        seconds = [_seconds(everything) for _ in range(repeats)]
        return Timing.of([1e3 * second / len(works) for second in seconds])

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            everything()
    torch.cuda.current_stream().wait_stream(side)
    round_of_works = everything
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            everything()
        round_of_works = captured.replay
    for _ in range(3):
        round_of_works()
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in range(2))
    for start, end in zip(starts, ends):
        start.record()
        round_of_works()
        end.record()
    torch.cuda.synchronize()
    return Timing.of([start.elapsed_time(end) / len(works) for start, end in zip(starts, ends)], graph)


def measure_host(work: Callable[[], Any], device: torch.device, repeats: int, calls: int = 1) -> Timing:
    """Times one call by the host's clock, Python included; the device is awaited after every `calls` of them."""

    def calls_and_wait() -> None:
        for _ in range(calls):
            work()
        synchronise(device)

    synchronise(device)
    return Timing.of([1e3 * _seconds(calls_and_wait) / calls for _ in range(repeats)])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read plus written, of a copy far larger than any cache."""
    count = 2**32 if device.type == "cuda" else 2**26
    source = torch.rand(count // 4, device=device)
    target = torch.empty_like(source)
    timing = measure([lambda: target.copy_(source)], device, repeats=20, graph=False)  # as a kernel, not a copy engine
    return 2 * count / (1e-3 * timing.median_ms)


def matrix_rate(device: torch.device) -> float:
    """Operations (two a multiplication) per second of a large matrix product: bfloat16 on CUDA, float32 elsewhere, as
    the networks compute."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timing = measure([lambda: left @ right], device, repeats=20 if device.type == "cuda" else 5)
    return 2 * size**3 / (1e-3 * timing.median_ms)


def count_operations(work: Callable[[], Any]) -> int:
    """Matrix operations (two a multiplication) of eager work; what a CUDA graph or a Triton kernel does is not seen."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # torch does not count its fused attention
    try:
        with FlopCounterMode(display=False, custom_mapping={torch.ops.aten._addmm_activation: _product}) as counter:
            work()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return counter.get_total_flops()


def _product(addend: Sequence[int], left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of a product with a fused activation, which torch does not count; by shapes."""
    return 2 * left[0] * left[1] * right[1]


def provenance(device: torch.device) -> dict[str, Any]:
    """Machine, versions, commit; `kernels`: what our kernels are there, as `LERF_TRITON=0` has it ("torch": none)."""
    versions = {name: _version(name) for name in ("torch", "triton", "numba", "tinycudann")}
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_cpu_name()}, CPU",
        "cpu": f"{_cpu_name()}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
        "kernels": fastest_backend(device, torch.float32),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_json(
    path: Path, benchmark: str, origin: dict[str, Any], bandwidth: float | None, rows: Sequence[Any]
) -> None:
    """One file per run: where it ran (:func:`provenance`), the copy bandwidth, bytes/s, where it limits what was
    measured, and the rows (dataclasses)."""
    record = {"benchmark": benchmark, **origin}
    if bandwidth is not None:
        record["copy_bandwidth_gb_s"] = round(bandwidth / 1e9, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**record, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    """Of the checkout, with a + when tracked files differ from it; empty outside a checkout."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True)
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
