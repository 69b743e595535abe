"""Everything that a map does, once, before it matters: what is compiled is compiled when it is first called.

Knows no ROS."""

from __future__ import annotations

import gc
from typing import NamedTuple

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.neighbourhood import Graph, component
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import find_targets
from lerf_ros.query.votes import Votes

_CAMERA = Camera(fx=300.0, fy=300.0, cx=159.5, cy=119.5, width=320, height=240)
_SETTINGS = {"keyframe.capacity": 2, "keyframe.unseen_share": 0.0, "close_up.memory_mb": 1}
_CPU_SETTINGS = {  # kernels of a CPU are the same for all sizes
    "sampling.rays": 64,
    "pyramid.fractions": (0.5,),
    "pyramid.strides": (1.0,),
    "close_up.fractions": (0.5,),
    "close_up.crops": 1,
}


class _Extent(NamedTuple):
    steps: int  # a few run before a GPU's step is captured; with language it is another one
    points: int  # of the surface
    stride: int  # px, of the view


_EXTENTS = {"cuda": _Extent(8, 2000, 2), "cpu": _Extent(1, 100, 16)}


def rehearse(config: MapperConfig, encoder: Encoder, device: torch.device) -> None:
    """Maps two frames of noise with the settings of the map to come, and forgets them. On a GPU the first keyframe then
    does not wait for ten seconds of compilation. On a CPU that takes a second or two, once after an installation, but
    holds Python's global lock, and with it every callback of the node. Takes the device memory of a small map while it
    runs.

    Args:
        encoder: on the device.
    """
    encoder.rehearse()
    extent = _EXTENTS[device.type]
    settings = _SETTINGS if device.type == "cuda" else _SETTINGS | _CPU_SETTINGS
    online = OnlineMapper(config.override(settings), encoder, device)
    for frame in _noise():
        online.ingest(frame)
        for _ in range(extent.steps):
            online.mapper.step()
    while online.pyramid_progress < 1:
        online.advance()
    for _ in range(extent.steps):
        online.advance()
    surface = online.surface(extent.points)
    find_targets(surface, encoder, ["object"])
    # So young a map has no surface to ask about, but crops that vote.
    if surface.keyframe_crops is not None:
        Votes(surface.keyframe_crops, encoder, ["object"], QueryOptions()).places(1)
    component(Graph.of(np.zeros((2, 1), np.int64)), 0, np.ones(2, np.float32), 1.0)
    online.mapper.render(_CAMERA, np.eye(4), stride=extent.stride)
    del online
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _noise() -> list[Frame]:
    """Two frames of a wall two metres away."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(2):
        image = rng.integers(0, 256, (_CAMERA.height, _CAMERA.width, 3), np.uint8)
        pose = np.eye(4)
        pose[0, 3] = 0.5 * number
        frames.append(Frame(number, image, np.full(image.shape[:2], 2.0, np.float32), _CAMERA, pose))
    return frames
