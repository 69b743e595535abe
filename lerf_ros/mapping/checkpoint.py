"""Maps on disk: a folder of safetensors and one JSON file, replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
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

FORMAT_VERSION = 3
_INDEX, _FIELDS, _KEYFRAMES = "map.json", "fields.safetensors", "keyframes.safetensors"


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

    Everything goes to a sibling folder first and is flushed to the disk; then that folder takes the name. Whatever
    interrupts this, `path` holds the old map or the new one. Raises OSError.
    """
    tensors, plain = saved.store.state()
    index = {
        "format": FORMAT_VERSION,
        "encoder": saved.encoder,
        "embed_dim": saved.store.embed_dim,
        "dense_dim": saved.store.dense_dim,
        "steps": saved.steps,
        "config": saved.config.values(),
        "camera": asdict(saved.store.camera),
        "bounds": asdict(saved.bounds),
        "keyframes": plain,
    }
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    fresh.mkdir()
    try:
        save_file({name: value.cpu() for name, value in saved.fields.state_dict().items()}, fresh / _FIELDS)
        save_file({name: value.contiguous() for name, value in tensors.items()}, fresh / _KEYFRAMES)
        (fresh / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
        for part in (*fresh.iterdir(), fresh):
            _flush(part)
        _take_name(fresh, path)
        _flush(path.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


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
        config = MapperConfig().override(index["config"])
        camera = Camera(**index["camera"])
        bounds = SceneBounds(tuple(index["bounds"]["center"]), index["bounds"]["radius"])
        dense_dim = index.get("dense_dim", 0)  # maps without dense features do not say
        fields = MapFields(config, embed_dim, dense_dim)
        fields.load_state_dict(load_file(path / _FIELDS))
        store = KeyframeStore(config, camera, embed_dim, device, dense_dim)
        store.restore(load_file(path / _KEYFRAMES), index["keyframes"])
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


def _take_name(fresh: Path, path: Path) -> None:
    """Renames the folder `fresh` to `path`; a map that is there gives way only once the new one is complete."""
    if not path.exists():
        fresh.rename(path)
        return
    old = fresh.with_name(fresh.name + ".old")
    path.rename(old)
    try:
        fresh.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
