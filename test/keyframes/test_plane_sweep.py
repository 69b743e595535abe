"""Plane sweep and matching on surfaces that are rendered in closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lerf_ros.geometry.camera import project
from lerf_ros.keyframes.plane_sweep import (
    NO_EVIDENCE,
    NOISE_VARIANCE,
    PATCH,
    better_half,
    plane_projections,
    plane_sweep_torch,
    warped,
)
from lerf_ros.keyframes.stereo import match, plane_spacing
from test.keyframes.analytic import CAMERA, Texture, plane, pose, sphere, view

PLANES = 40
BORDER = 8  # px: nearer to the border of the image, not every source shows what the reference shows
SOURCES = [
    pose((0.2, 0.0, 0.0), (0.0, -0.03, 0.0)),
    pose((-0.2, 0.03, 0.02)),
    pose((0.02, 0.15, 0.0), (0.02, 0.0, 0.05)),
    pose((0.0, -0.15, -0.05)),
]
TEXTURE = Texture()
SURFACES = {
    "plane in front": [plane((0.0, 0.0, 1.0), 2.0)],
    "slanted plane": [plane((0.45, 0.15, 0.88), 1.9)],
    "sphere before a plane": [sphere((0.05, 0.0, 1.9), 0.55), plane((0.0, 0.0, 1.0), 2.4)],
}


def stereo(surfaces, texture=TEXTURE):
    """A reference at the origin, four sources around it, and the reference's true inverse depth."""
    reference, depth_z = view(surfaces, texture, pose())
    sources = np.stack([view(surfaces, texture, T)[0] for T in SOURCES])
    K = CAMERA.matrix()
    projections = plane_projections(K, K[None], torch.from_numpy(np.linalg.inv(np.stack(SOURCES))))
    return SimpleNamespace(
        reference=torch.from_numpy(reference).float(),
        sources=torch.from_numpy(sources).float(),
        projections=projections.float(),
        spacing=plane_spacing(projections, *reference.shape),
        q=torch.from_numpy(1 / depth_z).float(),
    )


@pytest.fixture(scope="module", params=list(SURFACES))
def scene(request):
    return stereo(SURFACES[request.param])


@pytest.fixture(scope="module")
def wall():
    return stereo(SURFACES["plane in front"])


def errors_in_planes(scene, sources):
    """Of pixels that all sources show, away from silhouettes: differences to the true inverse depth, in planes."""
    q = match(scene.reference, sources, scene.projections, scene.spacing, PLANES)
    jumps = (scene.q.diff(dim=0, append=scene.q[-1:]).abs() > 0.03) | (
        scene.q.diff(dim=1, append=scene.q[:, -1:]).abs() > 0.03
    )
    near_jump = torch.nn.functional.max_pool2d(jumps.float()[None], 2 * PATCH + 1, 1, PATCH)[0] > 0
    inner = torch.zeros_like(near_jump)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    return ((q - scene.q).abs() / scene.spacing)[inner & ~near_jump]


def test_surfaces_are_found_to_a_fraction_of_a_plane(scene):
    errors = errors_in_planes(scene, scene.sources)
    assert len(errors) > 2000
    assert errors.median() < 0.08 and (errors < 0.3).float().mean() > 0.99


def test_neither_gain_nor_offset_makes_a_difference(scene):
    errors = errors_in_planes(scene, 0.6 * scene.sources + 0.1)
    assert errors.median() < 0.08 and (errors < 0.3).float().mean() > 0.99
    q = scene.spacing * torch.arange(PLANES)
    cost = plane_sweep_torch(scene.reference, scene.sources, scene.projections, q)
    other = plane_sweep_torch(scene.reference, 0.6 * scene.sources + 0.1, scene.projections, q)
    difference = (cost - other)[BORDER:-BORDER, BORDER:-BORDER, :10].abs()  # there all windows lie in all sources
    assert difference.median() < 5e-3 and difference.quantile(0.95) < 0.1  # it is the noise of what varies little


def test_a_view_without_texture_has_no_depth(wall):
    grey = torch.full_like(wall.reference, 0.5)
    assert match(grey, wall.sources, wall.projections, wall.spacing, PLANES).isnan().all()


def test_a_gap_in_the_texture_is_filled():
    scene = stereo(SURFACES["plane in front"], lambda x: np.where(np.abs(x[..., 0]) < 0.15, 0.5, TEXTURE(x)))
    gap = slice(44, 52)  # px, of which no window shows texture
    assert scene.reference[:, gap.start - 2 : gap.stop + 2].std() < 1e-6
    q = match(scene.reference, scene.sources, scene.projections, scene.spacing, PLANES)
    assert ((q - 0.5).abs() < scene.spacing)[BORDER:-BORDER, gap].float().mean() > 0.97


def test_an_occluder_in_half_of_the_sources_does_no_harm(scene):
    occluded = scene.sources.clone()
    occluder = torch.from_numpy(view([plane((0.0, 0.0, 1.0), 1.0)], Texture(7), pose())[0]).float()
    occluded[:2, 20:52, 24:72] = occluder[20:52, 24:72]
    errors = errors_in_planes(scene, occluded)
    assert errors.median() < 0.08 and (errors < 0.3).float().mean() > 0.97


