import hashlib
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from lerf_ros.world.freespace import clearance, is_free
from lerf_ros.world.kinds.catalogue import HELD_OUT_COMBINATIONS, LOOKALIKES, OBJECTS, lookalikes
from lerf_ros.world.language import VOCABULARY, names
from lerf_ros.world.layout import Layout
from lerf_ros.world.room import WELL_VISIBLE, Room
from lerf_ros.world.source import open_source


def _digest(room: Room) -> str:
    frame = room[1]
    return hashlib.sha256(frame.image.tobytes() + frame.depth_z.tobytes() + frame.T_world_camera.tobytes()).hexdigest()


def test_a_seed_is_the_same_room_in_another_process():
    program = (
        "import hashlib; from lerf_ros.world.room import Room; f = Room(11, 64, 48, 8)[1];"
        "print(hashlib.sha256(f.image.tobytes() + f.depth_z.tobytes() + f.T_world_camera.tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == _digest(Room(11, 64, 48, 8))
    assert _digest(Room(12, 64, 48, 8)) != other.stdout.strip()


def test_frames_have_the_contract_of_a_source(room):
    first, last = room[0], room[-1]
    assert first.image.shape == (120, 160, 3) and first.image.dtype == np.uint8
    assert first.depth_z.dtype == np.float32 and 0.8 < np.isfinite(first.depth_z).mean() < 1
    assert last.stamp_ns - first.stamp_ns == (len(room) - 1) * 200_000_000
    np.testing.assert_array_equal(room[0].image, first.image)
    with pytest.raises(IndexError, match="no frame 80"):
        room[80]


def test_things_do_not_run_into_each_other(room):
    grid = np.stack(np.meshgrid(*[np.linspace(-0.49, 0.49, 7)] * 3), axis=-1).reshape(-1, 3)
    solid = [*room.objects, *room.furniture]
    for thing in room.objects:
        points = (grid * thing.box.size) @ thing.box.T_world_box[:3, :3].T + thing.box.centre
        for other in solid:
            # What stands in a bookcase or on a sofa is inside the box of its support, and rests on it: see below.
            if other is not thing and other.instance_id != thing.supported_by:
                assert not other.box.contains(points).any(), (thing.caption, other.caption)


def test_things_rest_on_what_carries_them(room):
    floor = next(t for t in room.things.values() if t.kind == "floor")
    for thing in room.objects:
        carrier = floor if thing.supported_by is None else room.things[thing.supported_by]
        faces = room.scene.faces[room.scene.instance == carrier.instance_id]
        mesh = trimesh.Trimesh(room.scene.vertices, faces, process=False)
        bottom = thing.box.corners()[:, 2].min()
        offsets = np.array([[x, y] for x in (-0.3, 0, 0.3) for y in (-0.3, 0, 0.3)]) * thing.box.size[:2]
        above = np.column_stack(
            [thing.box.centre[:2] + offsets @ thing.box.T_world_box[:2, :2].T, np.full(9, bottom + 0.05)]
        )
        hits, rays, _ = mesh.ray.intersects_location(above, np.tile([0.0, 0.0, -1.0], (9, 1)), multiple_hits=False)
        assert len(rays) == 9, thing.caption  # the carrier is below the whole footprint
        soft = carrier.kind in ("sofa", "armchair", "bed")  # rounded: things touch only the top of the cushions
        assert hits[:, 2].max() == pytest.approx(bottom, abs=1e-3 if not soft else 0.01), thing.caption
        assert soft or hits[:, 2].min() == pytest.approx(bottom, abs=1e-3), thing.caption


def test_names_are_unambiguous(room):
    solid = [*room.objects, *room.furniture]
    assert len({(t.kind, t.colour) for t in solid}) == len(solid)
    for group in LOOKALIKES:
        colours = [t.colour for t in solid if t.kind in group]
        assert len(set(colours)) == len(colours)
    assert 12 <= len(room.objects) <= 32 and len({t.kind for t in room.objects}) >= 10


def test_training_rooms_leave_the_held_out_combinations_away_and_evaluation_rooms_have_them():
    def combinations(seed: int, split: str) -> set[tuple[str, str]]:
        return {(p.kind, p.colour) for p in Layout(np.random.default_rng(seed), split).placed}

    held_out = set(HELD_OUT_COMBINATIONS)
    assert not any(combinations(seed, "train") & held_out for seed in range(8))
    assert any(combinations(seed, "evaluation") & held_out for seed in range(8))


def test_seeds_of_evaluation_are_never_trained_on():
    with pytest.raises(ValueError, match="kept for evaluation"):
        Room(3, split="train")
    with pytest.raises(ValueError, match="split"):
        Room(3, split="test")
    with pytest.raises(ValueError, match="negative"):
        Room(-1)


def test_the_walk_is_smooth_and_free(room):
    poses = room.trajectory
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    turns = np.einsum("nij,nij->n", poses[:-1, :3, :3], poses[1:, :3, :3])
    angles = np.degrees(np.arccos(np.clip((turns - 1) / 2, -1, 1)))
    assert steps.max() < 0.5 and angles.max() < 35 and steps.sum() > 3
    assert all(is_free(pose[:3, 3], room.size, room.things, 0.1) for pose in poses)
    assert min(clearance(room.scene, pose) for pose in poses) > 0.2


def test_random_viewpoints_are_free_and_look_at_things(room):
    rng = np.random.default_rng(0)
    looked_at = 0
    for _ in range(25):
        pose = room.random_viewpoint(rng)
        assert is_free(pose[:3, 3], room.size, room.things)
        instances = np.unique(room.scene.masks(room.camera.scaled(0.25), pose)[1])
        looked_at += any(room.things[int(i)].role != "structure" for i in instances)
    assert looked_at > 18


def test_present_questions_name_what_is_there_and_seen(room):
    queries = room.present_queries(10)
    assert len(queries) == 10 and len({query.text for query in queries}) == 10
    frames = np.stack([room.scene.masks(room.camera, pose)[1] for pose in room.trajectory])
    for query in queries:
        assert set(query.text.split()) <= set(VOCABULARY)
        assert query.instance_ids and len(query.boxes) == len(query.instance_ids)
        for instance, box in zip(query.instance_ids, query.boxes, strict=True):
            thing = room.things[instance]
            assert any(name in query.text for name in names(thing.kind)) and box is thing.box
        well = (frames == query.instance_ids[0]).sum(axis=(1, 2)) >= WELL_VISIBLE * 160 * 120
        others = [(frames == i).sum(axis=(1, 2)) >= WELL_VISIBLE * 160 * 120 for i in query.instance_ids[1:]]
        assert max(w.sum() for w in (well, *others)) >= 3
        kinds = lookalikes(room.things[query.instance_ids[0]].kind)
        named = [t for t in room.things.values() if t.kind in kinds and t.instance_id not in query.instance_ids]
        assert all(t.colour not in query.text for t in named)  # nothing else could be meant


def test_absent_questions_name_what_is_not_there(room):
    queries = room.absent_queries(5)
    assert len(queries) == 5
    present = {name for t in room.things.values() for name in names(t.kind)}
    for query in queries:
        assert query.boxes == () and query.instance_ids == ()
        assert set(query.text.split()) <= set(VOCABULARY)
        asked = [kind for kind in OBJECTS for name in names(kind) if query.text.endswith(name)]
        assert asked and not any(query.text.endswith(f" {name}") or query.text == name for name in present)


def test_open_source_opens_rooms_and_says_what_it_cannot_open(tmp_path):
    assert open_source("room:7").name == "room:7"
    for spec, said in (("room:seven", "whole number"), ("room:", "whole number"), (str(tmp_path / "none"), "neither")):
        with pytest.raises(ValueError, match=said):
            open_source(spec)
