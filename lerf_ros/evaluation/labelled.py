"""Localisation in recorded scenes that somebody labelled, as LERF's paper measures it (section 4.3).

python -m lerf_ros.evaluation.labelled --data SCENE --labels FOLDER --preset base --device cuda --seconds 60 \\
    --encoder ViT-B-16 --pretrained laion2b_s34b_b88k

SCENE is a nerfstudio folder and FOLDER holds its labels (both formats of `world/annotations.py`); or both are parents
of such folders, which are then paired by name. Every text is asked in every view where it is marked: relevancy is
rendered at the one scale with the highest peak, and the answer is right when its most relevant pixel lies in a box.

LERF's labels are in novel views: all frames train. LangSplat's are in frames of the recording; those are kept out of
training here, which is stricter than LangSplat's own protocol (`--train-on-labelled` follows it: there every frame
trains). The most relevant pixel is LERF's, without the 30 pixel mean filter that LangSplat's evaluation puts before it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lerf_ros.evaluation.command import name_and_value
from lerf_ros.evaluation.methods import FieldMethod
from lerf_ros.evaluation.pacing import Budget, drive
from lerf_ros.features.encoder import Encoder, load_encoder
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.rendering import psnr
from lerf_ros.world.annotations import LabelledView, has_labels, read_labels
from lerf_ros.world.nerfstudio import TRANSFORMS, NerfstudioFolder

PUBLISHED = 0.803  # LERF's overall localisation accuracy: arXiv 2303.09553, section 4.3, on 72 objects in 5 scenes
SUSPICIOUS_PSNR = 14.0  # dB; below it a rendering hardly resembles the labelled picture: another place, or no map yet

RelevancyView = Callable[[Camera, Pose, Sequence[str], int], "NDArray[np.float32] | None"]


@dataclass(frozen=True)
class LabelOutcome:
    """One text in one view: uv is the most relevant pixel, relevancy its value."""

    scene: str
    view: str
    text: str
    uv: tuple[int, int]
    relevancy: float
    right: bool


@dataclass(frozen=True)
class ViewQuality:
    """How well the map renders a labelled picture: dB."""

    scene: str
    view: str
    psnr: float


def judge_view(scene: str, view: LabelledView, relevancy_view: RelevancyView, stride: int = 1) -> list[LabelOutcome]:
    """Asks all texts of a view.

    Args:
        relevancy_view: (camera, T_world_camera, texts, stride) -> relevancy (T, h, w) of every stride-th pixel from
            stride // 2, as `Method.relevancy_view`.
    Raises:
        ValueError: the method has no views.
    """
    texts = list(view.boxes)
    values = relevancy_view(view.camera, view.T_world_camera, texts, stride)
    if values is None:
        raise ValueError("this method shows no views, so that no pixel can be judged")
    outcomes = []
    for text, picture in zip(texts, values, strict=True):
        row, column = np.unravel_index(int(picture.argmax()), picture.shape)
        uv = stride // 2 + stride * int(column), stride // 2 + stride * int(row)
        outcomes.append(LabelOutcome(scene, view.name, text, uv, float(picture.max()), view.is_right(text, uv)))
    return outcomes


def training_frames(source: NerfstudioFolder, views: Sequence[LabelledView], train_on_labelled: bool) -> list[int]:
    """Indices of the frames that may train: all but the labelled ones."""
    labelled = set() if train_on_labelled else {view.frame for view in views}
    return [i for i in range(len(source)) if i not in labelled]


def map_scene(
    source: NerfstudioFolder,
    frames: Sequence[int],
    encoder: Encoder,
    config: MapperConfig,
    device: torch.device | str,
    budget: Budget,
) -> OnlineMapper:
    """Feeds the frames evenly over the first half of the budget and trains throughout."""
    read = [source[index] for index in frames]
    online = OnlineMapper(config, encoder, device)
    for _ in drive(read, budget, online.ingest, online.advance):
        pass
    return online


def rendered_quality(scene: str, views: Sequence[LabelledView], online: OnlineMapper, stride: int) -> list[ViewQuality]:
    """PSNR of the map's rendering from each labelled camera, where the labelled picture is there: low when the map is
    young, or when cameras were misread."""
    qualities = []
    for view in views:
        if view.image is not None:
            rgb = online.mapper.render(view.camera, view.T_world_camera, stride=stride).rgb.cpu().numpy()
            truth = view.image[stride // 2 :: stride, stride // 2 :: stride] / 255
            qualities.append(ViewQuality(scene, view.name, psnr(rgb, truth)))
    return qualities


def table(outcomes: Sequence[LabelOutcome], qualities: Sequence[ViewQuality]) -> str:
    """Markdown: a line per scene and the total over all labels, LERF's published total below it."""
    lines = [
        "| scene | views | labels | localisation accuracy | PSNR of labelled pictures |",
        "| --- | --- | --- | --- | --- |",
    ]
    for scene in [*dict.fromkeys(outcome.scene for outcome in outcomes), None]:
        chosen = [o for o in outcomes if scene in (o.scene, None)]
        decibels = [q.psnr for q in qualities if scene in (q.scene, None)]
        views = len({(o.scene, o.view) for o in chosen})
        shown = f"{np.mean(decibels):.1f} dB" if decibels else "-"
        lines.append(f"| {scene or 'total'} | {views} | {len(chosen)} | {accuracy(chosen):.1%} | {shown} |")
    lines.append(f"| LERF, published, its own labels | | 72 | {PUBLISHED:.1%} | |")
    return "\n".join(lines)


