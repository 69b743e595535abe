"""Keyframes of a generated room, points projected in closed form, and errors of poses."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from lerf_ros.keyframes.reprojection import Cameras
from lerf_ros.keyframes.tracks import Tracks
from lerf_ros.world.room import Room

INTRINSICS = np.array([500.0, 510.0, 319.5, 239.5])


def moved(T, translation, rotation_vector):
    """A pose (4, 4) moved along its own axes by m and rad."""
    N = np.eye(4)
    N[:3, 3], N[:3, :3] = translation, Rotation.from_rotvec(rotation_vector).as_matrix()
    return T @ N


def with_noise(poses, metres, degrees, seed=0):
    """Poses (N, 4, 4), each moved by itself, standard deviations per axis."""
    rng = np.random.default_rng(seed)
    return np.stack([moved(T, rng.normal(0, metres, 3), rng.normal(0, np.radians(degrees), 3)) for T in poses])


def pose_errors(poses, truth):
    """Distances (N,) m and angles (N,) degrees."""
    angles = Rotation.from_matrix(np.swapaxes(poses[:, :3, :3], 1, 2) @ truth[:, :3, :3]).magnitude()
    return np.linalg.norm((poses - truth)[:, :3, 3], axis=1), np.degrees(angles)


def rigidly_aligned(poses, truth):
    """Poses after the rigid transform that fits their positions and orientations to true ones."""
    centre, centre_true = poses[:, :3, 3].mean(axis=0), truth[:, :3, 3].mean(axis=0)
    M = (truth[:, :3, 3] - centre_true).T @ (poses[:, :3, 3] - centre)
    M += (truth[:, :3, :3] @ np.swapaxes(poses[:, :3, :3], 1, 2)).sum(axis=0)
    U, _, Vt = np.linalg.svd(M)
    T = np.eye(4)
    T[:3, :3] = U @ np.diag([1, 1, np.linalg.det(U @ Vt)]) @ Vt
    T[:3, 3] = centre_true - T[:3, :3] @ centre
    return T @ poses


@pytest.fixture(scope="session")
def stream():
    """Twelve frames of a room, 640x480: images, true poses (12, 4, 4) and intrinsics (4,)."""
    room = Room(12003, frames=80)
    frames = [room[i] for i in range(0, 24, 2)]
    camera = room.camera
    return SimpleNamespace(
        images=[frame.image for frame in frames],
        truth=np.stack([frame.T_world_camera for frame in frames]),
        intrinsics=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
    )


@pytest.fixture
def scene():
    """200 points, each seen by all of 6 cameras, with observations in closed form."""
    rng = np.random.default_rng(1)
    count, cameras = 200, 6
    x_world = rng.uniform([-1, -1, 1.5], [1, 1, 3], (count, 3))
    truth = with_noise(np.tile(np.eye(4), (cameras, 1, 1)), 0.15, 5.0, seed=2)
    x_camera = np.einsum("nji,pnj->pni", truth[:, :3, :3], x_world[:, None] - truth[:, :3, 3])
    uv = x_camera[..., :2] / x_camera[..., 2:] * INTRINSICS[:2] + INTRINSICS[2:]
    tracks = Tracks(
        np.arange(count + 1) * cameras, np.tile(np.arange(cameras), count), uv.reshape(-1, 2), np.ones(count * cameras)
    )
    return SimpleNamespace(
        tracks=tracks, cameras=Cameras(truth, np.tile(INTRINSICS, (cameras, 1)), 0.0), x_world=x_world
    )
