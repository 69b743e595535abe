"""Depth that several views confirm: closed forms, and generated rooms of which the truth is known."""

import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from lerf_ros.keyframes.plane_sweep import plane_projections
from lerf_ros.keyframes.stereo import (
    MATCHING_NOISE,
    WITNESSES,
    Confirmed,
    confirmed,
    enlarged,
    match,
    plane_spacing,
)
from lerf_ros.keyframes.view_selection import source_scores
from lerf_ros.world.room import Room
from test.keyframes.analytic import CAMERA, Texture, plane, pose, view

PRIOR_WEIGHT = 2.0  # observations that the matching noise counts for
SPACING = 0.05  # 1/m


def projections_between(T_world_from, T_world_to, camera=CAMERA):
    """(V, 3, 4) from one view to V others, or from V views to one."""
    K = camera.matrix()
    return plane_projections(K, K[None], torch.from_numpy(np.linalg.inv(T_world_to) @ T_world_from))


# -- planes -----------------------------------------------------------------------------------------------------------


def test_planes_are_a_pixel_apart_in_closed_form():
    beside = [pose((b, 0.0, 0.0)) for b in (0.05, 0.1, 0.4)]
    projections = projections_between(pose(), np.stack(beside))
    assert plane_spacing(projections, 72, 96) == pytest.approx(1 / (80 * 0.1))  # of the median baseline
    turned = [T @ pose((0.0, 0.0, 0.0), (0.0, 0.0, 0.7)) for T in beside]  # about the optical axis
    assert plane_spacing(projections_between(pose(), np.stack(turned)), 72, 96) == pytest.approx(1 / 8)
    ahead = projections_between(pose(), pose((0.0, 0.0, 0.2))[None])  # points move away from the centre of the image
    radius = np.hypot(71 / 4, 95 / 4)
    assert plane_spacing(ahead, 72, 96) == pytest.approx(1 / (0.2 * radius))
    assert plane_spacing(projections_between(pose(), pose()[None]), 72, 96) > 1e6


# -- confirmation -----------------------------------------------------------------------------------------------------


def test_views_that_agree_are_averaged_and_their_differences_are_the_variance():
    """Other views lie beside this one by whole pixels of disparity and differ by known inverse depths."""
    height, width, q0, noise = 6, 30, 0.5, MATCHING_NOISE * SPACING
    baselines = np.array([0.025, 0.05, 0.075, 0.1])  # 1 to 4 px at 2 m
    others = np.stack([pose((b, 0.0, 0.0)) for b in baselines])
    own = torch.full((height, width), q0)
    deltas = torch.tensor([0.5 * noise, -1.0 * noise, 3.9 * noise, 100 * noise])  # the last one disagrees
    theirs = torch.full((4, height, width), q0) + deltas[:, None, None]
    theirs[:3, 1], theirs[1:, 2] = torch.nan, torch.nan
    to_others, from_others = projections_between(pose(), others).float(), projections_between(others, pose()).float()
    found = confirmed(own, SPACING, theirs, torch.full((4,), SPACING), to_others, from_others)
    inner = slice(5, None)  # the first pixels lie beside the other images
    for row, agreeing in [(0, [0, 1, 2]), (5, [0, 1, 2]), (1, []), (2, [0])]:
        if len(agreeing) < WITNESSES:
            assert found.inverse_depth[row].isnan().all() and found.variance[row].isnan().all()
            continue
        d = deltas[agreeing]
        mean = q0 + float(d.sum()) / (len(d) + 1)
        variance = (PRIOR_WEIGHT * noise**2 + float(d.square().sum())) / (PRIOR_WEIGHT + len(d) - 2)
        np.testing.assert_allclose(found.inverse_depth[row, inner], mean, rtol=1e-5)
        np.testing.assert_allclose(found.variance[row, inner], variance, rtol=1e-3)
    assert found.inverse_depth[0, 0].isnan()  # outside all other images


