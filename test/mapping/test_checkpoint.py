import json
import pkgutil
import shutil

import pytest
import torch
from safetensors import SafetensorError

from lerf_ros.mapping.checkpoint import MapFileError
from lerf_ros.mapping.mapper import Mapper


def small_map(box, seed=0, frames=4, embed_dim=6):
    mapper = Mapper(box.config, box.camera, embed_dim, "cpu", seed)
    for frame in box.walk(10)[:frames]:
        mapper.add_frame(frame)
    mapper.store.write_embeds(1, 1, 0, torch.nn.functional.normalize(torch.rand(mapper.layout.total, embed_dim), dim=1))
    mapper.store.finish_level(1, 1, 0)
    for _ in range(20):
        mapper.step()
    return mapper


@pytest.fixture(scope="module")
def saved(box, tmp_path_factory):
    mapper = small_map(box)
    path = tmp_path_factory.mktemp("maps") / "kitchen"
    mapper.save(path, encoder="toy")
    return mapper, path


def image_of(box, mapper):
    rendering = mapper.render(box.camera, box.pose(0.2), features=True)
    features = rendering.features.features.view(*rendering.depth_z.shape, -1)
    return torch.cat([rendering.rgb, rendering.depth_z[..., None], features], dim=-1)


def test_a_loaded_map_renders_the_same_and_trains_on(box, saved):
    mapper, path = saved
    other = Mapper(box.config.override({"radiance.hidden": 24}), None, 6, "cpu", seed=9)
    other.load(path, encoder="toy")
    assert torch.equal(image_of(box, other), image_of(box, mapper))
    assert other.config == mapper.config and other.keyframes == 4 and other.steps == mapper.steps
    assert torch.equal(other.store.embeds[:4], mapper.store.embeds[:4]) and other.store.valid[1, 0]
    losses = [float(other.step().loss) for _ in range(60)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert other.add_frame(box.walk(10)[7]).slot == 4


def test_units_are_those_of_the_map_and_metres_where_it_does_not_say(box, tmp_path):
    mapper = Mapper(box.config.override({"scene.units": "scene units"}), box.camera, 0, "cpu")
    mapper.add_frame(box.walk(10)[0])
    mapper.save(tmp_path / "map")
    other = Mapper(box.config, None, 0, "cpu")
    other.load(tmp_path / "map")
    assert other.config.scene.units == "scene units"
    index = json.loads((tmp_path / "map" / "map.json").read_text())
    del index["config"]["scene.units"]  # as maps of before
    (tmp_path / "map" / "map.json").write_text(json.dumps(index))
    other.load(tmp_path / "map")
    assert other.config.scene.units == "m"


def test_settings_that_older_maps_have_are_ignored(box, saved, tmp_path):
    path = shutil.copytree(saved[1], tmp_path / "map")
    index = json.loads((path / "map.json").read_text())
    index["config"] |= {"refinement.rate": 0.25, "refinement.every": 5, "refinement.rays": 128, "refinement.start": 300}
    (path / "map.json").write_text(json.dumps(index))
    other = Mapper(box.config, None, 6, "cpu")
    other.load(path, "toy")
    assert other.config == box.config


def test_saving_replaces_an_older_map_and_leaves_nothing_else(box, saved, tmp_path):
    mapper, _ = saved
    path = tmp_path / "map"
    small_map(box, seed=1, frames=2).save(path, "toy")
    mapper.save(path, "toy")
    other = Mapper(box.config, None, 6, "cpu")
    other.load(path, "toy")
    assert other.keyframes == 4
    assert [p.name for p in tmp_path.iterdir()] == ["map"]


def part(path, name):
    (file,) = path.glob(f"{name}-*.safetensors")
    return file


def truncate(path):
    part(path, "fields").write_bytes(part(path, "fields").read_bytes()[:-1000])


def change_index(**values):
    def damage(path):
        index = json.loads((path / "map.json").read_text())
        (path / "map.json").write_text(json.dumps(index | values))

    return damage


@pytest.mark.parametrize(
    ("damage", "encoder", "reason"),
    [
        (shutil.rmtree, "toy", "no map at"),
        (lambda path: part(path, "keyframes").unlink(), "toy", "damaged"),
        (truncate, "toy", "damaged"),
        (lambda path: (path / "map.json").write_text("{"), "toy", "damaged"),
        (change_index(config={"radiance.grid.levels": 3}), "toy", "damaged"),
        (change_index(format=99), "toy", "version 99"),
        (change_index(embed_dim=512), "toy", "512"),
        (lambda path: None, "ViT-B-16", "'toy'.*'ViT-B-16'"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused_and_the_present_one_stays(box, saved, tmp_path, damage, encoder, reason):
    path = tmp_path / "map"
    shutil.copytree(saved[1], path)
    damage(path)
    present = small_map(box, seed=2, frames=2)
    before = image_of(box, present)
    with pytest.raises(MapFileError, match=reason):
        present.load(path, encoder=encoder)
    assert torch.equal(image_of(box, present), before) and present.keyframes == 2
    present.step()


def loads(box, path):
    """Keyframes of the map in a folder."""
    other = Mapper(box.config, None, 6, "cpu")
    other.load(path, "toy")
    return other.keyframes


@pytest.mark.parametrize("refused", ["os.fsync", "save_file", "Path.replace"])
def test_a_save_that_fails_leaves_the_old_map_and_nothing_else(box, saved, tmp_path, monkeypatch, refused):
    path = tmp_path / "map"
    small_map(box, seed=1, frames=2).save(path, "toy")
    before = sorted(path.iterdir())

    def full_disk(*_):
        raise SafetensorError("No space left") if refused == "save_file" else OSError("No space left on device")

    monkeypatch.setattr(f"lerf_ros.mapping.checkpoint.{refused}", full_disk)
    with pytest.raises(OSError, match="No space.*unharmed.*free some space"):
        saved[0].save(path, "toy")
    assert sorted(path.iterdir()) == before and loads(box, path) == 2


class Crash(BaseException):
    """Nothing catches it, nothing cleans up."""


@pytest.mark.parametrize("moment", range(8))
def test_a_crash_at_any_moment_leaves_the_old_map_or_the_new_one(box, saved, tmp_path, monkeypatch, moment):
    """In front of every call that changes something on the disk: two files, three flushes, the index, the folder, and
    the removal of what is old."""
    path, calls = tmp_path / "map", iter(range(8))
    small_map(box, seed=1, frames=2).save(path, "toy")
    with monkeypatch.context() as patch:
        for name in ("save_file", "_flush", "Path.replace", "_remove_others"):
            crash_at(patch, f"lerf_ros.mapping.checkpoint.{name}", calls, moment)
        with pytest.raises(Crash):
            saved[0].save(path, "toy")
    assert loads(box, path) == (2 if moment <= 5 else 4)
    saved[0].save(path, "toy")
    assert loads(box, path) == 4 and len(list(path.iterdir())) == 3  # what the crash left is gone


def crash_at(patch, name, calls, moment):
    original = pkgutil.resolve_name(name.replace("checkpoint.", "checkpoint:"))

    def call(*arguments):
        if next(calls) == moment:
            raise Crash
        return original(*arguments)

    patch.setattr(name, call)


def test_an_empty_map_is_not_saved(box, tmp_path):
    with pytest.raises(RuntimeError, match="before the first keyframe"):
        Mapper(box.config, None, 0, "cpu").save(tmp_path / "map")
