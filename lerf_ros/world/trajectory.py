"""A hand-held walk through a room that sees everything worth asking for from several sides."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import PchipInterpolator

from lerf_ros.geometry.camera import Camera
from lerf_ros.world.freespace import clearance, is_free
from lerf_ros.world.poses import look_at
from lerf_ros.world.render import Scene
from lerf_ros.world.truth import TruthObject

_LOOK = Camera(72.0, 72.0, 39.5, 29.5, 80, 60)  # what a stop shows: small, and a bit narrower than the real camera
EYE_HEIGHT = (1.25, 1.6)  # m
DISTANCE = (1.0, 2.0)  # m from what a stop looks at
FEWEST_STOPS, FEWEST_PIXELS = 8, 9
TURN_COST = 0.5  # m/rad: what turning costs against walking, when the stops are put in order


def hand_held(
    scene: Scene, size: np.ndarray, things: dict[int, TruthObject], frames: int, rng: np.random.Generator
) -> np.ndarray:
    """T_world_camera of every frame (frames, 4, 4): stops from which all objects are seen, joined by a smooth walk.

    Position, heading and pitch are C1 (monotone cubic, so that the walk never swings out between its stops) and the
    camera stays upright, but for the tremor of a hand (about 4 mm and 0.3 degrees).
    """
    stops, shown = _candidate_stops(scene, size, things, rng)
    tour = _tour(stops[_cover(shown, _efforts(stops))], things)
    legs = np.diagonal(_efforts(tour), offset=1)
    times = np.concatenate([[0], np.cumsum(legs + 0.35 * legs.mean())])  # a moment at every stop
    forward = tour[:, :3, 2]
    heading = np.unwrap(np.arctan2(forward[:, 1], forward[:, 0]))
    path = np.column_stack([tour[:, :3, 3], heading, np.arcsin(forward[:, 2])])
    path = PchipInterpolator(times, path)(np.linspace(0, times[-1], frames))
    eyes = path[:, :3] + _tremor(rng, frames, 0.004)
    heading, pitch, roll = (
        np.array([path[:, 3], path[:, 4], 0 * path[:, 4]]).T + _tremor(rng, frames, np.radians(0.3))
    ).T
    ahead = np.stack([np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)], axis=1)
    return np.stack([look_at(eye, eye + look, r) for eye, look, r in zip(eyes, ahead, roll)])


def _candidate_stops(scene, size, things, rng, per_thing: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Poses (C, 4, 4) that look at objects and how many pixels each shows of every object (C, O)."""
    objects = [t for t in things.values() if t.role == "object"]
    poses = []
    for thing in objects:
        found = 0
        for _ in range(60):
            distance, azimuth = rng.uniform(*DISTANCE), rng.uniform(0, 2 * np.pi)
            height = rng.uniform(*EYE_HEIGHT)
            flat = np.sqrt(max(distance**2 - (height - thing.box.centre[2]) ** 2, 0.8**2))
            eye = np.array([*(thing.box.centre[:2] + flat * np.array([np.cos(azimuth), np.sin(azimuth)])), height])
            if not is_free(eye, size, things, margin=0.2):
                continue
            pose = look_at(eye, thing.box.centre + rng.normal(0, 0.08, 3))
            if clearance(scene, pose) > 0.3:
                poses.append(pose)
                found += 1
                if found == per_thing:
                    break
    if not poses:
        raise RuntimeError("nothing in this room can be looked at")
    shown = np.stack([np.bincount(scene.masks(_LOOK, p)[1].ravel() + 1, minlength=max(things) + 2)[1:] for p in poses])
    return np.stack(poses), shown[:, [t.instance_id for t in objects]]


def _cover(shown: np.ndarray, efforts: np.ndarray) -> np.ndarray:
    """Greedy choice of stops (indices) until every object is seen well from one of them, if it can be.

    shown (C, O): pixels of every object; efforts (C, C): between stops, so that stops near chosen ones are preferred.
    """
    well = shown >= np.maximum(0.35 * shown.max(axis=0), FEWEST_PIXELS)
    missing = well.any(axis=0)
    chosen: list[int] = []
    while (missing.any() or len(chosen) < FEWEST_STOPS) and len(chosen) < len(shown):
        gain = (well & missing).sum(axis=1) + 0.01 * well.sum(axis=1)
        if chosen:
            gain /= 1 + efforts[:, chosen].min(axis=1)
            gain[chosen] = -1
        chosen.append(int(np.argmax(gain)))
        missing &= ~well[chosen[-1]]
    return np.array(chosen)


def _efforts(stops: np.ndarray) -> np.ndarray:
    """Effort (m) from every stop to every other (C, C): way plus turning."""
    way = np.linalg.norm(stops[:, None, :3, 3] - stops[None, :, :3, 3], axis=-1)
    cosine = (np.einsum("aij,bij->ab", stops[:, :3, :3], stops[:, :3, :3]) - 1) / 2
    return way + TURN_COST * np.arccos(np.clip(cosine, -1, 1)) + 1e-3


def _tour(stops: np.ndarray, things: dict[int, TruthObject]) -> np.ndarray:
    """The stops in an order with little effort: nearest neighbour, then 2-opt; ways through tall things cost extra."""
    tall = [
        t.box for t in things.values() if t.role != "structure" and t.box.corners()[:, 2].max() > EYE_HEIGHT[0] - 0.15
    ]
    n = len(stops)
    cost = _efforts(stops)
    for i in range(n):
        for j in range(i):
            line = np.linspace(stops[i][:3, 3], stops[j][:3, 3], 12)
            if any(box.contains(line, 0.2).any() for box in tall):
                cost[i, j] = cost[j, i] = cost[i, j] + 20
    order = [0]
    while len(order) < n:
        left = [k for k in range(n) if k not in order]
        order.append(min(left, key=lambda k: cost[order[-1], k]))
    improved = True
    while improved:
        improved = False
        for i in range(n - 1):
            for j in range(i + 1, n):
                before = (cost[order[i - 1], order[i]] if i else 0) + (cost[order[j], order[j + 1]] if j + 1 < n else 0)
                after = (cost[order[i - 1], order[j]] if i else 0) + (cost[order[i], order[j + 1]] if j + 1 < n else 0)
                if after < before - 1e-9:
                    order[i : j + 1] = order[i : j + 1][::-1]
                    improved = True
    return stops[order]


def _tremor(rng: np.random.Generator, frames: int, sigma: float) -> np.ndarray:
    """Smooth noise (frames, 3) of a few swings per 10 frames."""
    t = np.arange(frames)[:, None, None]
    rate, phase = rng.uniform(0.3, 1.6, (1, 4, 3)), rng.uniform(0, 2 * np.pi, (1, 4, 3))
    return sigma / np.sqrt(2) * np.sin(rate * t + phase).sum(axis=1)
