"""What the demo shows at the end: a table of answers, what is wrong with them, a picture of each, and held-out views of
a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.evaluation.heldout import evaluate_views, held_out_frames
from lerf_ros.evaluation.localization import Outcome, Score
from lerf_ros.evaluation.methods import rendered_relevancy
from lerf_ros.evaluation.pictures import (
    Mark,
    best_view,
    caption,
    draw_target,
    outcome_colour,
    relevancy_overlay,
    top_down_map,
)
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.units import METRES
from lerf_ros.mapping.corrections import Drift
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.rendering import Rendering
from lerf_ros.world.source import FrameSource

REQUIRED_ACCURACY = 0.8  # of the things that are there
RENDER_STRIDE = 4  # pixels; rendered pictures have a quarter of the camera's resolution
MAP_STRIDE = 6  # pixels between the points of the map seen from above
CEILING = 1.9  # m above the lowest point: what is higher hides the room from above


def outcome_table(outcomes: Sequence[Outcome], truth: bool, units: str = METRES) -> str:
    """One line a query; with truth also the distance to the true centre and a verdict.

    Args:
        units: of positions, see `geometry.units`.
    """
    header = f"{'text':<26} {'found':<6} {'relevancy':>9}  {f'position [{units}]':<22}"
    if truth:
        header += f" {'to its centre':>13}  inside its box?"
    lines = [header, "-" * len(header)]
    for outcome in outcomes:
        answer = outcome.answer
        position = "{:6.2f} {:6.2f} {:6.2f}".format(*answer.targets[0].position) if answer.found else "-"
        found = "yes" if answer.found else "no"
        line = f"{answer.text:<26} {found:<6} {answer.best_relevancy:>9.2f}  {position:<22}"
        if truth:
            error = f"{outcome.centre_error:.2f} m" if np.isfinite(outcome.centre_error) else "-"
            line += f" {error:>13}  {_verdict(outcome)}"
        lines.append(line.rstrip())
        if answer.unknown_words:
            lines.append(f"  the encoder does not know: {', '.join(answer.unknown_words)}")
    return "\n".join(lines)


def is_as_promised(outcomes: Sequence[Outcome]) -> bool:
    """Whether most of the things that are there were localized (`REQUIRED_ACCURACY`), and nothing that is not there was
    "found": a robot that drives to what does not exist is worse than one that has to ask again."""
    score = Score.of(outcomes)
    return score.localization_accuracy >= REQUIRED_ACCURACY and score.rejected == score.absent


def summary(outcomes: Sequence[Outcome]) -> str:
    """Every wrong answer by its text, whether they are more than the demo promises, and the counts as the last line."""
    lines = [f"'{outcome.answer.text}' {_mistake(outcome)}" for outcome in outcomes if not outcome.correct]
    if not is_as_promised(outcomes):
        share = f"{REQUIRED_ACCURACY:.0%} of what is there localized"
        lines.append(f'The demo has FAILED: it promises {share}, and "not found" for all that is not')
    return "\n".join([*lines, str(Score.of(outcomes))])


def write_pictures(online: OnlineMapper, outcomes: Sequence[Outcome], folder: Path, truth: bool) -> None:
    """Writes `query_NN_text.png` for each outcome (the camera view that shows its target best, with relevancy painted
    over it and the target marked) and, with depth, `map.png` (the room from above, every target named)."""
    store = online.mapper.store
    if store is None:
        raise ValueError("the map has no keyframe to draw")
    camera, poses = store.camera, store.host_poses
    images, depth_z = store.images[: len(store)].cpu().numpy(), store.depth_z[: len(store)].float().cpu().numpy()
    marks = []
    for number, outcome in enumerate(outcomes):
        answer = outcome.answer
        right = outcome.correct if truth else None
        target = answer.targets[0] if answer.found else None
        index = best_view(target.position, camera, poses, depth_z) if target else None
        index = len(poses) // 2 if index is None else index
        values = rendered_relevancy(online, camera, poses[index], [answer.text], RENDER_STRIDE)
        image = relevancy_overlay(images[index], values[0])
        if target is not None:
            draw_target(image, target, camera, poses[index], outcome_colour(right))
            marks.append(Mark(answer.text, target.position, right))
        text = f"'{answer.text}'  relevancy {answer.best_relevancy:.2f}  " + (
            _verdict(outcome) if truth else "found" if answer.found else "not found"
        )
        name = f"query_{number:02d}_{answer.text.replace(' ', '_')}.png"
        _write(folder / name, caption(image, text))
    points, colours = _point_cloud(images, depth_z, poses, camera)
    if len(points) == 0:  # a recording without depth
        return
    R_upright_world = upright(poses)
    points = points @ R_upright_world.T
    marks = [Mark(mark.name, R_upright_world @ mark.position, mark.right) for mark in marks]
    low = points[:, 2] < np.percentile(points[:, 2], 1) + CEILING
    top_down_map(points[low], colours[low], marks, folder / "map.png")


def report_heldout(online: OnlineMapper, source: FrameSource, folder: Path) -> str:
    """Renders the frames that were kept back, writes them beside the true ones, and says how well they agree."""
    training, held_out = held_out_frames(source)
    mapper = online.mapper
    assert mapper.store is not None
    drift = drift_of(mapper.store, training)

    def render(frame: Frame) -> Rendering:
        pose = drift.corrected(frame.T_world_camera, frame.stamp_ns)
        return mapper.render(frame.camera, pose, stride=RENDER_STRIDE)

    return str(evaluate_views(render, held_out, RENDER_STRIDE, folder / "heldout"))


def drift_of(store: KeyframeStore, frames: Sequence[Frame]) -> Drift:
    """Of a map's keyframes, at the stamps of the recording's frames that they are: what was published had stamps of its
    own."""
    poses = np.stack([frame.T_world_camera for frame in frames])
    origins = [frames[int(np.abs(poses - T).max(axis=(1, 2)).argmin())] for T in store.given_poses]
    return Drift(np.array([frame.stamp_ns for frame in origins]), store.given_poses, store.host_poses)


def upright(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation (3, 3) that turns the world axis nearest to the cameras' mean up direction into z: recordings need not
    have z up as a robot's map has. `poses` (K, 4, 4) T_world_camera."""
    up = -poses[:, :3, 1].mean(axis=0)
    axis = int(np.argmax(np.abs(up)))
    z, x = np.sign(up[axis]) * np.eye(3)[axis], np.eye(3)[(axis + 1) % 3]
    return np.stack([x, np.cross(z, x), z])