def accuracy(outcomes: Sequence[LabelOutcome]) -> float:
    """Share of right answers."""
    return sum(outcome.right for outcome in outcomes) / len(outcomes)


def scenes(data: Path, labels: Path) -> list[tuple[str, Path, Path]]:
    """(name, folder with frames, folder with labels) of one scene, or of all that two parent folders share.

    Raises:
        ValueError: there is none, or a labelled scene has no frames.
    """
    if has_labels(labels):
        return [(data.resolve().name, data, labels)]
    labelled = sorted(folder for folder in labels.iterdir() if has_labels(folder)) if labels.is_dir() else []
    if not labelled:
        raise ValueError(f"neither {labels} nor a folder in it holds labels in LERF's or LangSplat's format")
    missing = [folder.name for folder in labelled if not (data / folder.name / TRANSFORMS).is_file()]
    if missing:
        raise ValueError(f"{data} has no {TRANSFORMS} for the labelled scenes {', '.join(missing)}")
    return [(folder.name, data / folder.name, folder) for folder in labelled]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Localisation accuracy in labelled recordings, as in LERF's paper")
    parser.add_argument("--data", type=Path, required=True, help="nerfstudio folder of a scene, or parent of several")
    parser.add_argument("--labels", type=Path, required=True, help="folder with its labels, or parent of several")
    parser.add_argument("--seconds", type=float, default=60.0, help="of mapping, per scene")
    parser.add_argument("--steps", type=int, help="training steps per scene, instead of seconds")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="mini", help="'mini' or a name of open_clip's, such as ViT-B-16")
    parser.add_argument("--pretrained", default="", help="open_clip's tag, or a local file")
    parser.add_argument(
        "--stride", type=int, default=1, help="render every n-th pixel per axis of the labelled pictures"
    )
    parser.add_argument("--world-scale", type=float, help="metres per scene unit; unset: see NerfstudioFolder")
    parser.add_argument("--train-on-labelled", action="store_true", help="LangSplat's protocol: labelled frames train")
    parser.add_argument(
        "--set", nargs="*", type=name_and_value, default=[], metavar="NAME=VALUE", help="other numbers of the preset"
    )
    parser.add_argument("--out", type=Path, default=Path("out/labelled.json"), help="JSON with every answer")
    options = parser.parse_args(arguments)

    repeatable = PRESETS[options.preset].override({"close_up.seconds": 0.0})  # whatever the machine's pace
    config = repeatable.override(dict(options.set))
    budget = Budget(steps=options.steps) if options.steps else Budget(seconds=options.seconds)
    encoder = load_encoder(options.encoder, options.pretrained, options.device)
    outcomes: list[LabelOutcome] = []
    qualities: list[ViewQuality] = []
    for scene, data, labels in scenes(options.data, options.labels):
        source = NerfstudioFolder(data, options.world_scale)
        views = read_labels(labels, source)
        frames = training_frames(source, views, options.train_on_labelled)
        online = map_scene(source, frames, encoder, config, options.device, budget)
        print(
            f"{scene}: {len(frames)} of {len(source)} frames trained, {online.mapper.keyframes} of them keyframes; ",
            end="",
        )
        print(f"{online.mapper.steps} steps, {100 * online.pyramid_progress:.0f} % of crops encoded")
        method = FieldMethod(online)
        for view in views:
            outcomes += judge_view(scene, view, method.relevancy_view, options.stride)
        of_scene = rendered_quality(scene, views, online, options.stride)
        for name in (quality.view for quality in of_scene if quality.psnr < SUSPICIOUS_PSNR):
            print(f"  {name}: rendered with less than {SUSPICIOUS_PSNR} dB: too little training, or not its camera")
        qualities += of_scene
    print(f"\n{table(outcomes, qualities)}")
    unknown = sorted({word for outcome in outcomes for word in encoder.unknown_words(outcome.text)})
    if unknown:
        print(f"the encoder '{encoder.name}' does not know: {', '.join(unknown)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    summary = {
        "localization_accuracy_2d": accuracy(outcomes),
        "published": PUBLISHED,
        "encoder": encoder.name,
        "preset": options.preset,
        "config": config.values(),
        "budget": asdict(budget),
        "train_on_labelled": options.train_on_labelled,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "rendered": [asdict(quality) for quality in qualities],
    }
    options.out.write_text(json.dumps(summary, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
