"""The kernel that draws the rays of a step against its reference with the same random numbers (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.rays import drawn_batch, rays_of_slots_torch
from test.kernels import DEVICE, needs_kernels, starts_interpreter

CAMERA = Camera(fx=40.0, fy=41.0, cx=31.5, cy=23.5, width=64, height=48)
BOUNDS = SceneBounds((450_000.25, 5_400_000.5, 3.0), 3.5)  # a map in UTM
RAYS = 150


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 7


def store_of(keyframes, language, recent):
    """A store with random contents in its first slots; a third of the depth is not measured."""
    config = MapperConfig().override({"keyframe.capacity": 8})
    store = KeyframeStore(config, CAMERA, 4, DEVICE)
    generator = torch.Generator().manual_seed(keyframes)
    store.images.copy_(torch.randint(0, 256, store.images.shape, generator=generator, dtype=torch.uint8))
    depth_z = 1 + 3 * torch.rand(store.depth_z.shape, generator=generator)
    store.depth_z.copy_(torch.where(depth_z < 2, torch.nan, depth_z))
    store.depth_sigma.copy_(torch.where(depth_z > 3, 0.1 * torch.rand(depth_z.shape, generator=generator), 0.0))
    turned = torch.linalg.qr(torch.randn(8, 3, 3, generator=generator, dtype=torch.float64)).Q
    store.poses[:, :3, :3].copy_(turned)
    offset = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    store.poses[:, :3, 3].copy_(torch.tensor(BOUNDS.center, dtype=torch.float64) + offset)
    store.intrinsics.copy_(torch.tensor([40.0, 41.0, 31.5, 23.5]).expand(8, 4) + torch.arange(8)[:, None])
    store.count.fill_(keyframes)
    store.language[: len(language)] = torch.tensor(language, dtype=torch.int64)
    store.recent[: len(recent)] = torch.tensor(recent, dtype=torch.int64)
    store.language_count.fill_(len(language))
    store.recent_count.fill_(len(recent))
    return store


@needs_kernels
@pytest.mark.parametrize(
    ("keyframes", "language", "recent", "guided"),
    [(8, [3, 1], [7, 2], RAYS), (8, [], [], 100), (1, [0], [], 0), (5, [4], [1, 2, 3], 77)],
)
def test_agrees_with_the_reference(keyframes, language, recent, guided):
    from lerf_ros.mapping.rays_triton import draw_triton

    store = store_of(keyframes, language, recent)
    chance = torch.rand(5, RAYS, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = draw_triton(store, chance, 60, 40, guided, BOUNDS.center_on(DEVICE), BOUNDS.radius)
    batch = drawn_batch(store, chance, 60, 40, guided, BOUNDS)
    expected = (
        batch.rays.origins, batch.rays.directions, batch.z_per_t, batch.slots, batch.uv, batch.rgb, batch.t_measured,
        batch.t_sigma,
    )  # fmt: skip
    assert batch.t_measured.isnan().any() and batch.t_measured.isfinite().any()
    assert (batch.t_sigma == 0).any() and (batch.t_sigma > 0).any()
    for value, other in zip(found, expected, strict=True):
        assert value.shape == other.shape and value.dtype == other.dtype
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, equal_nan=True)


@needs_kernels
def test_rays_of_given_pixels_agree():
    from lerf_ros.mapping.rays_triton import rays_triton

    store, generator = store_of(8, [], []), torch.Generator().manual_seed(2)
    slots = torch.randint(8, (RAYS,), generator=generator).to(DEVICE)
    uv = (64 * torch.rand(RAYS, 2, generator=generator)).to(DEVICE)
    found = rays_triton(store, slots, uv, BOUNDS.center_on(DEVICE), BOUNDS.radius)
    rays, z_per_t = rays_of_slots_torch(store, slots, uv, BOUNDS)
    for value, other in zip(found, (rays.origins, rays.directions, z_per_t), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6)
    assert len(rays_triton(store, slots[:0], uv[:0], BOUNDS.center_on(DEVICE), BOUNDS.radius)[0]) == 0


@needs_kernels
def test_the_last_chance_below_one_stays_inside():
    from lerf_ros.mapping.rays_triton import draw_triton

    store = store_of(8, [7], [7])
    chance = torch.full((5, RAYS), 1 - 2**-24, device=DEVICE)
    *_, slots, uv, _, _, _ = draw_triton(store, chance, 60, 40, RAYS, BOUNDS.center_on(DEVICE), BOUNDS.radius)
    assert (slots == 7).all() and (uv == torch.tensor([63.0, 47.0], device=DEVICE)).all()


def test_standard_deviations_of_depth_are_along_the_ray():
    store = store_of(8, [], [])
    batch = drawn_batch(store, torch.rand(5, RAYS, generator=torch.Generator().manual_seed(3)), 0, 40, 0, BOUNDS)
    u, v = batch.uv.long().unbind(dim=-1)
    ray = torch.stack([batch.uv[:, 0], batch.uv[:, 1], torch.ones(RAYS)])
    fx, fy, cx, cy = store.intrinsics[batch.slots].unbind(dim=-1)
    t_per_z = torch.stack([(ray[0] - cx) / fx, (ray[1] - cy) / fy, ray[2]]).norm(dim=0)
    depth_sigma = store.depth_sigma[batch.slots, v, u].float()
    torch.testing.assert_close(batch.t_sigma, depth_sigma * t_per_z)
    assert (depth_sigma > 0).sum() > 20