def _verdict(outcome: Outcome) -> str:
    if outcome.present:
        return "yes" if outcome.correct else "NO" if outcome.answer.found else "NOT FOUND"
    return "rightly not found" if outcome.correct else "WRONG: it is not in the room"


def _mistake(outcome: Outcome) -> str:
    if not outcome.present:
        return "was found, but is not in the room"
    return "was found at a wrong place" if outcome.answer.found else "is in the room, but was not found"


def _point_cloud(
    images: NDArray[np.uint8], depth_z: NDArray[np.float32], poses: NDArray[np.float64], camera: Camera
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Measured pixels of all keyframes as points (N, 3) in the map frame with colours (N, 3)."""
    v, u = np.mgrid[0 : camera.height : MAP_STRIDE, 0 : camera.width : MAP_STRIDE]
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=-1)
    points, colours = [], []
    for image, depth, T_world_camera in zip(images, depth_z, poses, strict=True):
        z = depth[::MAP_STRIDE, ::MAP_STRIDE].astype(np.float64)
        known = np.isfinite(z)
        x_camera = rays[known] * z[known][:, None]
        points.append(x_camera @ T_world_camera[:3, :3].T + T_world_camera[:3, 3])
        colours.append(image[::MAP_STRIDE, ::MAP_STRIDE][known])
    return np.concatenate(points), np.concatenate(colours)


def _write(path: Path, image: NDArray[np.uint8]) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}")