@pytest.mark.parametrize(("factor", "agrees"), [(1.0, True), (3.0, False)])
def test_two_right_matches_differ_by_three_standard_deviations_at_most(factor, agrees):
    bound = 3 * MATCHING_NOISE * np.hypot(SPACING, 2 * SPACING)  # of the difference, where theirs is twice as coarse
    own, T = torch.full((4, 8), 0.5), np.stack([pose((0.0, 0.0, 0.0))] * 2)
    P = projections_between(pose(), T).float()
    for difference in (0.97 * bound * factor, -0.97 * bound * factor):
        theirs = torch.full((2, 4, 8), 0.5 + difference)
        found = confirmed(own, SPACING, theirs, torch.full((2,), 2 * SPACING), P, P)
        assert found.inverse_depth.isfinite().all() == agrees
    found = confirmed(own, SPACING, torch.full((2, 4, 8), 0.5 + 1.03 * bound), torch.full((2,), 2 * SPACING), P, P)
    assert found.inverse_depth.isnan().all()


def test_the_variance_never_falls_below_the_share_of_the_prior():
    own, P = torch.full((4, 8), 0.5), projections_between(pose(), np.stack([pose()] * 5)).float()
    found = confirmed(own, SPACING, own.expand(5, 4, 8), torch.full((5,), SPACING), P, P)
    noise = MATCHING_NOISE * SPACING
    np.testing.assert_allclose(found.variance, noise**2 * PRIOR_WEIGHT / (PRIOR_WEIGHT + 3), rtol=1e-3)
    np.testing.assert_allclose(found.inverse_depth, 0.5)


def test_views_from_elsewhere_confirm_the_true_surface():
    """A slanted plane from four poses that differ in position, distance and orientation."""
    surface, texture = [plane((0.3, 0.2, 0.93), 2.0)], Texture()
    poses = np.stack(
        [
            pose((0.2, 0.0, 0.3), (0.02, -0.05, 0.1)),
            pose((-0.2, 0.1, -0.3), (0.0, 0.05, -0.2)),
            pose((0.0, -0.2, 0.1), (0.05, 0.0, 0.0)),
        ]
    )
    truth = torch.from_numpy(1 / view(surface, texture, pose())[1]).float()
    theirs = torch.from_numpy(np.stack([1 / view(surface, texture, T)[1] for T in poses])).float()
    P = projections_between(pose(), poses).float(), projections_between(poses, pose()).float()
    found = confirmed(truth, 0.06, theirs, torch.full((3,), 0.06), *P)
    known = found.inverse_depth.isfinite()
    assert known[10:-10, 10:-10].float().mean() > 0.99
    assert ((found.inverse_depth - truth)[known].abs() < 0.006).all()  # theirs are of the nearest pixel
    assert (found.variance[known] < 4 * (MATCHING_NOISE * 0.06) ** 2).all()  # some are confirmed by one view only
    wrong = confirmed(truth * 1.2, 0.06, theirs, torch.full((3,), 0.06), *P)
    assert wrong.inverse_depth.isnan().float().mean() > 0.9


# -- enlargement ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(12, 16), (24, 32), (25, 37), (36, 48), (72, 40)])
def test_a_plane_is_reproduced_exactly(height, width):
    def q(u, v):  # in pixels of the small image
        return 0.4 + 0.011 * u - 0.007 * v

    small = torch.from_numpy(q(*np.meshgrid(np.arange(16), np.arange(12)))).float()
    u = (np.arange(width) + 0.5) * 16 / width - 0.5
    v = (np.arange(height) + 0.5) * 12 / height - 0.5
    expected = q(*np.meshgrid(u, v))
    found = enlarged(small, height, width).numpy()
    inner = np.ix_((v >= 0.6) & (v <= 10.4), (u >= 0.6) & (u <= 14.4))  # whose nearest pixel has neighbours
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-6)
    assert np.abs(found - expected).max() < 0.011  # at the border, the nearest pixel


