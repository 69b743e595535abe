"""Held-out views of a recording: how well the map shows what it was never trained on.

python -m lerf_ros.evaluation.heldout --data FOLDER --seconds 60 --preset base --device cuda
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lerf_ros.evaluation.pacing import Budget, drive
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.rendering import Rendering, psnr
from lerf_ros.world.source import FrameSource, is_held_out, open_source


@dataclass(frozen=True)
class HeldOutResult:
    """Means over the held-out views: psnr in dB; depth_error: median |depth_z - measured| in metres, NaN where no view
    has depth."""

    psnr: float
    depth_error: float

    def __str__(self) -> str:
        depth = "no depth to compare with"
        if math.isfinite(self.depth_error):
            depth = f"median depth error {self.depth_error * 100:.1f} cm"
        return f"held-out PSNR {self.psnr:.2f} dB, {depth}"


def evaluate_views(
    render: Callable[[Frame], Rendering], frames: Sequence[Frame], stride: int, pictures: Path | None = None
) -> HeldOutResult:
    """Compares rendered with true views.

    Args:
        render: gives the rendering of a frame's view on the pixel grid of `stride`; must not look at the frame itself.
        frames: the held-out frames.
        stride: every n-th pixel of the full image, per axis, is compared.
        pictures: folder for true view, rendered view, measured and rendered depth side by side; None: no pictures.
    """
    psnrs, depth_errors = [], []
    for number, frame in enumerate(frames):
        rendering = render(frame)
        truth = frame.image[stride // 2 :: stride, stride // 2 :: stride]
        rgb = rendering.rgb.cpu().numpy()
        psnrs.append(psnr(rgb, truth / 255))
        depth_z = rendering.depth_z.cpu().numpy()
        measured = np.full_like(depth_z, np.nan)
        if frame.depth_z is not None:
            measured = frame.depth_z[stride // 2 :: stride, stride // 2 :: stride]
            depth_errors.append(np.abs(depth_z - measured)[np.isfinite(measured)])
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            picture = side_by_side(truth, (rgb * 255).round().astype(np.uint8), measured, depth_z)
            cv2.imwrite(str(pictures / f"heldout_{number:03d}.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    depth_error = float(np.median(np.concatenate(depth_errors))) if depth_errors else float("nan")
    return HeldOutResult(float(np.mean(psnrs)), depth_error)


def rendered(mapper: Mapper, frame: Frame, stride: int) -> Rendering:
    """A frame's view, from where its camera is in the map (`Mapper.corrected`)."""
    pose = mapper.corrected(frame.T_world_camera, frame.stamp_ns)
    return mapper.render(frame.camera, pose, stride=stride)


def side_by_side(
    truth: NDArray[np.uint8], rgb: NDArray[np.uint8], measured: NDArray[np.floating], depth_z: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """True and rendered image above measured and rendered depth, the depths in one colour scale: (2H, 2W, 3) RGB."""
    both = np.concatenate([measured, depth_z], axis=1)
    known = np.isfinite(both)
    near, far = np.percentile(both[known], [1, 99]) if known.any() else (0.0, 1.0)
    level = np.clip((np.where(known, both, near) - near) / max(far - near, 1e-6), 0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.concatenate([np.concatenate([truth, rgb], axis=1), np.where(known[..., None], colours, 0)], axis=0)


def held_out_frames(source: FrameSource) -> tuple[list[Frame], list[Frame]]:
    """(training, held-out) frames of a recording."""
    training: list[Frame] = []
    held_out: list[Frame] = []
    for index in range(len(source)):
        (held_out if is_held_out(index) else training).append(source[index])
    return training, held_out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Held-out PSNR and depth error of a recording, colours and depth only")
    parser.add_argument("--data", required=True, help="recording (folder) or room:SEED")
    parser.add_argument("--seconds", type=float, default=60.0, help="training time")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="robot")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stride", type=int, default=4, help="compare every n-th pixel per axis")
    parser.add_argument("--out", type=Path, help="folder for side-by-side pictures")
    options = parser.parse_args(arguments)

    training, held_out = held_out_frames(open_source(options.data))
    mapper = Mapper(PRESETS[options.preset], training[0].camera, 0, options.device, options.seed)
    for _ in drive(training, Budget(seconds=options.seconds), mapper.add_frame, mapper.step):
        pass
    print(f"{mapper.steps} steps in {options.seconds:.0f} s, {mapper.keyframes} keyframes of {len(training)} frames")
    print(evaluate_views(lambda frame: rendered(mapper, frame, options.stride), held_out, options.stride, options.out))


if __name__ == "__main__":
    main()
