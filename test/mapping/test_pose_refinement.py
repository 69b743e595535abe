"""Poses that are refined in training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lerf_ros.mapping.corrections import Trajectory
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.pose_refinement import moved, twist_between
from lerf_ros.mapping.rendering import psnr

DETAIL = {  # the surface within a centimetre
    "radiance.grid.levels": 8,
    "radiance.grid.log2_table": 15,
    "radiance.grid.max_resolution": 256,
    "sampling.render_samples": 32,
    "sampling.proposal_resolution": 64,
}
REFINED = {"refinement.rate": 0.25}
STEPS = 600


def test_a_twist_leads_from_one_pose_to_the_other(box):
    given, twist = box.pose(0.7, 1.0, -2.0), np.array([0.1, -0.2, 0.3, 0.02, 0.03, -0.01])
    T = moved(given, twist)
    np.testing.assert_allclose(twist_between(given, T), twist, atol=1e-12)
    N = np.eye(4)
    N[:3, 3], N[:3, :3] = twist[:3], Rotation.from_rotvec(twist[3:]).as_matrix()
    np.testing.assert_allclose(T, given @ N, atol=1e-12)


def step(mapper):
    """A training step and what follows it, as in `OnlineMapper.advance`."""
    mapper.step()
    if mapper.refinement_turn is not None:
        mapper.refine(mapper.refinement_turn)


def mapped(box, noise, settings, steps, count=14):
    """A map whose keyframes err by noise times 2 cm and 1 degree (root mean square), and the true poses."""
    rng, frames = np.random.default_rng(0), box.walk(count)
    size = noise * np.array([0.02] * 3 + [np.radians(1.0)] * 3) / np.sqrt(3)
    mapper = Mapper(box.config.override({**DETAIL, **settings}), box.camera, 0, "cpu", seed=0)
    for frame in frames:
        wrong = moved(frame.T_world_camera, size * rng.standard_normal(6))
        assert mapper.add_frame(replace(frame, T_world_camera=wrong)).accepted
    for _ in range(steps):
        step(mapper)
    return mapper, np.stack([frame.T_world_camera for frame in frames])


def pose_errors(poses, truth):
    """m and rad, means, after the rigid motion of all that fits best: it moves the map, too, and cannot be seen."""
    R = Rotation.from_matrix(truth[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1)).mean().as_matrix()
    x = poses[:, :3, 3] @ R.T
    x += (truth[:, :3, 3] - x).mean(axis=0)
    turns = Rotation.from_matrix((R @ poses[:, :3, :3]).transpose(0, 2, 1) @ truth[:, :3, :3])
    return np.linalg.norm(x - truth[:, :3, 3], axis=1).mean(), turns.magnitude().mean()


def held_out(box, mapper):
    """PSNR, dB, and error of depth, m, means over views from places where no keyframe was."""
    quality = []
    for yaw in np.linspace(0.2, 6.4, 9):
        T = box.pose(yaw, 0.2 * np.cos(yaw), 0.1)
        rendering, (rgb, depth_z, _) = mapper.render(box.camera, T), box.view(T)
        quality.append((psnr(rendering.rgb.numpy(), rgb), np.abs(rendering.depth_z.numpy() - depth_z).mean()))
    return np.mean(quality, axis=0)


def test_wrong_poses_come_right_and_views_with_them(box):
    (left, truth), (refined, _) = mapped(box, 1.0, {}, STEPS), mapped(box, 1.0, REFINED, STEPS)
    before, after = pose_errors(left.store.host_poses, truth), pose_errors(refined.store.host_poses, truth)
    views, better = held_out(box, left), held_out(box, refined)
    print(f"mm {1000 * before[0]:.1f} -> {1000 * after[0]:.1f}, rad {before[1]:.4f} -> {after[1]:.4f}")
    print(f"held out: dB {views[0]:.2f} -> {better[0]:.2f}, mm {1000 * views[1]:.1f} -> {1000 * better[1]:.1f}")
    np.testing.assert_array_equal(left.store.host_poses, left.store.given_poses)  # off unless asked for
    np.testing.assert_array_equal(left.store.given_poses, refined.store.given_poses)
    assert after[0] < 0.75 * before[0] and after[1] < 0.75 * before[1]
    assert better[0] > views[0] + 0.4
    assert better[1] < 1.1 * views[1]  # here it is the grid that limits depth, not the poses: no gain is claimed


def test_true_poses_stay(box):
    mapper, truth = mapped(box, 0.0, REFINED, STEPS)
    metres, radians = pose_errors(mapper.store.host_poses, truth)
    print(f"{1000 * metres:.1f} mm, {np.degrees(radians):.2f} degrees")
    assert metres < 0.006 and np.degrees(radians) < 0.2
    assert not np.array_equal(mapper.store.host_poses, truth)  # it was on


def test_what_is_derived_from_poses_follows_and_the_given_ones_are_kept(box, tmp_path):
    settings = {**REFINED, "refinement.start": 1, "refinement.every": 2, "refinement.translation": 0.5}
    mapper, _ = mapped(box, 0.0, settings, 0, count=4)
    store = mapper.store
    given, moved_slots, versions = store.host_poses.copy(), [], []
    for _ in range(6):
        poses = store.host_poses.copy()
        step(mapper)
        moved_slots += np.flatnonzero((store.host_poses != poses).any(axis=(1, 2))).tolist()
        versions.append(mapper.keyframes_version)
    assert moved_slots == [0, 1, 2] and np.diff(versions).tolist() == [0, 1, 0, 1, 0]
    np.testing.assert_array_equal(store.given_poses, given)
    np.testing.assert_array_equal(store.poses[:4].numpy(), store.host_poses)
    assert store.steps_since_news == 6  # nothing has to be learnt anew

    mapper.save(tmp_path / "map")
    loaded = Mapper(box.config, None, 0, "cpu")
    loaded.load(tmp_path / "map")
    np.testing.assert_array_equal(loaded.store.host_poses, store.host_poses)
    np.testing.assert_array_equal(loaded.store.given_poses, given)

    refined, stamps = store.host_poses.copy(), np.array(store.stamps_ns[:4])
    assert mapper.correct(Trajectory(stamps, given, 0.0, 0.0)).moved == 0  # it says nothing new
    np.testing.assert_array_equal(store.host_poses, refined)
    closed = given.copy()
    closed[1, 0, 3] += 0.2
    assert mapper.correct(Trajectory(stamps, closed, 0.0, 0.0)).moved == 1
    np.testing.assert_array_equal(store.host_poses[1], closed[1])
    np.testing.assert_array_equal(store.given_poses[1], closed[1])


@pytest.mark.parametrize("trust", [1e-6, 1e3])
def test_the_pull_holds_what_the_pixels_leave_open(box, trust):
    """Where no ray ends, nothing but the pose that a keyframe came with counts, however little that is trusted."""
    settings = {**REFINED, "refinement.translation": trust, "refinement.rotation": trust, "refinement.start": 1}
    mapper = Mapper(box.config.override({**settings, "refinement.every": 1}), box.camera, 0, "cpu", seed=0)
    frame = box.frame(box.pose(0.0), depth=False)
    mapper.add_frame(replace(frame, image=np.zeros_like(frame.image)))
    with torch.no_grad():
        for parameter in mapper.fields.radiance.density_network.parameters():
            parameter.zero_()
        mapper.fields.radiance.density_network[-1].bias[0] = -20.0  # no ray ends
    twist = np.array([0.01, 0.02, -0.01, 0.01, 0.0, 0.02])
    given = mapper.store.given_poses[0].copy()
    mapper.store.refine(0, moved(given, twist))
    pose = mapper._refinement.refined(0)
    np.testing.assert_allclose(twist_between(given, pose), (1 - REFINED["refinement.rate"]) * twist, atol=1e-5)