@pytest.mark.parametrize("slope", [0.02, -0.02])
def test_nothing_is_interpolated_across_a_jump(slope):
    """Where surfaces slope towards the jump, and away from it."""
    u = torch.arange(16.0)[None].expand(12, 16)
    small = torch.where(u < 7, 0.3, 1.0) + slope * u
    found = enlarged(small, 36, 48)
    for large, part in [(slice(21), slice(7)), (slice(21, 48), slice(7, 16))]:
        assert found[:, large].max() <= small[:, part].max() + 0.007
        assert found[:, large].min() >= small[:, part].min() - 0.007
    across = enlarged(small.T.contiguous(), 48, 36)
    torch.testing.assert_close(across, found.T)


def test_pixels_that_are_not_known_stay_so_and_give_no_slope():
    small = 0.5 + 0.01 * torch.arange(8.0)[None].expand(6, 8).clone()
    small[2:4, 3] = torch.nan
    found = enlarged(small, 18, 24)
    assert found[6:12, 9:12].isnan().all() and found.isnan().sum() == 18
    torch.testing.assert_close(found[6:12, 6:9], torch.full((6, 3), 0.52))  # beside them
    torch.testing.assert_close(found[1, 6:9], 0.52 + torch.tensor([-1, 0, 1]) * 0.01 / 3)


# -- generated rooms --------------------------------------------------------------------------------------------------

SEEDS = (12001, 12002)
VIEWS, STRIDE = 12, 1
SOURCES, PLANES = 6, 64


@pytest.fixture(scope="session")
def rooms():
    return {seed: Room(seed, width=160, height=120, frames=80) for seed in SEEDS}


def grey_of(image):
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).float() / 255


@pytest.fixture(scope="session", params=SEEDS)
def walk(request, rooms):
    """Views of a room that are matched with those of the others that suit them best, and then confirmed."""
    room = rooms[request.param]
    frames = [room[i] for i in range(0, VIEWS * STRIDE, STRIDE)]
    greys = torch.stack([grey_of(frame.image) for frame in frames])
    poses = np.stack([frame.T_world_camera for frame in frames])
    truth = np.stack([room.truth_view(i).depth_z for i in range(0, VIEWS * STRIDE, STRIDE)])
    scores = source_scores(room.camera, poses, np.nanmedian(truth, axis=(1, 2)), poses)
    spacings, matched, results = [], [], []
    for own in range(VIEWS):
        sources = np.argsort(-scores[own])[:SOURCES]
        P = projections_between(poses[own], poses[sources], room.camera)
        spacings.append(plane_spacing(P, 120, 160))
        matched.append(match(greys[own], greys[sources], P.float(), spacings[own], PLANES))
    for own in range(VIEWS):
        others = [v for v in np.argsort(-scores[own])[:6] if scores[own, v] > 0.05]
        to = projections_between(poses[own], poses[others], room.camera).float()
        back = projections_between(poses[others], poses[own], room.camera).float()
        of_others = torch.stack([matched[v] for v in others]), torch.tensor([spacings[v] for v in others])
        results.append(confirmed(matched[own], spacings[own], *of_others, to, back))
    stacked = Confirmed(*(torch.stack(each).numpy() for each in zip(*results)))
    return SimpleNamespace(truth=truth, matched=torch.stack(matched).numpy(), found=stacked)


def test_depth_of_rooms_is_right_where_it_is_confirmed(walk):
    error = np.abs(1 / walk.found.inverse_depth - walk.truth)[np.isfinite(walk.found.inverse_depth)]
    before = np.abs(1 / np.maximum(np.nan_to_num(walk.matched), 0.01) - walk.truth)
    print(f"confirmed {error.size / walk.truth.size:.2f}, median error {np.median(error):.4f} m")
    assert error.size > 0.5 * walk.truth.size
    assert np.median(error) < 0.015 and (error > 0.05).mean() < 0.15
    assert (error > 0.05).mean() < 0.7 * (before > 0.05).mean()  # what is not confirmed is worse


