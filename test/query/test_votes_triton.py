"""The vote of the views, its Triton kernels and the torch reference, against a loop over places and keyframes (see
test/kernels.py)."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from scipy.special import expit
from torch.nn.functional import normalize

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframe_crops import KeyframeCrops
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.votes import Votes, judged_torch
from test.kernels import DEVICE, needs_kernels, starts_interpreter

CAMERA = Camera(fx=20.0, fy=22.0, cx=15.5, cy=11.0, width=32, height=24)
KEYFRAMES = 70  # more than vote at the same time
CONFIG = MapperConfig().override({"keyframe.capacity": 80, "pyramid.fractions": [0.2, 0.4, 0.8]})
TEXTS, PHRASES = 3, 2


@pytest.fixture(scope="module")
def store():
    """Keyframes that look about from near the origin and measure something 1 to 3 m away; a third of their levels is
    encoded, and of some keyframes none is."""
    store, rng = KeyframeStore(CONFIG, CAMERA, 8, "cpu"), np.random.default_rng(0)
    for number in range(KEYFRAMES):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_euler("yx", rng.uniform(-0.6, 0.6, 2)).as_matrix()
        T[:3, 3] = rng.uniform(-0.4, 0.4, 3)
        depth_z = np.float32(rng.uniform(1.0, 3.0)) * rng.uniform(0.98, 1.02, (24, 32)).astype(np.float32)
        depth_z[rng.random((24, 32)) < 0.1] = np.nan
        store.insert(Frame(number, rng.integers(0, 255, (24, 32, 3), np.uint8), depth_z, CAMERA, T))
    generator = torch.Generator().manual_seed(0)
    store.embeds.copy_(normalize(torch.randn(store.embeds.shape, generator=generator), dim=-1))
    store.valid[:KEYFRAMES] = torch.rand(KEYFRAMES, 3, generator=generator) < 0.35
    store.embeds[~store.valid.repeat_interleave(torch.tensor([level.count for level in store.layout.levels]), 1)] = 9.0
    return store


@pytest.fixture(scope="module")
def own(store):
    """The same keyframes where kernels run."""
    own = KeyframeStore(CONFIG, CAMERA, 8, DEVICE)
    own.restore(*store.state())
    return own


class RandomEncoder:
    calibration = SimpleNamespace(k=10.0, canonical_phrases=("object", "thing"))

    def __init__(self, device="cpu"):
        self.device = device

    def encode_texts(self, texts):
        embeds = normalize(torch.randn(len(texts), 8, generator=torch.Generator().manual_seed(1)), dim=-1)
        return embeds.half().float().to(self.device)  # GPUs compare halves


def places_in(store, count):
    """Where keyframes measured something or are not sure to; far away; and one that is not there."""
    generator = torch.Generator().manual_seed(2)
    slots = torch.randint(KEYFRAMES, (count,), generator=generator)
    uv = torch.stack([torch.randint(side, (count,), generator=generator) for side in (32, 24)], dim=-1)
    x_world, _ = store.lifted(slots, uv)
    x_world[::5] *= 1.1
    x_world[3], x_world[4] = torch.tensor([0.0, 0.0, -9.0]), torch.nan
    return torch.arange(count) % TEXTS, x_world


@pytest.fixture(scope="module")
def by_hand(store):
    """(numbers, x_world, shares (P,), how many keyframes voted (P,)), by a loop."""
    numbers, x_world = places_in(store, 30)
    text_embeds = RandomEncoder().encode_texts([""] * (TEXTS + PHRASES)).numpy()
    cosines = store.embeds[:KEYFRAMES].float().numpy() @ text_embeds.T
    relevancy = expit(10.0 * (cosines[..., :TEXTS] - cosines[..., TEXTS:].max(axis=-1, keepdims=True)))
    shares, voters = [], []
    for number, x in zip(numbers.tolist(), x_world.numpy(), strict=True):
        views = [best_of(store, slot, x, relevancy[slot, :, number]) for slot in range(KEYFRAMES)]
        votes = [view for view in views if view is not None]
        shares.append(np.mean(votes) if votes else np.nan)
        voters.append(len(votes))
    return numbers, x_world, np.array(shares), np.array(voters)


def best_of(store, slot, x_world, relevancy):
    """The vote of one keyframe; None: it has none."""
    T, camera = store.host_poses[slot], CAMERA
    x, y, z = T[:3, :3].T @ (x_world - T[:3, 3])
    if not z > 0:
        return None
    u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
    row, column = round(v), round(u)
    if not (0 <= row < camera.height and 0 <= column < camera.width):
        return None
    if abs(float(store.depth_z[slot, row, column]) - z) > 0.05 * z:
        return None
    found = []
    for level in (level for number, level in enumerate(store.layout.levels) if store.valid[slot, number]):
        grid = relevancy[level.offset : level.offset + level.count].reshape(level.rows, level.columns)
        place = [[(v - level.first_centre) / level.stride], [(u - level.first_centre) / level.stride]]
        found.append(map_coordinates(grid, place, order=1, mode="nearest")[0])
    return max(found, default=None)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 4


def test_the_reference_votes_as_a_loop_does(store, by_hand):
    numbers, x_world, shares, voters = by_hand
    votes = Votes(KeyframeCrops(store), RandomEncoder(), ["a", "b", "c"], QueryOptions())
    np.testing.assert_allclose(votes.shares(numbers, x_world), shares, atol=1e-5)
    assert (voters == 0).sum() > 2 and voters.max() > 10 and np.isnan(shares).any() and np.nanstd(shares) > 0.05


@needs_kernels
def test_the_kernels_vote_as_a_loop_does(own, by_hand, monkeypatch):
    monkeypatch.setattr("lerf_ros.query.votes.runs_kernels", lambda device: True)
    numbers, x_world, shares, _ = by_hand
    votes = Votes(KeyframeCrops(own), RandomEncoder(DEVICE), ["a", "b", "c"], QueryOptions())
    found = votes.shares(numbers, x_world).cpu()
    np.testing.assert_allclose(found, shares, atol=1e-5)
    again = votes.shares(numbers[:9], x_world[:9]).cpu()
    np.testing.assert_array_equal(found[:9], again)  # to the last bit


@needs_kernels
@pytest.mark.parametrize("texts", [1, 4])
def test_crops_are_judged_alike(own, texts):
    from lerf_ros.query.votes_triton import judged_triton

    text_embeds = RandomEncoder(DEVICE).encode_texts([""] * (texts + PHRASES))
    found = judged_triton(own, KeyframeCrops(own).cosines(text_embeds), texts, 10.0)
    expected = judged_torch(KeyframeCrops(own).similarity(text_embeds), texts, 10.0)
    torch.testing.assert_close(found, expected)
    assert found[0].shape == (texts, KEYFRAMES * own.layout.total)
    assert 0.2 < torch.isinf(expected[0]).float().mean() < 0.8 and (expected[1][torch.isinf(expected[0])] == 0).all()


@needs_kernels
def test_no_places(own):
    from lerf_ros.query.votes_triton import shares_triton

    nothing = torch.zeros(0, 3, device=DEVICE)
    assert shares_triton(own, torch.zeros(1, 9, device=DEVICE), nothing[:, 0].long(), nothing).shape == (0,)
