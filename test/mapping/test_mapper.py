import cv2
import numpy as np
import pytest
import torch

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.mapper import Mapper


def trained(box, depth=True, steps=250):
    mapper = Mapper(box.config, box.camera, 0, "cpu", seed=0)
    for f in box.walk(10, depth):
        assert mapper.add_frame(f).accepted
    for _ in range(steps):
        mapper.step()
    return mapper


def unseen(box):
    return box.pose(0.35, 0.2, 0.1)  # between the keyframes of the walk


def quality(box, mapper):
    """PSNR and median depth error of an unseen view, against the closed form."""
    rendering = mapper.render(box.camera, unseen(box))
    rgb, depth_z, _ = box.view(unseen(box))
    psnr = -10 * np.log10(np.mean((rendering.rgb.numpy() - rgb) ** 2))
    return psnr, np.median(np.abs(rendering.depth_z.numpy() - depth_z))


@pytest.fixture(scope="module")
def mapper(box):
    return trained(box)


def test_an_unseen_view_is_predicted_without_its_depth(box, mapper):
    untrained = quality(box, trained(box, steps=1))
    psnr, depth_error = quality(box, mapper)
    assert psnr > 25.0 > untrained[0] + 5
    assert depth_error < 0.04 < untrained[1]


def test_points_of_frames_of_other_sizes_lie_on_the_walls(box):
    """A second and a third camera, of other sizes and focal lengths: their keyframes measure the same box."""
    mapper = Mapper(box.config, None, 0, "cpu", seed=0)
    cameras = [box.camera, Camera(90.0, 88.0, 80.3, 59.2, 160, 120), Camera(25.0, 25.0, 30.1, 15.4, 60, 32)]
    for i, camera in enumerate(cameras):
        T = box.pose(1.0 + i, 0.1 * i, 0.2)
        rgb, depth_z, _ = box.view(T, camera)
        image = (255 * rgb).round().astype(np.uint8)
        assert mapper.add_frame(Frame(i, image, depth_z, camera, T)).accepted
    store = mapper.store
    v, u = np.mgrid[2:48:5, 2:64:5]
    uv = torch.from_numpy(np.stack([u.ravel(), v.ravel()], axis=-1))
    for slot in range(3):
        x_world, _ = store.lifted(torch.full((len(uv),), slot), uv)
        wall = (np.abs(x_world.numpy()) / box.half).max(axis=-1)
        np.testing.assert_allclose(wall, 1.0, atol=0.02)  # depth of the nearest pixel, to half a pixel of the smallest
        seen = store.images[slot][uv[:, 1], uv[:, 0]].numpy() / 255
        assert np.median(np.abs(seen - box.colour(x_world.numpy()))) < 0.02


def test_a_camera_with_softer_pictures_is_no_blurred_one(box):
    """Two cameras take turns: each picture is as sharp as those of its own camera, so that all are taken at once."""
    mapper = Mapper(box.config, box.camera, 0, "cpu", seed=0)
    rng = np.random.default_rng(0)
    for i in range(6):
        for stream, soft in (("front", False), ("rear", True)):
            picture = rng.integers(0, 255, (48, 64, 3), np.uint8)
            picture = cv2.GaussianBlur(picture, (0, 0), 2) if soft else picture
            frame = Frame(i, picture, None, box.camera, box.pose(i + 0.5 * soft), stream)
            assert mapper.add_frame(frame).accepted


def test_the_step_after_many_has_a_smaller_loss(box, mapper):
    assert float(mapper.step().loss) < 0.5 * float(trained(box, steps=1).step().loss)


def test_without_any_depth_colours_still_come_out(box):
    psnr, _ = quality(box, trained(box, depth=False, steps=300))
    assert psnr > 18.0


NETWORKS = {
    "proposal.bins": [48, 24],
    "proposal.max_resolutions": [32, 64],
    "proposal.log2_table": 12,
    "proposal.anneal_steps": 100,
}


