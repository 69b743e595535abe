"""Warm-up: does all that a map does, once and on a small map, since kernels are compiled when they are first called."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import find_targets

_CAMERA = Camera(fx=300.0, fy=300.0, cx=159.5, cy=119.5, width=320, height=240)
_SETTINGS = {
    "keyframe.capacity": 2,
    "keyframe.unseen_share": 0.0,
    "close_up.memory_mb": 1,
    "surface.min_opacity": 0.0,  # so young a map has only fog to ask about
    "surface.max_spread": 1e3,
}
_ANYTHING = QueryOptions(min_support=1, min_relevancy=0.0, closer_radius=1e3)
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
    questions: int  # as for steps
    closer_points: int  # of a closer look
    stride: int  # px, of the view


_EXTENTS = {"cuda": _Extent(8, 2000, 4, 1500, 2), "cpu": _Extent(1, 100, 1, 20, 16)}


def warm_up(config: MapperConfig, encoder: Encoder, device: torch.device, depth: bool = True) -> None:
    """Maps two frames of noise with the settings of the map to come, and forgets them. On a GPU the first keyframe then
    does not wait for ten seconds of compilation. On a CPU that takes a second or two, once after an installation, but
    holds Python's global lock, and with it every callback of the node. Takes the device memory of a small map while it
    runs.

    Args:
        config: of the map to come.
        encoder: on the device.
        depth: whether the frames to come have depth: maps of colours alone use other kernels.
    """
    encoder.rehearse()
    extent = _EXTENTS[device.type]
    settings = _SETTINGS if device.type == "cuda" else _SETTINGS | _CPU_SETTINGS
    online = OnlineMapper(config.override(settings), encoder, device)
    for frame in _noise(depth):
        online.ingest(frame)
        for _ in range(extent.steps):
            online.mapper.step()
    while online.pyramid_progress < 1:
        online.advance()
    for _ in range(extent.steps):
        online.advance()
    options = replace(_ANYTHING, closer_points=extent.closer_points)
    for _ in range(extent.questions):
        find_targets(online.surface(extent.points), encoder, ["object"], options)
    online.mapper.render(_CAMERA, np.eye(4), stride=extent.stride)
    del online
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _noise(depth: bool) -> list[Frame]:
    """Two frames of noise. With depth, one half shows a wall two metres away and the other nothing, so that they do
    not contradict any surface."""
    rng = np.random.default_rng(0)
    frames = []
    for number in range(2):
        image = rng.integers(0, 256, (_CAMERA.height, _CAMERA.width, 3), np.uint8)
        pose = np.eye(4)
        pose[0, 3] = 0.5 * number
        depth_z = np.full(image.shape[:2], 2.0, np.float32)
        depth_z[:, : _CAMERA.width // 2] = np.nan
        frames.append(Frame(number, image, depth_z if depth else None, _CAMERA, pose))
    return frames
