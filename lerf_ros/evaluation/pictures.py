"""Pictures of answers: relevancy over a camera view, and a map seen from above with every target named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lerf_ros.geometry.camera import Camera, project
from lerf_ros.query.targets import Target

Image = NDArray[np.uint8]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_RIGHT, _WRONG, _PLAIN = (70, 200, 90), (235, 70, 60), (255, 190, 40)  # RGB


def relevancy_overlay(image: Image, relevancy: NDArray[np.float32]) -> Image:
    """Paints relevancy (h, w) in [0, 1] over an RGB image (H, W, 3); what is no more relevant than a canonical phrase
    (0.5 or less) is left as it is, greyed."""
    enlarged = cv2.resize(relevancy.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    strength = np.clip(2.0 * enlarged - 1.0, 0.0, 1.0)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * strength).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    alpha = (0.8 * np.sqrt(strength))[..., None]
    return ((1.0 - alpha) * (0.4 * image + 0.6 * grey) + alpha * colours).astype(np.uint8)


def draw_target(
    image: Image, target: Target, camera: Camera, T_world_camera: NDArray[np.float64], colour: tuple[int, int, int]
) -> None:
    """Draws a target's oriented box, its centre and its x axis (the approach) into an RGB image, in place."""
    axes = Rotation.from_quat(target.quaternion_xyzw).as_matrix()
    signs = np.array([[i, j, k] for i in (-0.5, 0.5) for j in (-0.5, 0.5) for k in (-0.5, 0.5)])
    corners = (signs * np.maximum(target.size, 0.02)) @ axes.T + target.position
    edges = [(a, b) for a in range(8) for b in range(a) if np.abs(signs[a] - signs[b]).sum() == 1.0]
    tip = target.position + 0.15 * axes[:, 0]
    uv, depth_z = _pixels(np.vstack([corners, target.position, tip]), camera, T_world_camera)
    lines = [*edges, (8, 9)]
    for a, b in lines:
        if depth_z[a] > 0.05 and depth_z[b] > 0.05:
            cv2.line(image, uv[a], uv[b], colour, 2, cv2.LINE_AA)
    if depth_z[8] > 0.05:
        cv2.drawMarker(image, uv[8], colour, cv2.MARKER_CROSS, 18, 2, cv2.LINE_AA)


def caption(image: Image, text: str) -> Image:
    """The image with a line of text under it."""
    bar = np.full((30, image.shape[1], 3), 24, np.uint8)
    cv2.putText(bar, text, (8, 21), _FONT, 0.55, (240, 240, 240), 1, cv2.LINE_AA)
    return np.vstack([image, bar])


def best_view(
    position: NDArray[np.float64], camera: Camera, poses: NDArray[np.float64], depth_z: NDArray[np.float32]
) -> int | None:
    """The keyframe that shows a point best: central, not too far, and nothing measured more than 10 cm before it.

    Args:
        position: (3,) m, map frame.
        poses: (K, 4, 4) T_world_camera.
        depth_z: (K, H, W) m, NaN where not measured.
    Returns:
        Index of the keyframe; None when no keyframe shows the point.
    """
    best, best_cost = None, np.inf
    for index, T_world_camera in enumerate(poses):
        x_camera = np.linalg.inv(T_world_camera) @ np.append(position, 1.0)
        if x_camera[2] < 0.3:
            continue
        u = camera.fx * x_camera[0] / x_camera[2] + camera.cx
        v = camera.fy * x_camera[1] / x_camera[2] + camera.cy
        if not (0.0 <= u <= camera.width - 1 and 0.0 <= v <= camera.height - 1):
            continue
        measured = depth_z[index, round(v), round(u)]
        if np.isfinite(measured) and measured < x_camera[2] - 0.1:
            continue
        off_centre = np.hypot((u - camera.cx) / camera.width, (v - camera.cy) / camera.height)
        cost = 8.0 * off_centre**2 + 0.5 * abs(np.log(x_camera[2] / 1.2))
        if cost < best_cost:
            best, best_cost = index, cost
    return best


@dataclass(frozen=True)
class Mark:
    """A named place on the map: `right` tells whether it is where it should be, None when nobody knows."""

    name: str
    position: NDArray[np.float64]
    right: bool | None = None


def top_down_map(points: NDArray[np.float64], colours: Image, marks: Sequence[Mark], path: Path) -> None:
    """Writes coloured points (N, 3) m, (N, 3) uint8 RGB as seen from above, with marks on them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    order = np.argsort(points[:, 2])  # the highest is drawn last
    low, high = np.percentile(points[:, :2], [0.5, 99.5], axis=0)
    figure, axis = plt.subplots(figsize=(9, 9 * float(np.clip((high - low)[1] / (high - low)[0], 0.5, 1.5))), dpi=110)
    axis.scatter(points[order, 0], points[order, 1], c=colours[order] / 255.0, s=1.5, linewidths=0)
    for mark, label_xy in zip(marks, _spread_labels(marks, low, high), strict=True):
        colour = tuple(channel / 255 for channel in {True: _RIGHT, False: _WRONG, None: _PLAIN}[mark.right])
        axis.plot(*mark.position[:2], marker="o", markersize=7, color=colour, markeredgecolor="black")
        axis.annotate(
            mark.name,
            (float(mark.position[0]), float(mark.position[1])),
            xytext=(float(label_xy[0]), float(label_xy[1])),
            fontsize=9,
            ha="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "alpha": 0.9},
            arrowprops={"arrowstyle": "-", "color": colour},
        )
    margin = 0.25
    axis.set_xlim(low[0] - margin, high[0] + margin)
    axis.set_ylim(low[1] - margin, high[1] + margin)
    axis.set_aspect("equal")
    axis.set_xlabel("x [m]")
    axis.set_ylabel("y [m]")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def outcome_colour(right: bool | None) -> tuple[int, int, int]:
    """RGB: green for right, red for wrong, amber where nobody knows."""
    return {True: _RIGHT, False: _WRONG, None: _PLAIN}[right]


def _spread_labels(
    marks: Sequence[Mark], low: NDArray[np.float64], high: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Label positions a little above their marks, moved up until no two overlap."""
    width, height = 0.22 * (high - low)[0], 0.035 * (high - low)[1]
    placed: list[NDArray[np.float64]] = []
    for mark in marks:
        position = mark.position[:2] + np.array([0.0, 1.2 * height])
        while any(abs(position[0] - o[0]) < width and abs(position[1] - o[1]) < height for o in placed):
            position = position + np.array([0.0, 0.5 * height])
        placed.append(position)
    return placed


def _pixels(
    x_world: NDArray[np.float64], camera: Camera, T_world_camera: NDArray[np.float64]
) -> tuple[list[tuple[int, int]], NDArray[np.float64]]:
    x_camera = (x_world - T_world_camera[:3, 3]) @ T_world_camera[:3, :3]
    uv, depth_z = project(torch.from_numpy(x_camera), camera)
    whole = torch.nan_to_num(uv, nan=-1e4).clamp(-1e4, 1e4).round().to(torch.int64)
    return [(int(u), int(v)) for u, v in whole], depth_z.numpy()
