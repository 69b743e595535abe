"""Everything that a map does, once, before it matters: a GPU's work is compiled and planned when it is first done.

Knows no ROS."""

from __future__ import annotations

import gc

import numpy as np
import torch

from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.targets import find_targets

_CAMERA = Camera(fx=300.0, fy=300.0, cx=159.5, cy=119.5, width=320, height=240)
_STEPS = 8  # a few run before a step is captured; with language it is another one
_POINTS = 2000  # of the surface


def rehearse(config: MapperConfig, encoder: Encoder, device: torch.device) -> None:
    """Maps two frames of noise with the settings of the map to come, and forgets them. The first keyframe then does
    not wait for ten seconds of compilation. Takes the device memory of a small map while it runs.

    Args:
        encoder: on the device.
    """
    encoder.rehearse()
    settings = {"keyframe.capacity": 2, "keyframe.unseen_share": 0.0, "close_up.memory_mb": 1}
    online = OnlineMapper(config.override(settings), encoder, device)
    for frame in _noise():
        online.ingest(frame)
        for _ in range(_STEPS):
            online.mapper.step()
    while online.pyramid_progress < 1:
        online.advance()
    for _ in range(_STEPS):
        online.advance()
    find_targets(online.surface(_POINTS), encoder, ["object"])
    online.mapper.render(_CAMERA, np.eye(4), stride=2)
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