def test_the_variance_is_calibrated(walk):
    """As the standard deviation of a normal distribution, of which 68 % lie within one and 99.7 % within three."""
    q, variance = walk.found
    known = np.isfinite(q)
    z = (np.abs(q - 1 / walk.truth) / np.sqrt(variance))[known]
    within = [(z < k).mean() for k in (1, 2, 3)]
    print("within 1, 2, 3 standard deviations:", np.round(within, 3))
    assert 0.5 < within[0] < 0.9 and within[2] > 0.9


# -- against OpenCV ---------------------------------------------------------------------------------------------------

BASELINE = 0.1  # m


@pytest.fixture(scope="session")
def rectified(rooms):
    """Pairs of views, the second one beside the first: camera, both images, disparity (H, W) px of the first one, and
    which of its pixels the second one shows."""
    pairs = []
    for room in rooms.values():
        for i in (5, 20, 40, 60):
            T_left = room.trajectory[i]
            left, right = (room.view(room.camera, T) for T in (T_left, T_left @ pose((BASELINE, 0.0, 0.0))))
            disparity = room.camera.fx * BASELINE / left.depth_z
            column = np.arange(room.camera.width) - disparity
            depth_there = np.take_along_axis(right.depth_z, column.round().astype(int).clip(0), axis=1)
            is_shown = (column >= 0) & (np.abs(depth_there - left.depth_z) < 0.05 * left.depth_z)
            pairs.append((room.camera, left.image, right.image, disparity, is_shown))
    return pairs


def sgbm_disparity(left, right):
    """Disparity (H, W) px of the left image by `cv2.StereoSGBM`; NaN: rejected as not unique or not left-right."""
    block = 5
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=32,
        blockSize=block,
        P1=8 * block**2,
        P2=32 * block**2,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (left, right)]
    padded = [cv2.copyMakeBorder(image, 0, 0, 32, 0, cv2.BORDER_REPLICATE) for image in grey]
    disparity = matcher.compute(*padded)[:, 32:].astype(np.float64) / 16
    return np.where(disparity > 0, disparity, np.nan)


@pytest.mark.parametrize(("planes_per_pixel", "worse_median", "worse_share"), [(1, 1.25, 1.2), (3, 1.0, 1.0)])
def test_one_pair_against_opencv(rectified, planes_per_pixel, worse_median, worse_share):
    """On the pixels that StereoSGBM keeps and both views show; with one source, so without confirmation.

    Where planes lie a pixel apart, the parabola between them is less exact than OpenCV's: at 160 x 120, 5 cm are a
    third of a pixel. With three planes a pixel, matching is better.
    """
    ours, theirs, depths, seconds = [], [], [], [0.0, 0.0]
    for camera, left, right, disparity, is_shown in rectified:
        started = time.process_time()
        found = sgbm_disparity(left, right)
        seconds[1] += time.process_time() - started
        started = time.process_time()
        P = projections_between(pose(), pose((BASELINE, 0.0, 0.0))[None], camera)
        spacing = plane_spacing(P, *disparity.shape) / planes_per_pixel
        q = match(grey_of(left), grey_of(right)[None], P.float(), spacing, 32 * planes_per_pixel).numpy()
        seconds[0] += time.process_time() - started
        kept = np.isfinite(found) & is_shown
        f_b = camera.fx * BASELINE
        depths.append(f_b / disparity[kept])
        ours.append(1 / np.maximum(np.nan_to_num(q[kept]), 0.01))
        theirs.append(f_b / found[kept])
    truth, own, other = (np.concatenate(each) for each in (depths, ours, theirs))
    own, other = np.abs(own - truth), np.abs(other - truth)
    coverage = truth.size / sum(disparity.size for *_, disparity, _ in rectified)
    print(f"coverage {coverage:.2f}; median {np.median(own):.4f} against {np.median(other):.4f} m")
    print(f"beyond 5 cm {(own > 0.05).mean():.3f} against {(other > 0.05).mean():.3f}")
    print(f"CPU seconds of a pair {seconds[0] / len(rectified):.3f} against {seconds[1] / len(rectified):.4f}")
    assert coverage > 0.7
    assert np.median(own) <= worse_median * np.median(other)
    assert (own > 0.05).mean() <= worse_share * (other > 0.05).mean()
