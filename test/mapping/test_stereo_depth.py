"""Depth of keyframes from the views around them, in a generated room of which the truth is known."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.stereo_depth import StereoDepth, StereoWork, stereo_bytes
from lerf_ros.world.room import Room
from test.kernels import needs_cuda

VIEWS = range(2, 10)  # frames of the walk that become keyframes
BAD = 3  # of these, by number
SETTINGS = {
    "keyframe.capacity": len(VIEWS),
    "depth.rows": 120,
    "depth.planes": 64,
    "depth.between": 2,
    "pyramid.fractions": [0.5],
}


@pytest.fixture(scope="module")
def room():
    return Room(12001, width=160, height=120, frames=80)


@pytest.fixture(scope="module")
def frames(room):
    """Without depth."""
    return [replace(room[i], depth_z=None) for i in VIEWS]


@pytest.fixture(scope="module")
def truth(room):
    return np.stack([room.truth_view(i).depth_z for i in VIEWS])


def empty(camera, device="cpu", **settings):
    config = MapperConfig().override(SETTINGS | settings)
    store = KeyframeStore(config, camera, 0, device)
    return store, StereoDepth(config.depth, config.keyframe, store)


def add(store, stereo, frames):
    for frame in frames:
        slot, _ = store.insert(frame)
        stereo.add_keyframe(slot)


def work_off(stereo, most=200):
    """Does all the work there is; returns what that was."""
    done = []
    while (work := stereo.next_work) is not None:
        stereo.do(work)
        done.append(work)
        assert len(done) < most  # it comes to an end
    return done


def mapped(frames, device="cpu", **settings):
    """A store of keyframes with the depth that stereo finds."""
    store, stereo = empty(frames[0].camera, device, **settings)
    add(store, stereo, frames)
    work_off(stereo)
    return store


def quality(store, truth, slots=None):
    """coverage, median error (m), share beyond 5 cm, and share within three standard deviations."""
    slots = list(range(len(store))) if slots is None else slots
    depth_z, sigma = store.depth_z[slots].float().numpy(), store.depth_sigma[slots].float().numpy()
    known = np.isfinite(depth_z)
    error = np.abs(depth_z - truth[slots])[known]
    if not known.any():
        return SimpleNamespace(coverage=0.0, median=np.nan, wrong=0.0, within=np.nan)
    within = (error <= 3 * sigma[known]).mean()
    return SimpleNamespace(
        coverage=known.mean(), median=np.median(error), wrong=(error > 0.05).mean(), within=float(within)
    )


@pytest.fixture(scope="module")
def good(frames):
    return mapped(frames)


def test_keyframes_get_depth_near_the_truth(good, truth):
    found = quality(good, truth)
    print(found)
    assert found.coverage > 0.75 and found.median < 0.012 and found.wrong < 0.11 and found.within > 0.9
    assert (torch.isfinite(good.depth_z) == (good.depth_sigma > 0)).all()
    assert (good.depth_sigma[: len(good)] > 0).flatten(1).any(dim=1).all() and not good.all_have_depth


@needs_cuda
def test_kernels_and_captured_work_find_the_same(frames, good):
    found = mapped(frames, "cuda").depth_z.float().cpu()
    both = found.isfinite() & good.depth_z.isfinite()
    assert (found.isfinite() == good.depth_z.isfinite()).float().mean() > 0.98
    assert ((found / good.depth_z.float())[both] - 1).abs().median() < 1e-3


def with_bad(frames, kind):
    """Frames of which one is bad."""
    frame, rng = frames[BAD], np.random.default_rng(0)
    image, T = frame.image, frame.T_world_camera.copy()
    if kind == "wrong pose":
        T[:3, 3] += 0.05 * np.array([0.6, -0.64, 0.48])
        T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(np.radians(3) * np.array([0.48, 0.6, -0.64])).as_matrix()
    elif kind == "blurred":
        image = cv2.GaussianBlur(image, None, 6.0)
    elif kind == "over-exposed":
        image = np.minimum(4.0 * image + 100, 255).astype(np.uint8)
    elif kind == "uniform":
        image = np.full_like(image, 128)
    elif kind == "noise":
        image = rng.integers(0, 256, image.shape, np.uint8)
    return [*frames[:BAD], Frame(frame.stamp_ns, image, None, frame.camera, T), *frames[BAD + 1 :]]


@pytest.mark.parametrize(
    ("kind", "confirmed"),
    [("wrong pose", 0.2), ("blurred", 0.35), ("over-exposed", 0.5), ("uniform", 0.001), ("noise", 0.1)],
)
def test_a_bad_frame_does_no_harm(frames, truth, good, kind, confirmed):
    store = mapped(with_bad(frames, kind))
    others = [slot for slot in range(len(frames)) if slot != BAD]
    found, before = quality(store, truth, others), quality(good, truth, others)
    print(kind, found, "itself", quality(store, truth, [BAD]), "before", before)
    assert found.coverage > 0.75 * before.coverage
    assert found.median < 1.3 * before.median and found.wrong < before.wrong + 0.03
    assert quality(store, truth, [BAD]).coverage < confirmed < quality(good, truth, [BAD]).coverage


@pytest.mark.parametrize("jitter", [0.0, 0.005])  # m
def test_a_camera_that_only_turns_finds_nothing(room, jitter):
    rng, start, frames = np.random.default_rng(0), room.trajectory[5], []
    for i in range(6):
        T = start.copy()
        T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec([0.0, np.radians(4.0 * i), 0.0]).as_matrix()
        T[:3, 3] += jitter * rng.normal(size=3)
        frames.append(Frame(i, room.view(room.camera, T).image, None, room.camera, T))
    store = mapped(frames)
    assert torch.isfinite(store.depth_z[: len(store)]).float().mean() < 0.01


def images_matched(stereo, monkeypatch):
    """The list to which the sources of each match are added, as grey images in 0 .. 255."""
    from lerf_ros.mapping import stereo_depth

    seen, match = [], stereo_depth.match

    def spy(reference, sources, *rest):
        seen.append([(255 * source).round().to(torch.uint8).numpy() for source in sources])
        return match(reference, sources, *rest)

    monkeypatch.setattr(stereo_depth, "match", spy)
    return seen


def shows(grey, frame):
    return np.abs(grey.astype(int) - cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)).max() <= 1


def test_frames_between_keyframes_help_and_the_latest_are_kept(room, frames, truth, monkeypatch):
    """Three keyframes in a row, too far apart to be matched well without the frames between them."""
    keyframes, between = [frames[0], frames[4], frames[7]], [frames[i] for i in (1, 2, 3, 5, 6)]
    of_truth = truth[[0, 4, 7]]
    alone = quality(mapped(keyframes), of_truth)
    store, stereo = empty(room.camera, **{"depth.between": 4})
    seen = images_matched(stereo, monkeypatch)
    add(store, stereo, keyframes)
    for frame in [*between, between[-1]]:  # the last one twice: it does not differ
        stereo.add_between(frame)
    work_off(stereo)
    found = quality(store, of_truth)
    print(alone, found)
    assert found.coverage > 1.05 * alone.coverage and found.wrong < alone.wrong and found.median < alone.median
    used = [frame for frame in between if any(shows(grey, frame) for greys in seen for grey in greys)]
    assert used == between[1:]  # the oldest one made room


def test_keyframes_of_several_places_that_are_loaded_get_depth(frames, truth):
    """Before any depth is known, baselines to another place would suggest that all is far away."""
    elsewhere = []
    for frame in frames[1:5]:
        T = frame.T_world_camera.copy()
        T[:3, 3] += [30.0, 0.0, 0.0]
        elsewhere.append(replace(frame, T_world_camera=T))
    store, _ = empty(frames[0].camera)
    for frame in [*frames[1:5], *elsewhere]:
        store.insert(frame)
    config = MapperConfig().override(SETTINGS)
    work_off(StereoDepth(config.depth, config.keyframe, store))
    found = quality(store, np.concatenate([truth[1:5], truth[1:5]]))
    assert found.coverage > 0.3 and found.median < 0.015


def test_what_others_know_helps_a_keyframe_that_was_matched_in_vain(room):
    """Keyframes far from each other, of which the first ones are matched with views that do not suit them."""
    number = range(0, 18, 3)
    store = mapped([replace(room[i], depth_z=None) for i in number])
    assert quality(store, np.stack([room.truth_view(i).depth_z for i in number]), [3]).coverage > 0.2


def test_no_frame_is_kept_without_keyframes(room, frames):
    store, stereo = empty(room.camera)
    stereo.add_between(frames[0])
    assert stereo.next_work is None


def test_keyframes_are_not_matched_again_because_frames_between_them_made_room(frames):
    """All keyframes that remain suit the first ones less than the frames did with which they were matched."""
    store, stereo = empty(frames[0].camera, **{"depth.sources": 2})
    add(store, stereo, [frames[i] for i in (0, 3, 4, 5, 6, 7)])
    for i in (1, 2):
        stereo.add_between(frames[i])
    work_off(stereo)
    before = store.depth_z.clone()
    for i in range(2):  # two that show nothing of this
        T = frames[0].T_world_camera.copy()
        T[:3, 3] += [0.0, 0.0, 50.0 + i]
        stereo.add_between(replace(frames[0], T_world_camera=T))
    assert not any(work.matches for work in work_off(stereo))
    assert torch.equal(store.depth_z.nan_to_num(), before.nan_to_num())


def test_a_slot_that_is_reused_forgets(room, frames, truth):
    store, stereo = empty(room.camera, **{"keyframe.capacity": 5})
    add(store, stereo, frames[:5])
    work_off(stereo)
    slot, generation = store.insert(frames[6])
    assert generation == 2
    assert store.depth_z[slot].isnan().all() and (store.depth_sigma[slot] == 0).all()
    stereo.add_keyframe(slot)
    work = work_off(stereo)
    assert work[0] == StereoWork((slot,), matches=True, urgent=True)
    found = quality(store, np.repeat(truth[6:7], 5, axis=0), [slot])
    assert found.coverage > 0.3 and found.median < 0.02
    assert quality(store, np.repeat(truth[slot : slot + 1], 5, axis=0), [slot]).median > 0.05


def test_poses_that_were_moved_are_matched_again(frames, truth, good):
    store, stereo = empty(frames[0].camera)
    add(store, stereo, with_bad(frames, "wrong pose"))
    work_off(stereo)
    assert quality(store, truth, [BAD]).coverage < 0.2
    store.move([BAD], frames[BAD].T_world_camera[None])
    stereo.move([BAD])
    work = work_off(stereo)
    assert any(each == StereoWork((BAD,), True, each.urgent) for each in work)
    found, expected = quality(store, truth, [BAD]), quality(good, truth, [BAD])
    assert found.coverage > 0.9 * expected.coverage and found.wrong < expected.wrong + 0.02
    assert quality(store, truth).coverage > 0.9 * quality(good, truth).coverage


def test_what_depends_on_a_pose_that_was_moved_is_matched_again(frames):
    store, stereo = empty(frames[0].camera)
    add(store, stereo, frames)
    work_off(stereo)
    store.move([4], store.host_poses[4:5])
    stereo.move([4])
    again = {work.slots[0] for work in work_off(stereo) if work.matches}
    assert 4 in again and len(again) > 2


# -- with a depth camera ----------------------------------------------------------------------------------------------


def measured(frame, depth_z, hole):
    """The frame with true depth, of which a part from the left, up to the share `hole`, is missing."""
    depth_z = depth_z.copy()
    depth_z[:, : round(hole * depth_z.shape[1])] = np.nan
    return replace(frame, depth_z=depth_z)


def test_few_holes_are_not_filled(frames, truth):
    store, stereo = empty(frames[0].camera)
    add(store, stereo, [measured(*pair, 0.05) for pair in zip(frames, truth)])
    assert stereo.next_work is None and store.all_have_depth


def test_large_holes_are_filled_and_what_was_measured_stays(frames, truth):
    store, stereo = empty(frames[0].camera)
    add(store, stereo, [measured(frame, depth, 0.3) for frame, depth in zip(frames, truth)])
    before = store.depth_z.clone()
    work_off(stereo)
    by_sensor = torch.isfinite(before)
    assert torch.equal(store.depth_z[by_sensor], before[by_sensor]) and (store.depth_sigma[by_sensor] == 0).all()
    filled = torch.isfinite(store.depth_z) & ~by_sensor
    assert filled.sum() > 0.4 * (~by_sensor).sum() and (store.depth_sigma[filled] > 0).all()
    error = np.abs(store.depth_z.float().numpy() - truth)[filled.numpy()]
    assert np.median(error) < 0.015 and (error > 0.05).mean() < 0.12


def test_frames_with_and_without_a_depth_camera_confirm_each_other(frames, truth):
    """Two frames alone are confirmed by those that were measured."""
    store, stereo = empty(frames[0].camera)
    mixed = [frame if i in (3, 5) else measured(frame, truth[i], 0.0) for i, frame in enumerate(frames)]
    add(store, stereo, mixed)
    matched = {work.slots[0] for work in work_off(stereo) if work.matches}
    assert matched == {3, 5}
    found = quality(store, truth, [3, 5])
    assert found.coverage > 0.6 and found.median < 0.012 and found.wrong < 0.08


# -- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(box):
    """One keyframe with depth in its left half, one without."""
    store = KeyframeStore(box.config, box.camera, 0, "cpu")
    frame = box.frame(box.pose(0.0))
    depth_z = frame.depth_z.copy()
    depth_z[:, 32:] = np.nan
    store.insert(replace(frame, depth_z=depth_z))
    store.insert(box.frame(box.pose(1.0), depth=False, stamp_ns=1))
    return store


FIRST, SECOND = torch.tensor([0]), torch.tensor([1])


def test_stereo_never_overwrites_what_was_measured(store):
    before = store.depth_z[0].clone()
    found = torch.full((48, 64), 1.25)
    found[:10] = torch.nan
    sigma = torch.full((48, 64), 0.03125)
    sigma[10:12] = torch.nan
    store.write_stereo(FIRST, found, sigma)
    assert torch.equal(store.depth_z[0, :, :32], before[:, :32]) and (store.depth_sigma[0, :, :32] == 0).all()
    assert (store.depth_z[0, 12:, 32:] == 1.25).all() and (store.depth_sigma[0, 12:, 32:] == 0.03125).all()
    assert store.depth_z[0, :12, 32:].isnan().all() and (store.depth_sigma[0, :12, 32:] == 0).all()
    store.write_stereo(FIRST, torch.full((48, 64), torch.nan), sigma)  # what was written before is forgotten
    assert torch.equal(store.depth_z[0].nan_to_num(), before.nan_to_num()) and (store.depth_sigma[0] == 0).all()


def test_the_smallest_standard_deviation_is_not_taken_for_a_depth_camera(store):
    store.write_stereo(SECOND, torch.full((48, 64), 0.2), torch.full((48, 64), 1e-9))
    assert (store.depth_sigma[1] > 0).all()
    store.write_stereo(SECOND, torch.full((48, 64), 0.25), torch.full((48, 64), 1e-9))
    assert (store.depth_z[1] == 0.25).all()


def test_maps_keep_depth_and_its_standard_deviation(room, frames, tmp_path):
    config = MapperConfig().override(SETTINGS | {"keyframe.translation": 0.02})
    mapper = Mapper(config, None, 0, "cpu")
    for frame in frames[:4]:
        assert mapper.add_frame(frame).accepted
    while mapper.stereo.next_work is not None:
        mapper.find_depth(mapper.stereo.next_work)
    mapper.save(tmp_path / "map")
    loaded = Mapper(config, None, 0, "cpu")
    loaded.load(tmp_path / "map")
    assert torch.isfinite(mapper.store.depth_z[:4]).float().mean() > 0.3
    for name in ("depth_z", "depth_sigma"):
        one, other = getattr(mapper.store, name)[:4], getattr(loaded.store, name)[:4]
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    assert not loaded.store.all_have_depth


def test_maps_from_before_stereo_load(box, store):
    tensors, plain = store.state()
    del tensors["depth_sigma"]
    other = KeyframeStore(box.config, box.camera, 0, "cpu")
    other.restore(tensors, plain)
    assert torch.equal(other.depth_z[:2].nan_to_num(), store.depth_z[:2].nan_to_num())
    assert (other.depth_sigma == 0).all()
    assert not other.all_have_depth


def test_keyframes_of_a_loaded_map_are_matched(frames, good, truth):
    """A map from before stereo, whose keyframes come all at once."""
    store, _ = empty(frames[0].camera)
    tensors, plain = good.state()
    tensors["depth_z"] = torch.full_like(tensors["depth_z"], torch.nan)
    del tensors["depth_sigma"]
    store.restore(tensors, plain)
    config = MapperConfig().override(SETTINGS)
    stereo = StereoDepth(config.depth, config.keyframe, store)
    work_off(stereo)
    assert quality(store, truth).coverage > 0.9 * quality(good, truth).coverage


# -- the mapper -------------------------------------------------------------------------------------------------------


def mapper_of(frames, **settings):
    config = MapperConfig().override(SETTINGS | {"keyframe.translation": 0.02, "keyframe.rotation": 0.02} | settings)
    mapper = Mapper(config, None, 0, "cpu")
    for frame in frames:
        assert mapper.add_frame(frame).accepted
    return mapper


def points_of(truth, frames):
    """True surface points (N, 3), m."""
    camera = frames[0].camera
    v, u = np.mgrid[4:120:8, 4:160:8]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    points = [
        (depth_z[v, u][..., None] * rays) @ frame.T_world_camera[:3, :3].T + frame.T_world_camera[:3, 3]
        for depth_z, frame in zip(truth, frames)
    ]
    return torch.from_numpy(np.concatenate(points).reshape(-1, 3))


def test_a_guessed_volume_is_fitted_to_the_first_depth_once(frames, truth):
    mapper = mapper_of(frames)
    guessed, fits = mapper.bounds, [mapper.bounds]
    while mapper.stereo.next_work is not None:
        mapper.find_depth(mapper.stereo.next_work)
        if mapper.bounds is not fits[-1]:
            fits.append(mapper.bounds)
    points = points_of(truth, frames)
    spread = (points - points.mean(dim=0)).norm(dim=1).max()
    print([(each.center, each.radius) for each in fits], spread)
    assert 2 <= len(fits) <= 3  # it may have grown once
    assert guessed.radius > 1.8 * fits[-1].radius and fits[-1].contains(points).float().mean() > 0.95
    assert fits[-1].radius < 1.5 * spread
    steps = mapper.steps
    mapper.step()
    assert mapper.steps == steps + 1


@pytest.mark.parametrize("settings", [{"scene.radius": 4.0}])
def test_a_volume_that_is_given_stays(frames, settings):
    mapper = mapper_of(frames, **settings)
    bounds = mapper.bounds
    while mapper.stereo.next_work is not None:
        mapper.find_depth(mapper.stereo.next_work)
    assert mapper.bounds is bounds


@pytest.mark.parametrize("texture", ["none", "noise"])
def test_without_texture_there_is_no_depth_and_in_noise_little(frames, texture):
    """Nothing is confirmed without texture, and the volume stays as it was guessed; noise is confirmed by chance."""
    rng = np.random.default_rng(0)
    image = np.full_like(frames[0].image, 128)
    images = [image if texture == "none" else rng.integers(0, 256, image.shape, np.uint8) for _ in frames]
    mapper = mapper_of([replace(frame, image=image) for frame, image in zip(frames, images)])
    bounds, done = mapper.bounds, 0
    while mapper.stereo.next_work is not None:
        mapper.find_depth(mapper.stereo.next_work)
        done += 1
    confirmed = torch.isfinite(mapper.store.depth_z[: len(frames)]).float().mean()
    print(f"confirmed by chance: {confirmed:.3f}")
    assert done >= len(frames)
    if texture == "none":
        assert confirmed == 0 and mapper.bounds is bounds
    else:  # one of up to six views agrees by chance for a fifth of the pixels
        assert 0 < confirmed < 0.3


def test_without_stereo_nothing_is_matched(frames):
    mapper = mapper_of(frames[:2], **{"depth.stereo": False})
    assert mapper.stereo is None


def test_memory_is_known_in_advance(frames):
    store, stereo = empty(frames[0].camera)
    kept = stereo._greys, stereo._inverse_depths
    config = MapperConfig().override(SETTINGS)
    assert stereo_bytes(config.depth, store) == sum(each.numel() * each.element_size() for each in kept)


# -- the share of the time --------------------------------------------------------------------------------------------


@pytest.fixture
def online(box, monkeypatch):
    """A map whose units of work take as long as said: (online, seconds), by the name of the work."""
    online = OnlineMapper(box.config, box.ColourEncoder(), "cpu")
    for frame in box.walk(2):
        online.ingest(frame)
    while online.encoding:
        online.advance()
    clock, seconds, spent = {"now": 0.0}, {"stereo": 0.1, "step": 0.03}, {"stereo": 0.0, "step": 0.0}
    monkeypatch.setattr("lerf_ros.mapping.online.time", SimpleNamespace(monotonic=lambda: clock["now"]))

    def takes(name):
        def work(*_):
            clock["now"] += seconds[name]
            spent[name] += seconds[name]

        return work

    monkeypatch.setattr(online.mapper, "find_depth", takes("stereo"))
    monkeypatch.setattr(online.mapper, "step", takes("step"))
    return online, seconds, spent


def waiting(online, monkeypatch, urgent):
    work = StereoWork((0,), matches=True, urgent=urgent)
    monkeypatch.setattr(online.mapper, "stereo", SimpleNamespace(next_work=work))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.75, 1.0])
def test_stereo_takes_its_share_of_the_time(online, monkeypatch, share):
    online, seconds, spent = online
    monkeypatch.setattr(online.mapper, "config", online.mapper.config.override({"depth.time_share": share}))
    waiting(online, monkeypatch, urgent=False)
    for unit, step in [(0.1, 0.03), (0.02, 0.05), (0.1, 0.01)]:
        seconds["stereo"], seconds["step"] = unit, step
        spent["stereo"] = spent["step"] = 0.0
        while sum(spent.values()) < 40 * unit / share:
            online.advance()
        least = unit / (unit / share + step)  # the last step of those between two units may end later
        assert 0.95 * least < spent["stereo"] / sum(spent.values()) < 1.05 * share


def test_what_has_no_depth_yet_comes_at_once(online, monkeypatch):
    online, seconds, spent = online
    waiting(online, monkeypatch, urgent=True)
    for _ in range(20):
        online.advance()
    assert spent["step"] == 0 and spent["stereo"] == pytest.approx(20 * 0.1)
    waiting(online, monkeypatch, urgent=False)
    for _ in range(5):
        online.advance()
    assert spent["stereo"] == pytest.approx(20 * 0.1) and spent["step"] > 0  # training comes next ...
    for _ in range(50):
        online.advance()
    assert spent["stereo"] > 20 * 0.1 + 0.2  # ... but what was urgent is not paid back


def test_time_without_stereo_is_not_saved_up(online, monkeypatch):
    online, seconds, spent = online
    monkeypatch.setattr(online.mapper, "stereo", SimpleNamespace(next_work=None))
    for _ in range(100):
        online.advance()
    waiting(online, monkeypatch, urgent=False)
    for _ in range(6):  # one unit, then five steps for it
        online.advance()
    assert spent["stereo"] == pytest.approx(0.1)


def test_kernels_that_are_compiled_are_not_counted(online, monkeypatch):
    online, seconds, spent = online
    waiting(online, monkeypatch, urgent=False)
    seconds["stereo"] = 60.0
    online.advance()
    seconds["stereo"] = 0.1
    for _ in range(40):
        online.advance()
    assert 0 < spent["stereo"] - 60.0 < 0.5


def test_a_share_of_zero_leaves_what_is_urgent(online, monkeypatch):
    online, seconds, spent = online
    monkeypatch.setattr(online.mapper, "config", online.mapper.config.override({"depth.time_share": 0.0}))
    waiting(online, monkeypatch, urgent=True)
    online.advance()
    waiting(online, monkeypatch, urgent=False)
    for _ in range(100):
        online.advance()
    assert spent["stereo"] == pytest.approx(0.1)
