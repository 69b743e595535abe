"""Multiresolution hash encoding (Mueller et al. 2022, instant-NGP), with tinycudann's conventions.

One flat parameter, one layout, several backends: a table trained with one is read by every other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from lerf_ros.kernels import is_installed, why_no_kernels

_log = logging.getLogger(__name__)

PRIMES = (1, 2_654_435_761, 805_459_861)


@dataclass(frozen=True)
class HashGridConfig:
    """Sizes of a hash grid; resolutions grow geometrically from ``min_resolution`` to ``max_resolution``.

    Attributes:
        levels: number of resolutions, >= 1.
        features: values per table entry, >= 1.
        log2_table: log2 of the largest number of entries of a level, 3 to 30.
        min_resolution, max_resolution: vertices per axis of the coarsest and the finest level.

    Raises:
        ValueError: a number is out of its range.
    """

    levels: int
    features: int
    log2_table: int
    min_resolution: int
    max_resolution: int

    def __post_init__(self) -> None:
        if self.levels < 1 or self.features < 1:
            raise ValueError(f"a hash grid needs at least one level and one feature, got {self}")
        if not 3 <= self.log2_table <= 30:
            raise ValueError(f"log2_table must be between 3 and 30, got {self.log2_table}")
        if not 2 <= self.min_resolution <= self.max_resolution:
            raise ValueError(f"need 2 <= min_resolution <= max_resolution, got {self}")


@dataclass(frozen=True, eq=False)
class GridLayout:
    """What a backend needs to know about the table; one entry per level.

    Attributes:
        scales: (L,) float32, grid coordinates are ``x_unit * scale + 0.5``.
        resolutions: (L,) int64, vertices per axis.
        sizes: (L,) int64, table entries.
        offsets: (L + 1,) int64, first entry in the table; the last one is their total.
        hashed: (L,) bool; the other levels are dense, x fastest.
        features: values per entry.
    """

    scales: np.ndarray
    resolutions: np.ndarray
    sizes: np.ndarray
    offsets: np.ndarray
    hashed: np.ndarray
    features: int

    @classmethod
    def build(cls, config: HashGridConfig) -> GridLayout:
        """tinycudann's level sizes, float32 as there (``grid.h``: grid_scale, grid_resolution, GridEncodingTemplated):

        ``scale_l = 2^(l log2 b) N_min - 1``, ``resolution_l = ceil(scale_l) + 1``,
        ``size_l = min(2^log2_table, round_up(resolution_l^3, 8))``.
        """
        growth = (config.max_resolution / config.min_resolution) ** (1.0 / max(config.levels - 1, 1))
        exponents = np.arange(config.levels, dtype=np.float32) * np.log2(np.float32(growth))
        scales = np.exp2(exponents) * np.float32(config.min_resolution) - np.float32(1.0)
        resolutions = np.ceil(scales).astype(np.int64) + 1
        sizes = np.minimum((resolutions**3 + 7) // 8 * 8, 2**config.log2_table)
        return cls(
            scales=scales,
            resolutions=resolutions,
            sizes=sizes,
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            hashed=resolutions**3 > sizes,
            features=config.features,
        )


def encode_torch(x_unit: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    """Reference backend: any device and float type, differentiable in the table. Autocast around it rounds nothing.

    Per level: ``p = x scale + 0.5``; the 8 vertices around p are blended trilinearly. A vertex v is entry
    ``v_x + v_y N + v_z N^2`` of a dense level, ``xor_i(v_i prime_i)`` of a hashed one, modulo the level's size.
    """
    device = x_unit.device
    corners = (torch.arange(8, device=device)[:, None] >> torch.arange(3, device=device)) & 1  # (8, 3), x fastest
    sizes = (layout.sizes * layout.features).tolist()
    encoded = []
    for level, level_table in enumerate(table.split(sizes)):
        position = x_unit.clamp(0.0, 1.0) * float(layout.scales[level]) + 0.5  # (N, 3)
        cell = position.floor()
        fraction = (position - cell)[:, None]
        weights = torch.where(corners == 1, fraction, 1.0 - fraction).prod(dim=-1)  # (N, 8)

        x, y, z = (cell.long()[:, None] + corners).unbind(dim=-1)  # (N, 8) each
        if layout.hashed[level]:
            entries = (x * PRIMES[0]) ^ (y * PRIMES[1]) ^ (z * PRIMES[2])  # the low 32 bits are those of uint32
        else:
            resolution = int(layout.resolutions[level])
            entries = x + resolution * (y + resolution * z)
        entries = entries % int(layout.sizes[level])

        # index_select, whose backward is an atomic scatter; indexing and embeddings sort their indices first.
        values = level_table.view(-1, layout.features).index_select(0, entries.flatten()).view(*entries.shape, -1)
        with torch.autocast(device.type, enabled=False):  # or table entries would be rounded before they are blended
            encoded.append(torch.einsum("nc,ncf->nf", weights.to(table.dtype), values))
    return torch.cat(encoded, dim=-1)


def kept_gradient(table: Tensor) -> Tensor | None:
    """What a backward pass adds to instead of returning a new gradient; see `HashGrid`."""
    return table.grad if table.is_leaf else None


def _encode_numba(x_unit: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    from lerf_ros.field.encoding_numba import encode_numba  # numba takes a second to import: only when it is used

    return encode_numba(x_unit, table, layout)


def _encode_triton(x_unit: Tensor, table: Tensor, layout: GridLayout) -> Tensor:
    from lerf_ros.field.encoding_triton import encode_triton  # not everywhere installed

    return encode_triton(x_unit, table, layout)


BACKENDS: dict[str, Callable[[Tensor, Tensor, GridLayout], Tensor]] = {
    "torch": encode_torch,
    "numba": _encode_numba,
    "triton": _encode_triton,
}


class HashGrid(nn.Module):
    """Hash encoding of points in the unit cube.

    A gradient that the table has when points are encoded is kept: the backward pass adds to it in place. Without one,
    each backward pass makes a new tensor and fills it with zeros, a pass over the whole table.

    Args:
        config: sizes.
        backend: ``"torch"`` (any device), ``"numba"`` (CPU), ``"triton"`` (CUDA), or ``"auto"``, the fastest one
            for the table's device that is installed and not switched off (`kernels.SWITCH`).

    Attributes:
        table: the one parameter, flat float32: level by level, entry by entry, feature by feature. Uniform in
            [-1e-4, 1e-4] at first, as in the paper.
        output_dim: levels * features.

    Raises:
        ValueError: unknown backend.
        ImportError: backend ``"numba"`` or ``"triton"`` without that package.
    """

    def __init__(self, config: HashGridConfig, backend: str = "auto") -> None:
        super().__init__()
        if backend not in ("auto", *BACKENDS):
            raise ValueError(f"unknown hash grid backend {backend!r}: use one of auto, {', '.join(BACKENDS)}")
        if backend not in ("auto", "torch") and not is_installed(backend):
            raise ImportError(f"hash grid backend {backend!r} needs {backend}: pip install it, or use backend 'torch'")
        self.config = config
        self.layout = GridLayout.build(config)
        self.output_dim = config.levels * config.features
        self.table = nn.Parameter(torch.empty(int(self.layout.offsets[-1]) * config.features).uniform_(-1e-4, 1e-4))
        self._wanted = backend

    @property
    def backend(self) -> str:
        """The backend in use."""
        if self._wanted != "auto":
            return self._wanted
        return fastest_backend(self.table.device, self.table.dtype)

    def forward(self, x_unit: Tensor) -> Tensor:
        """Encode points.

        Args:
            x_unit: (N, 3) in [0, 1]; what lies outside is clamped. No gradient flows to it.

        Returns:
            (N, levels * features).

        Raises:
            ValueError: wrong shape.
        """
        if x_unit.ndim != 2 or x_unit.shape[1] != 3:
            raise ValueError(f"points must have shape (N, 3), got {tuple(x_unit.shape)}")
        return BACKENDS[self.backend](x_unit.detach(), self.table, self.layout)


@lru_cache
def fastest_backend(device: torch.device, dtype: torch.dtype) -> str:
    """What ``auto`` stands for; says so, once per device."""
    fast = {"cpu": "numba", "cuda": "triton"}.get(device.type)
    if fast is None or dtype != torch.float32:
        name, why = "torch", f"the only one for {dtype} there"
    elif fast == "triton" and (obstacle := why_no_kernels(device)):
        name, why = "torch", f"several times slower than triton: {obstacle}"
    elif not is_installed(fast):
        name, why = "torch", f"several times slower than {fast}, which is not installed"
    else:
        name, why = fast, "the fastest one there"
    _log.info("hash grids on %s: backend %s, %s", device, name, why)
    return name
