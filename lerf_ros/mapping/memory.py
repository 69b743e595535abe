"""How much device memory a map keeps, known before it is made.

What one unit of work needs beside it (activations of a training step, crops on their way through the encoder, rays of a
rendered view) comes and goes, is bounded by `sampling.rays`, `pyramid.batch`, `close_up.batch` and
`sampling.render_chunk`, and depends on the kernels that run: `benchmarks/memory.py` measures it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.close_ups import CloseUps
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.stereo_depth import stereo_bytes

_NOWHERE = torch.device("meta")  # tensors there have sizes and no memory
_COPIES = 4  # of a parameter: value, gradient, two moments of Adam
_POINT_BYTES = 8 * 3 + 4 * 3 + 8 + 2 * 4 + 4 * 9  # of `SurfacePoints`


@dataclass(frozen=True)
class MapMemory:
    """Bytes that a map keeps on its device, once every part of it has been used; the encoder is not among them.

    Attributes:
        keyframes: the store, reserved at the first frame.
        tables: hash tables with gradients and moments.
        networks: as many of all other parameters; and the proposal grid.
        close_ups: reserved at the first question, where there are any.
        surface: the points at which questions are answered, with their features.
    """

    keyframes: int
    tables: int
    networks: int
    close_ups: int
    surface: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


def map_memory(
    config: MapperConfig, camera: Camera, encoder: Encoder, surface_points: int, dense_dim: int = 0
) -> MapMemory:
    """What an `OnlineMapper` with these settings will keep.

    Args:
        camera: of the frames.
        encoder: only its `embed_dim` counts here.
        surface_points: asked for, at most.
        dense_dim: of the dense features; 0 for none.
    """
    with _NOWHERE:
        fields = MapFields(config, encoder.embed_dim, dense_dim)
    store = KeyframeStore(config, camera, encoder.embed_dim, _NOWHERE, dense_dim)
    named = list(fields.named_parameters())
    tables, networks = (_bytes(p for name, p in named if name.endswith("table") == is_table) for is_table in (1, 0))
    asks_close_ups = config.close_up.share > 0 and config.language.scale == "physical"
    return MapMemory(
        keyframes=store.memory_bytes + (stereo_bytes(config.depth, store) if config.depth.stereo else 0),
        tables=_COPIES * tables,
        networks=_COPIES * networks + _bytes(fields.buffers()),
        close_ups=CloseUps(config.close_up, store, encoder).memory_bytes if asks_close_ups else 0,
        surface=surface_points * _bytes_of_point(config, fields),
    )


def encoder_bytes(encoder: Encoder) -> int:
    """Device memory of an encoder's weights."""
    return _bytes([*encoder.model.parameters(), *encoder.model.buffers()])


def _bytes_of_point(config: MapperConfig, fields: MapFields) -> int:
    assert fields.language is not None
    feature = 4 * (fields.language.feature_dim + 1)  # and how far along the ray it lies
    if config.language.decoding != "per_sample":
        return _POINT_BYTES + feature
    samples = min(config.language.samples, config.sampling.render_samples)
    return _POINT_BYTES + samples * (feature + 4)  # each has a weight


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
