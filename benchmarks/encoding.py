"""Speed of the hash encoding: every backend that runs here, on the sizes that training uses.

    python benchmarks/encoding.py [--backends torch triton] [--share 0.1] [--json benchmarks/results/encoding.json]

Points are uniform in the cube, the hardest case for a cache; four sets of them take turns. The limit beside a
measurement is the bytes that have to move, over the bandwidth of a large copy in the same run:

- forward: points, the 32-byte sectors of the table that the points touch, the result;
- backward: points, the result's gradient, a table of zeros, and reading and writing the touched sectors.

Gathers and atomic additions that hit the cache count nothing, so no backend reaches it.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measuring import Timing, copy_bandwidth, measure, provenance, write_json
from torch import Tensor

from lerf_ros.field.encoding import HashGrid, HashGridConfig
from lerf_ros.mapping.config import PRESETS

_SETS = 4  # of points, in turn
_SECTOR = 32  # bytes that a GPU moves at least


@dataclass(frozen=True)
class Case:
    """A grid and how many points of it a step asks."""

    name: str
    grid: HashGridConfig
    points: int


@dataclass(frozen=True)
class Row:
    """One backend on one case; limits in ms."""

    case: str
    backend: str
    points: int
    forward: Timing
    both: Timing
    forward_limit_ms: float
    both_limit_ms: float


def cases() -> list[Case]:
    base = PRESETS["base"]
    coarse, fine = base.language.coarse_grid, base.language.fine_grid
    language = base.sampling.rays // 2 * base.language.samples
    return [
        Case("coarse grid, 24 samples of 4,096 rays", coarse, 98_304),  # what LERF asks in a step
        Case("fine grid, 24 samples of 4,096 rays", fine, 98_304),
        Case("radiance grid of preset base", base.radiance.grid, base.sampling.rays * base.sampling.samples),
        Case("coarse grid of preset base", coarse, language),
        Case("fine grid of preset base", fine, language),
    ]


def available(device: torch.device) -> list[str]:
    if device.type == "cpu":
        return ["torch", "numba"]
    return ["torch", *(name for name in ("triton", "tinycudann") if importlib.util.find_spec(name))]


def build(backend: str, grid: HashGridConfig, device: torch.device) -> torch.nn.Module:
    if backend != "tinycudann":
        return HashGrid(grid, backend).to(device)
    import tinycudann

    return tinycudann.Encoding(
        3,
        {
            "otype": "HashGrid",
            "n_levels": grid.levels,
            "n_features_per_level": grid.features,
            "log2_hashmap_size": grid.log2_table,
            "base_resolution": grid.min_resolution,
            "per_level_scale": (grid.max_resolution / grid.min_resolution) ** (1 / max(grid.levels - 1, 1)),
        },
    )


def both_passes(module: torch.nn.Module, x_unit: Tensor, cotangent: Tensor) -> None:
    (parameter,) = module.parameters()
    parameter.grad = None
    module(x_unit).backward(cotangent)


def run(case: Case, backend: str, device: torch.device, bandwidth: float) -> Row:
    module = build(backend, case.grid, device)
    sets = [torch.rand(case.points, 3, device=device) for _ in range(_SETS)]
    with torch.no_grad():
        cotangent = torch.randn_like(module(sets[0]))
        encodings: list[Callable[[], Tensor]] = [partial(module, x_unit) for x_unit in sets]
        graph = backend != "tinycudann"
        repeats = 50 if device.type == "cuda" else 5
        forward = measure(encodings, device, repeats, graph)
    both = measure([partial(both_passes, module, x_unit, cotangent) for x_unit in sets], device, repeats, graph)

    both_passes(module, sets[0], torch.ones_like(cotangent))
    (parameter,) = module.parameters()
    assert parameter.grad is not None
    values = parameter.grad.view(-1, min(_SECTOR // parameter.element_size(), parameter.numel()))
    touched, points, encoded = (
        int((values != 0).any(dim=1).sum()) * _SECTOR,
        sets[0].numel() * sets[0].element_size(),
        cotangent.numel() * cotangent.element_size(),
    )
    forward_bytes = points + touched + encoded
    backward_bytes = points + encoded + parameter.numel() * parameter.element_size() + 2 * touched
    limits = (1e3 * moved / bandwidth for moved in (forward_bytes, forward_bytes + backward_bytes))
    return Row(case.name, backend, case.points, forward, both, *limits)


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=available(device))
    parser.add_argument("--share", type=float, default=1.0 if device.type == "cuda" else 0.05, help="of the points")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    origin, bandwidth = provenance(device), copy_bandwidth(device)
    print(", ".join(f"{name} {value}" for name, value in origin.items()))
    print(f"copy bandwidth {bandwidth / 1e9:.0f} GB/s; milliseconds, median (10 % .. 90 %), * without a CUDA graph")
    print(f"{'':52}{'backend':12}{'forward':28}{'limit':>8}   {'forward + backward':28}{'limit':>8}")
    rows = []
    for case in cases():
        case = Case(case.name, case.grid, max(1, int(case.points * arguments.share)))
        for backend in arguments.backends:
            row = run(case, backend, device, bandwidth)
            rows.append(row)
            mark = "" if row.forward.graph or device.type == "cpu" else "*"
            title = f"{case.name} ({case.points:,})" if backend == arguments.backends[0] else ""
            print(
                f"{title:52}{backend + mark:12}{row.forward!s:28}{row.forward_limit_ms:8.3f}   "
                f"{row.both!s:28}{row.both_limit_ms:8.3f}",
                flush=True,
            )
    if arguments.json:
        write_json(arguments.json, "encoding", origin, bandwidth, rows)


if __name__ == "__main__":
    main()
