import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.config import VoxelConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.voxels import VoxelMap

CONFIG = VoxelConfig(size=0.31, capacity=2000, pixel_stride=8, scale_bins=4, scale_min=0.2, scale_max=1.6)
D = 5


def pyramids(layout, count):
    generator = torch.Generator().manual_seed(0)
    return [normalize(torch.randn(layout.total, D, generator=generator), dim=1) for _ in range(count)]


def test_voxels_hold_the_direct_average(box):
    layout = PyramidLayout.build(48, 64, (0.25, 0.5))
    frames, embeds = box.walk(10)[:4], pyramids(layout, 4)
    valid = torch.tensor([True, True])
    voxels = VoxelMap(CONFIG, layout, D)
    for frame, e in zip(frames, embeds, strict=True):
        voxels.add(frame, e, valid)

    sums = {}  # (voxel, bin) -> list of embeddings, and voxel -> points, pixel by pixel
    points = {}
    bins = np.geomspace(0.2, 1.6, 4)
    for frame, e in zip(frames, embeds, strict=True):
        _, depth_z, x = box.view(frame.T_world_camera)
        for v in range(4, 48, 8):
            for u in range(4, 64, 8):
                voxel = tuple(np.floor(x[v, u] / 0.31).astype(int))
                points.setdefault(voxel, []).append(x[v, u])
                for index, level in enumerate(layout.levels):
                    scale = level.crop_px * depth_z[v, u] / 40
                    bin_ = int(np.abs(np.log(scale / bins)).argmin())
                    one = torch.zeros(1, 2, dtype=torch.bool)
                    one[0, index] = True
                    args = (torch.zeros(1, dtype=torch.long), torch.tensor([[float(u), float(v)]]))
                    target = layout.interpolate(e[None], one, *args, torch.tensor([float(level.crop_px)]))
                    sums.setdefault((voxel, bin_), []).append(target[0].numpy())

    surface = voxels.surface()
    assert len(voxels) == len(points) == len(surface.points.x_world)
    expected = (0.31**2 / 12 * torch.eye(3)).expand(len(points), 3, 3)  # uniform over the voxel
    torch.testing.assert_close(surface.points.covariance, expected)
    texts = torch.eye(D)
    cosines = surface.similarity(torch.tensor(bins, dtype=torch.float32), texts).numpy()
    checked = 0
    for n, x in enumerate(surface.points.x_world.numpy()):
        near = [voxel for voxel in points if np.allclose(np.mean(points[voxel], axis=0), x, atol=1e-5)]
        for bin_ in range(4):
            if (near[0], bin_) in sums:
                mean = np.mean(sums[near[0], bin_], axis=0)
                np.testing.assert_allclose(cosines[bin_, n], mean / np.linalg.norm(mean), atol=2e-4)
                checked += 1
    assert checked == len(sums)


def test_between_bins_the_blend_is_normalised_and_empty_bins_take_the_nearest(box):
    layout = PyramidLayout.build(48, 64, (0.25, 0.5))
    voxels = VoxelMap(CONFIG, layout, D)
    voxels.add(box.walk(10)[0], pyramids(layout, 1)[0], torch.tensor([True, False]))
    surface = voxels.surface()
    cosines = surface.similarity(torch.tensor([0.05, 0.2, 0.33, 0.9, 5.0]), torch.eye(D))
    torch.testing.assert_close(cosines.norm(dim=-1), torch.ones(cosines.shape[:2]), atol=1e-4, rtol=0)
    assert (surface.points.scale_min <= surface.points.scale_max).all()
    assert torch.equal(cosines[0], cosines[1])


def test_views_count_frames(box):
    layout = PyramidLayout.build(48, 64, (0.5,))
    voxels = VoxelMap(CONFIG, layout, D)
    for _ in range(3):
        voxels.add(box.frame(box.pose(0.0)), pyramids(layout, 1)[0], torch.tensor([True]))
    points = voxels.surface().points
    assert (points.views == 3).all()


def test_a_full_map_keeps_what_it_has_and_counts_the_rest(box):
    layout = PyramidLayout.build(48, 64, (0.5,))
    voxels = VoxelMap(VoxelConfig(size=0.3, capacity=20, pixel_stride=4), layout, D)
    for frame in box.walk(10)[:2]:
        voxels.add(frame, pyramids(layout, 1)[0], torch.tensor([True]))
    assert len(voxels) == 20 and voxels.dropped > 0
    assert torch.isfinite(voxels.surface().points.x_world).all()


def test_depth_is_needed(box):
    layout = PyramidLayout.build(48, 64, (0.5,))
    frame = box.frame(box.pose(0.0), depth=False)
    with pytest.raises(ValueError, match="depth"):
        VoxelMap(CONFIG, layout, D).add(frame, pyramids(layout, 1)[0], torch.tensor([True]))
    assert isinstance(frame, Frame) and len(VoxelMap(CONFIG, layout, D).surface().points.x_world) == 0