def test_proposal_networks_find_the_scene_with_and_without_depth(box):
    networks = {**NETWORKS, "sampling.proposal": "networks"}
    for depth, least in ((True, 22.0), (False, 18.0)):  # 22 to 27 dB by seed
        mapper = Mapper(box.config.override(networks), box.camera, 0, "cpu", seed=0)
        for f in box.walk(10, depth):
            mapper.add_frame(f)
        before = quality(box, mapper)
        for _ in range(200):
            mapper.step()
        psnr, depth_error = quality(box, mapper)
        assert psnr > least > before[0] + 5
        assert not depth or depth_error < 0.04


def test_rendering_does_not_read_the_measured_depth(box, mapper):
    before = mapper.render(box.camera, unseen(box))
    kept = mapper.store.depth_z.clone()
    mapper.store.depth_z.fill_(torch.nan)
    after = mapper.render(box.camera, unseen(box))
    mapper.store.depth_z.copy_(kept)
    assert torch.equal(before.rgb, after.rgb) and torch.equal(before.depth_z, after.depth_z)


def test_a_stride_picks_pixels_of_the_full_view(box, mapper):
    whole, part = mapper.render(box.camera, unseen(box)), mapper.render(box.camera, unseen(box), stride=4)
    assert part.rgb.shape == (12, 16, 3)
    torch.testing.assert_close(part.depth_z, whole.depth_z[2::4, 2::4])


def test_keyframes_are_judged_before_they_are_trained_on(box):
    mapper, new = trained(box, steps=60), box.pose(0.9, -0.5, 0.3)
    before = mapper.render(box.camera, new, stride=16)
    rgb, depth_z, _ = box.view(new)
    quality = mapper.add_frame(box.frame(new)).prequential
    error = before.rgb.numpy() - rgb[8::16, 8::16]
    assert quality.psnr == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=0.05)
    assert quality.depth_error == pytest.approx(np.median(np.abs(before.depth_z.numpy() - depth_z[8::16, 8::16])))
    assert Mapper(box.config, None, 0, "cpu").add_frame(box.frame(new)).prequential is None


def test_frames_that_did_not_move_are_left_out(box, mapper):
    decision = mapper.add_frame(box.walk(10)[3])
    assert not decision.accepted and decision.slot is None and "moved" in decision.reason


def test_before_the_first_keyframe_everything_says_so(box):
    empty = Mapper(box.config, None, 0, "cpu")
    for action in (empty.step, lambda: empty.render(box.camera, unseen(box)), lambda: empty.surface(10)):
        with pytest.raises(RuntimeError, match="before the first keyframe"):
            action()


def test_an_automatic_volume_grows_with_what_is_seen(box):
    mapper = Mapper(box.config.override({"scene.center": None, "scene.radius": None}), None, 0, "cpu")
    frames = box.walk(10)
    mapper.add_frame(frames[0])
    first = mapper.bounds.radius
    for f in frames[1:]:
        mapper.add_frame(f)
        mapper.step()
    corner = np.sqrt(2**2 + 1.5**2 + 2**2)
    assert first < mapper.bounds.radius
    assert 0.8 * corner < mapper.bounds.radius < 1.6 * corner
    np.testing.assert_allclose(mapper.bounds.center, 0, atol=0.5)
    assert mapper.outside_share < 0.2


def test_a_given_volume_stays_and_what_is_outside_is_counted(box, caplog):
    mapper = Mapper(box.config.override({"scene.center": [20, 0, 0]}), None, 0, "cpu")
    mapper.add_frame(box.frame(box.pose(0.0)))
    assert mapper.outside_share == 1.0 and mapper.bounds.center == (20, 0, 0)
    assert "scene.radius" in caplog.text


def test_maps_far_from_the_origin_are_as_good(box):
    shift = np.array([400_000.0, 5_000_000.0, 50.0])  # UTM
    mapper = Mapper(box.config.override({"scene.center": shift.tolist()}), box.camera, 0, "cpu", seed=0)
    for f in box.walk(10):
        T = f.T_world_camera.copy()
        T[:3, 3] += shift
        mapper.add_frame(type(f)(0, f.image, f.depth_z, box.camera, T))
    for _ in range(150):
        mapper.step()
    T = unseen(box).copy()
    T[:3, 3] += shift
    depth_z = mapper.render(box.camera, T).depth_z.numpy()
    assert np.median(np.abs(depth_z - box.view(unseen(box))[1])) < 0.12
