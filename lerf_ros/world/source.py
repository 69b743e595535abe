"""Where frames come from: a generated room or a recording, behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.units import Units
from lerf_ros.mapping.frame import Frame
from lerf_ros.world.nerfstudio import TRANSFORMS, NerfstudioFolder
from lerf_ros.world.recordings import RgbdFolder
from lerf_ros.world.room import Room

HELD_OUT_EVERY = 8


class FrameSource(Protocol):
    """A finite, ordered stream of posed frames from one camera.

    Attributes:
        units: of positions and depth: "m", or "scene units" where the scale is unknown.
    """

    name: str
    camera: Camera
    rate_hz: float
    units: Units

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Frame: ...


def is_held_out(index: int, every: int = HELD_OUT_EVERY) -> bool:
    """Whether a frame of a recording is kept out of training: frames 0, n, 2n, ...; none for n = 0. Every 8th is what
    nerfstudio and the figures of LERF take."""
    return every > 0 and index % every == 0


def open_source(spec: str, world_scale: float | None = None) -> FrameSource:
    """Opens "room:SEED" (a generated room) or the path of a recording: a folder with a `transforms.json` (nerfstudio,
    instant-ngp; also the path of such a file), or of RGB-D frames as in 7-Scenes.

    Args:
        world_scale: metres per unit of a recording without a metre, see `NerfstudioFolder`; the others are metric.

    Raises:
        ValueError: the spec is neither, the recording cannot be read, or it is metric and has a `world_scale`; the
            message says what to do.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".json" or (path / TRANSFORMS).is_file():
        return NerfstudioFolder(path, world_scale)
    if world_scale is not None:
        raise ValueError(f'"{spec}" is metric: only recordings with a {TRANSFORMS} have a world_scale')
    if spec.startswith("room:"):
        seed = spec.removeprefix("room:")
        if not seed.isdecimal():
            raise ValueError(f'"{spec}" does not name a room: write room:SEED with a whole number, such as room:7')
        return Room(int(seed))
    if path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").is_file():
        raise ValueError(f"{path} is a bag of topics: play it, with the program bag_player (README, Recordings)")
    if not path.exists():
        raise ValueError(f'"{spec}" is neither an existing folder nor of the form room:SEED, such as room:7')
    return RgbdFolder(path)