def test_an_occluder_in_half_of_the_sources_costs_nothing(wall):
    occluded = wall.sources.clone()
    occluded[:2] = 1 - occluded[:2]  # which correlates least of all
    cost = plane_sweep_torch(wall.reference, occluded, wall.projections, torch.tensor([0.5]))
    cost = cost[BORDER:-BORDER, BORDER:-BORDER]
    assert cost.median() < 0.01 and cost.max() < 0.25
    occluded[2] = 1 - occluded[2]
    cost = plane_sweep_torch(wall.reference, occluded, wall.projections, torch.tensor([0.5]))
    assert cost[BORDER:-BORDER, BORDER:-BORDER].median() > 0.9  # the better half now has one of them


def test_costs_are_one_minus_the_correlation_of_windows():
    rng = np.random.default_rng(1)
    reference, source = rng.random((2, 11, 14)).astype(np.float32)
    shift = 3  # the source shows a pixel three columns to the right, so that not all of them lie in it
    projection = torch.eye(3, 4)
    projection[0, 2] = shift
    cost = plane_sweep_torch(
        torch.from_numpy(reference), torch.from_numpy(source)[None], projection[None], torch.tensor([0.7])
    )[..., 0]
    half = PATCH // 2
    for row in range(11):
        for column in range(14):
            if column + shift > 13:
                assert cost[row, column] == NO_EVIDENCE
                continue
            rows = slice(max(row - half, 0), row + half + 1)
            columns = np.arange(max(column - half, 0), min(column + half + 1, 14))
            a = reference[rows, columns]
            # where the source shows nothing, the reference stands in for it
            b = np.where(columns + shift < 14, source[rows, np.minimum(columns + shift, 13)], a)
            covariance = np.mean((a - a.mean()) * (b - b.mean()))
            rho = covariance / np.sqrt((a.var() + NOISE_VARIANCE) * (b.var() + NOISE_VARIANCE))
            assert cost[row, column] == pytest.approx(1 - rho, abs=1e-4)


def test_windows_without_texture_are_no_evidence():
    grey = torch.full((9, 9), 0.4)
    cost = plane_sweep_torch(grey, torch.rand(1, 9, 9), torch.eye(3, 4)[None], torch.tensor([0.5]))
    torch.testing.assert_close(cost, torch.full((9, 9, 1), NO_EVIDENCE), atol=1e-3, rtol=0)


@pytest.mark.parametrize("views", [1, 2, 3, 4, 7])
def test_the_better_half_is_that_of_sorted_costs(views):
    rng = np.random.default_rng(views)
    costs = rng.random((views, 200)).astype(np.float32)
    costs[:, ::5] = np.round(costs[:, ::5])  # equal ones
    costs[rng.random(costs.shape) < 0.3] = np.nan
    costs[:, 7] = np.nan
    expected = []
    for column in costs.T:
        known = np.sort(column[np.isfinite(column)])
        expected.append(known[: (len(known) + 1) // 2].mean() if len(known) else NO_EVIDENCE)
    torch.testing.assert_close(better_half(torch.from_numpy(costs)), torch.tensor(np.float32(expected)))


def test_projections_say_where_other_views_show_a_point_and_how_far_away():
    rng = np.random.default_rng(3)
    other_camera = CAMERA.resized(64, 50)
    T_other_reference = np.linalg.inv(SOURCES[2]) @ pose()
    uv = rng.uniform(0, 70, (50, 2))
    depth_z = rng.uniform(0.8, 4.0, 50)
    x = np.stack([(uv[:, 0] - CAMERA.cx) / CAMERA.fx, (uv[:, 1] - CAMERA.cy) / CAMERA.fy, np.ones(50)]) * depth_z
    x_other = T_other_reference[:3, :3] @ x + T_other_reference[:3, 3:]
    uv_other, z_other = project(torch.from_numpy(x_other.T), other_camera)
    (H,) = plane_projections(CAMERA.matrix(), other_camera.matrix()[None], torch.from_numpy(T_other_reference)[None])
    h = H.numpy() @ np.stack([uv[:, 0], uv[:, 1], np.ones(50), 1 / depth_z])
    np.testing.assert_allclose(h[:2] / h[2], uv_other.T, atol=1e-9)
    np.testing.assert_allclose(1 / depth_z / h[2], 1 / z_other)


def test_warped_sources_show_what_the_reference_shows(wall):
    found = warped(wall.sources[0], wall.projections[0], torch.tensor([0.5]))[0]
    inside = ~found.isnan()
    assert 0.8 < inside.float().mean() < 1
    assert (found - wall.reference)[inside].abs().max() < 0.05  # bilinear, of waves of 5 px


def test_what_is_behind_a_source_is_not_seen():
    K, T = CAMERA.matrix(), pose((0.0, 0.0, 1.0))  # the source is a metre further on
    (projection,) = plane_projections(K, K[None], torch.from_numpy(np.linalg.inv(T))[None]).float()
    found = warped(torch.ones(72, 96), projection, torch.tensor([0.5, 1.25]))
    assert (found[0, 20:50, 30:60] == 1).all() and found[1].isnan().all()
