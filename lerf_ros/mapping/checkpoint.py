"""Maps on disk: a folder of safetensors and one JSON file, which names them and is replaced in one piece."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore

FORMAT_VERSION = 4
_FORMER_SETTINGS = (  # that older maps have
    "sampling.surface_band",
    "refinement.rate",
    "refinement.start",
    "refinement.every",
    "refinement.rays",
)
_INDEX, _PARTS = "map.json", ("fields", "keyframes")


class MapFileError(RuntimeError):
    """A saved map cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class SavedMap:
    """All of a map, on the device."""

    config: MapperConfig
    bounds: SceneBounds
    fields: MapFields
    store: KeyframeStore
    encoder: str
    steps: int


def write(path: Path, saved: SavedMap) -> None:
    """Writes a map to the folder `path`.

    New files come beside those of a map that is there, and are flushed to the disk; then the index, which names them,
    takes the place of the former one in one piece. Whatever interrupts this, a crash included, `path` holds the old map
    or the new one. What is no longer named is removed.

    Raises:
        OSError: what went wrong (the disk is full, say), and what to do.
    """
    path, token = path.absolute(), uuid.uuid4().hex[:8]
    tensors, plain = saved.store.state()
    fields = {name: value.cpu() for name, value in saved.fields.state_dict().items()}
    files = {name: f"{name}-{token}.safetensors" for name in _PARTS}
    index = {
        "format": FORMAT_VERSION,
        "files": files,
        "encoder": saved.encoder,
        "embed_dim": saved.store.embed_dim,
        "dense_dim": saved.store.dense_dim,
        "steps": saved.steps,
        "config": saved.config.values(),
        "camera": asdict(saved.store.camera),
        "bounds": asdict(saved.bounds),
        "keyframes": plain,
    }
    fresh_index = path / f"map-{token}.json"
    fresh = [*(path / name for name in files.values()), fresh_index]
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, part in (("fields", fields), ("keyframes", tensors)):
            save_file({key: value.contiguous() for key, value in part.items()}, path / files[name])
        fresh_index.write_text(json.dumps(index, indent=1), encoding="utf-8")
        for file in fresh:
            _flush(file)
        fresh_index.replace(path / _INDEX)
        _flush(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # where nothing can be written, nothing was
            for file in fresh:
                file.unlink(missing_ok=True)
        raise OSError(
            f"the map could not be saved to {path} ({error}); a map that was there is unharmed: free some space, or "
            "choose a path that can be written"
        ) from error
    _remove_others(path, set(files.values()))


def read(path: Path, embed_dim: int, encoder: str, device: torch.device) -> SavedMap:
    """Reads a map.

    Args:
        embed_dim, encoder: of the present encoder.
    Raises:
        MapFileError: missing, damaged, of another format version, or made with another encoder.
    """
    index = _read_index(path)
    if (index["embed_dim"], index["encoder"]) != (embed_dim, encoder):
        raise MapFileError(
            f"the map {path} was made with the encoder {index['encoder']!r} (embeddings of {index['embed_dim']} "
            f"values), and the present one is {encoder!r} ({embed_dim} values): start with the map's encoder"
        )
    try:
        config = MapperConfig().override({k: v for k, v in index["config"].items() if k not in _FORMER_SETTINGS})
        camera = Camera(**index["camera"])
        bounds = SceneBounds(tuple(index["bounds"]["center"]), index["bounds"]["radius"])
        dense_dim = index.get("dense_dim", 0)  # maps without dense features do not say
        fields = MapFields(config, embed_dim, dense_dim)
        fields.load_state_dict(load_file(path / index["files"]["fields"]))
        store = KeyframeStore(config, camera, embed_dim, device, dense_dim)
        store.restore(load_file(path / index["files"]["keyframes"]), index["keyframes"])
        return SavedMap(config, bounds, fields.to(device), store, encoder, int(index["steps"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
        raise MapFileError(f"the map {path} is damaged ({error}): load a copy or another map") from error


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        version = index["format"]
        index["embed_dim"], index["encoder"]
    except FileNotFoundError as error:
        raise MapFileError(f"there is no map at {path}: {_INDEX} is missing; check the path") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MapFileError(f"the map {path} is damaged ({_INDEX}: {error}): load a copy or another map") from error
    if version != FORMAT_VERSION:
        raise MapFileError(
            f"the map {path} has format version {version} and this program reads version {FORMAT_VERSION}: "
            "load it with the program that wrote it, or map anew"
        )
    return index


def _remove_others(path: Path, named: Iterable[str]) -> None:
    """Files of former maps, and of attempts that were cut off."""
    for pattern in (*(f"{part}-*.safetensors" for part in _PARTS), "map-*.json"):
        for file in path.glob(pattern):
            if file.name not in named:
                file.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
