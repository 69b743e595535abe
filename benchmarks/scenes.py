"""What the benchmarks map: frames of a recording or a generated room, encoders, and maps of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from measuring import ROOT
from torch.nn.functional import normalize

from lerf_ros.features.encoder import Encoder, RelevancyCalibration, load_encoder
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.scene import enclosing, measured_points
from lerf_ros.world.source import FrameSource, open_source

EVERY_FRAME = {"keyframe.translation": 1e-4, "keyframe.rotation": 1e-4, "keyframe.blur_ratio": 0.0}
"""Settings with which each frame that moved at all becomes a keyframe."""
COARSE = 0.2  # of the image height: crops from this size up are the coarse scales


def parser_of(description: str | None, name: str, frames: int) -> argparse.ArgumentParser:
    """Options that all of them have."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--data", default="room:7", help="recording (folder) or room:SEED")
    parser.add_argument("--frames", type=int, default=frames, help="of the recording, evenly spaced")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json")
    return parser


def load_frames(spec: str, count: int) -> list[Frame]:
    """At most `count` frames of a source, every n-th from the first one."""
    source: FrameSource = open_source(spec)
    step = max(1, len(source) // count)
    return [source[i] for i in range(0, len(source), step)][:count]


def moved(frame: Frame, turns: int) -> Frame:
    """A frame that is used again is taken from a few millimetres away, or it would be no keyframe."""
    pose = frame.T_world_camera.copy()
    pose[0, 3] += 0.003 * turns
    return replace(frame, T_world_camera=pose)


def without_depth(frames: Sequence[Frame]) -> list[Frame]:
    return [replace(frame, depth_z=None) for frame in frames]


def build_encoder(name: str, device: torch.device) -> Encoder:
    """The mini CLIP ("mini"), or an open_clip model with random weights, which are as fast and need no download."""
    if name == "mini":
        return load_encoder("mini", device=device)
    bf16 = device.type == "cuda"
    model = open_clip.create_model(name, pretrained=None, precision="bf16" if bf16 else "fp32", device=device)
    dtype = torch.bfloat16 if bf16 else torch.float32
    return Encoder(name, model, open_clip.get_tokenizer(name), RelevancyCalibration(), dtype)


def in_fixed_volume(config: MapperConfig, frames: Sequence[Frame]) -> MapperConfig:
    """Settings with the volume that the frames (some of them with depth) see: it neither grows nor depends on which of
    them are mapped first, so that all measurements are of the same map."""
    points = np.concatenate([*(measured_points(f) for f in frames), [f.T_world_camera[:3, 3] for f in frames]])
    bounds = enclosing(config.scene, points)
    return config.override({"scene.center": [float(x) for x in bounds.center], "scene.radius": float(bounds.radius)})


def keyframe_each(online: OnlineMapper, frames: Sequence[Frame]) -> OnlineMapper:
    """Offers frames to a map that takes every one (`EVERY_FRAME`)."""
    for frame in frames:
        online.ingest(frame)
    assert online.mapper.keyframes == min(len(frames), online.mapper.config.keyframe.capacity)
    return online


def fill_pyramids(store: KeyframeStore) -> None:
    """Random unit embeddings for every crop of every keyframe: reading them takes as long as reading encoded ones."""
    device = store.embeds.device
    for slot in range(len(store)):
        embeds = normalize(torch.randn(store.layout.total, store.embed_dim, device=device), dim=-1)
        store.write_embeds(slot, store.generations[slot], 0, embeds)
        for level in range(len(store.layout.levels)):
            store.finish_level(slot, store.generations[slot], level)


def train(online: OnlineMapper, steps: int) -> OnlineMapper:
    """Works until so many training steps are done and every crop is encoded."""
    while online.mapper.steps < steps or online.pyramid_progress < 1:
        online.advance()
    return online
