"""What keyframes say about points: those in mid-air, which most keyframes see through, are not asked about."""

import torch

from lerf_ros.mapping.decoding import CropScale
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.observation import observed, scales_per_metre


def test_a_point_that_more_keyframes_see_through_than_see_has_no_scale(box):
    store = KeyframeStore(box.config, box.camera, 4, "cpu")
    for frame in box.walk(6):
        store.insert(frame)
    store.valid[:6] = True
    walls = torch.from_numpy(box.view(store.host_poses[0])[2][::12, ::16].reshape(-1, 3))
    camera = torch.from_numpy(store.host_poses[0][:3, 3])
    points = torch.cat([walls, 0.5 * (walls + camera)])
    crop_scale = CropScale("physical", store.layout, 3.5)
    slots = torch.arange(6)[:, None]
    arguments = points, torch.zeros(len(points), 3), torch.zeros(len(points), 3, 3), slots, slots >= 0
    found = observed(store, scales_per_metre(store, crop_scale), crop_scale, *arguments)
    is_asked = found.scale_min <= found.scale_max
    assert is_asked[: len(walls)].all() and not is_asked[len(walls) :].any()
