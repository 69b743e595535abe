from dataclasses import replace

import cv2
import numpy as np
import torch

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore

CAMERA = Camera(fx=8.0, fy=8.0, cx=3.5, cy=2.5, width=8, height=6)


def make_store(capacity=4):
    config = MapperConfig().override(
        {
            "keyframe.capacity": capacity,
            "keyframe.translation": 0.1,
            "replay.recent_keyframes": 3,
            "replay.recent_steps": 5,
            "pyramid.fractions": [0.5, 1.0],
        }
    )
    return KeyframeStore(config, CAMERA, embed_dim=3, device="cpu")


def frame(x, value=0, camera=CAMERA, depth=True):
    T = np.eye(4)
    T[0, 3] = x
    shape = (camera.height, camera.width)
    depth_z = np.full(shape, 1.0 + x, np.float32) if depth else None
    return Frame(value, np.full((*shape, 3), value, np.uint8), depth_z, camera, T)


def test_slots_hold_what_was_put_in():
    store = make_store()
    slot, generation = store.insert(frame(0.5, value=9))
    assert (slot, generation, len(store), int(store.count)) == (0, 1, 1, 1)
    assert (store.images[0] == 9).all() and (store.depth_z[0] == 1.5).all()
    assert store.poses[0, 0, 3] == 0.5 and store.intrinsics[0].tolist() == [8.0, 8.0, 3.5, 2.5]
    store.insert(frame(1.0, depth=False))
    assert store.depth_z[1].isnan().all()


def test_keyframes_cease_to_be_new_after_some_steps():
    store = make_store()
    store.insert(frame(0.0))
    for _ in range(3):
        store.tick()
    store.insert(frame(1.0))
    assert store.recent[: int(store.recent_count)].tolist() == [1, 0]
    store.tick()
    store.tick()
    assert store.recent[: int(store.recent_count)].tolist() == [1]
    for _ in range(3):
        store.tick()
    assert int(store.recent_count) == 0
    for x in [5.0, 9.0, 12.0, 15.0]:
        store.insert(frame(x))
    assert int(store.recent_count) == 3


def test_a_full_store_drops_the_most_redundant_not_the_oldest():
    store = make_store()
    for x in [
        0.0,
        5.0,
        5.3,
        9.0,
    ]:  # the second and third are closest; the third is nearer to the fourth: more redundant
        store.insert(frame(x))
    assert store.insert(frame(20.0, value=77)) == (2, 2)
    assert sorted(store.poses[:, 0, 3].tolist()) == [0.0, 5.0, 9.0, 20.0]
    assert store.newest_first == (2, 3, 1, 0)


def turned(yaw, x):
    keyframe = frame(x)
    keyframe.T_world_camera[:3, :3] = cv2.Rodrigues(np.array([0.0, yaw, 0.0]))[0]
    return keyframe


def test_other_thresholds_hold_between_the_keyframes_that_are_there():
    """Of a pair that is turned and one that is moved, the one or the other is closer together."""
    store = make_store()
    for keyframe in (turned(0.0, 0.0), turned(0.1, 0.0), turned(2.0, 5.0), turned(2.0, 5.04)):
        store.insert(keyframe)
    assert store._most_redundant() in (2, 3)  # 0.4 of 0.1 m; the others 0.5 of 0.2 rad
    store.tune(replace(store.config, translation=0.05))
    assert store._most_redundant() in (0, 1)


def test_new_keyframes_are_never_refused_and_coverage_stays():
    store = make_store(capacity=8)
    for x in np.random.default_rng(1).permutation(np.linspace(0, 7, 200)):
        store.insert(frame(x))
    positions = np.sort(store.poses[:, 0, 3].numpy())
    assert len(store) == 8
    assert np.diff(positions).max() < 2.5 and positions[0] < 1.5 and positions[-1] > 5.5


def test_late_embeddings_never_reach_a_slot_that_was_reused():
    store = make_store(capacity=3)
    store.insert(frame(0.0))
    slot, old = store.insert(frame(5.0))
    store.insert(frame(5.3))
    assert store.write_embeds(slot, old, 0, torch.ones(5, 3)) and store.finish_level(slot, old, 1)
    assert store.valid[slot].tolist() == [False, True]
    assert store.insert(frame(20.0, value=3)) == (slot, old + 1)
    before = store.embeds[slot].clone()
    assert not store.valid[slot].any()
    assert not store.write_embeds(slot, old, 0, torch.full((5, 3), 7.0))
    assert not store.finish_level(slot, old, 0)
    assert torch.equal(store.embeds[slot], before) and not store.valid[slot].any()


def test_slots_with_language_are_listed_first():
    store = make_store()
    for x in range(3):
        store.insert(frame(float(x)))
    assert int(store.language_count) == 0
    store.finish_level(2, 1, 0)
    store.finish_level(0, 1, 1)
    assert int(store.language_count) == 2 and set(store.language[:2].tolist()) == {0, 2}


def test_state_restores_into_an_empty_store():
    store = make_store()
    for x in [0.0, 5.0, 5.3, 9.0, 20.0]:
        store.insert(frame(x, value=int(x)))
    store.write_embeds(1, 1, 2, torch.ones(3, 3))
    store.finish_level(1, 1, 0)
    copy = make_store()
    copy.restore(*store.state())
    assert copy.generations == store.generations and copy.newest_first == store.newest_first
    assert torch.equal(copy.images, store.images) and torch.equal(copy.recent, store.recent)
    assert torch.equal(copy.valid, store.valid) and int(copy.language_count) == 1
    assert np.array_equal(copy.seen, store.seen)
    assert copy.insert(frame(30.0)) == store.insert(frame(30.0))


def test_memory_is_what_the_buffers_take():
    store = make_store(capacity=4)
    assert store.memory_bytes == 4 * (6 * 8 * (3 + 2 + 2) + 16 * 8 + 4 * 4 + store.layout.total * 3 * 2 + 2)


def test_what_is_missing_is_counted():
    store = make_store(capacity=2)
    counts = [level.count for level in store.layout.levels]
    assert store.crops_missing == store.dense_missing == 0
    for x, value in ((0.0, 1), (5.0, 2)):
        store.insert(frame(x, value))
    assert store.crops_missing == 2 * sum(counts) and store.dense_missing == 2
    store.finish_level(0, 1, 1)
    store.finish_level(0, 1, 1)
    store.finish_level(1, 1, 0)
    assert store.crops_missing == counts[0] + counts[1]
    assert not store.finish_level(1, 2, 1) and store.crops_missing == counts[0] + counts[1]

    restored = make_store(capacity=2)
    restored.restore(*store.state())
    assert restored.crops_missing == store.crops_missing and restored.dense_missing == 2
    slot, generation = store.insert(frame(5.1))  # takes the place of one of the two
    assert store.crops_missing == sum(counts) + counts[1 - slot]
    for level in range(len(counts)):
        store.finish_level(slot, generation, level)
    assert store.crops_missing == counts[1 - slot]
