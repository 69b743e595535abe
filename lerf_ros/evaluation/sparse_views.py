"""A few images with poses, without depth and without a known scale, as a user of COLMAP has them: how many of the
things that they show are found, judged by the truth of the generated room in which they were taken.

python -m lerf_ros.evaluation.sparse_views --seeds 12001-12004 --images 20 --seconds 60
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from lerf_ros.evaluation.command import name_and_value, seed_list
from lerf_ros.evaluation.exam import Exam
from lerf_ros.evaluation.localization import judge
from lerf_ros.evaluation.methods import METHODS
from lerf_ros.evaluation.pacing import Budget, drive
from lerf_ros.evaluation.report import plain
from lerf_ros.evaluation.runner import THINGS, ask
from lerf_ros.features.encoder import Encoder, load_encoder
from lerf_ros.geometry.poses import Pose
from lerf_ros.geometry.units import SCENE_UNITS, Units
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.query.targets import Answer, Target
from lerf_ros.world.nerfstudio import NerfstudioFolder
from lerf_ros.world.nerfstudio_export import write_nerfstudio
from lerf_ros.world.room import SEEN_IN, Room
from lerf_ros.world.truth import TruthQuery

_SCALES = 0.2, 5.0  # scene units per metre, from ... to, evenly in log scale
_SHIFT = 10.0  # scene units, per axis


@dataclass(frozen=True, eq=False)
class Similarity:
    """A similarity transform ``x_to = scale * rotation @ x_from + translation``: structure from motion recovers a scene
    up to one.

    Attributes:
        scale: positive.
        rotation: (3, 3).
        translation: (3,).
    """

    scale: float
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Similarity:
        """Any rotation, a scale of `_SCALES` and a shift of up to `_SHIFT` per axis."""
        rotation = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
        scale = float(np.exp(rng.uniform(*np.log(_SCALES))))
        return cls(scale, rotation, rng.uniform(-_SHIFT, _SHIFT, 3))

    def points(self, x_from: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points (.., 3) -> (.., 3)."""
        return self.scale * np.asarray(x_from, np.float64) @ self.rotation.T + self.translation

    def pose(self, T_from_camera: Pose) -> Pose:
        """The same camera (4, 4) in the other frame (4, 4)."""
        T_to_camera = np.eye(4)
        T_to_camera[:3, :3] = self.rotation @ T_from_camera[:3, :3]
        T_to_camera[:3, 3] = self.points(T_from_camera[:3, 3])
        return T_to_camera

    def inverse(self) -> Similarity:
        return Similarity(1 / self.scale, self.rotation.T, -self.rotation.T @ self.translation / self.scale)

    def scaled(self, factor: float) -> Similarity:
        """This transform, followed by a multiplication by `factor`."""
        return Similarity(factor * self.scale, self.rotation, factor * self.translation)

    def answer(self, answer: Answer) -> Answer:
        """The same answer with its targets in the other frame."""
        return replace(answer, targets=tuple(map(self._target, answer.targets)))

    def _target(self, target: Target) -> Target:
        return replace(
            target,
            position=self.points(target.position),
            quaternion_xyzw=(
                Rotation.from_matrix(self.rotation) * Rotation.from_quat(target.quaternion_xyzw)
            ).as_quat(),
            size=self.scale * target.size,
            scale=self.scale * target.scale,
            covariance=self.scale**2 * self.rotation @ target.covariance @ self.rotation.T,
        )


class SparseViews:
    """Some frames of a room's walk in another frame of reference, colours and poses only, as a `FrameSource`.

    Args:
        indices: of the frames.
        T_scene_room: from the room's metres to scene units.
    """

    units: Units = SCENE_UNITS

    def __init__(self, room: Room, indices: Sequence[int], T_scene_room: Similarity) -> None:
        self._room, self._indices, self._T_scene_room = room, indices, T_scene_room
        self.name, self.camera, self.rate_hz = room.name, room.camera, room.rate_hz

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Frame:
        frame = self._room[self._indices[i]]
        return replace(frame, depth_z=None, T_world_camera=self._T_scene_room.pose(frame.T_world_camera))


@dataclass(frozen=True)
class SparseViewsResult:
    """How one folder was answered; lists have one entry a question.

    Attributes:
        images, keyframes: that were written, and that the map took.
        texts, categories: the questions, "object" or "attribute" (`TruthQuery.category`).
        correct: whether the best target, mapped back to the room, is right; without a threshold.
        found: whether the answer is above the encoder's threshold.
        errors: m, from the best target to the true surface of what was asked for; infinite without a target.
    """

    seed: int
    images: int
    keyframes: int
    steps: int
    texts: list[str]
    categories: list[str]
    correct: list[bool]
    found: list[bool]
    errors: list[float]

    def __str__(self) -> str:
        objects = [right for right, category in zip(self.correct, self.categories) if category == "object"]
        found_and_right = sum(right and found for right, found in zip(self.correct, self.found))
        return (
            f"room {self.seed}: {_fraction(self.correct)} right ({_fraction(objects)} of those without a look-alike; "
            f"{found_and_right} above the threshold), median error {100 * np.median(self.errors or [np.nan]):.1f} cm; "
            f"{self.keyframes} of {self.images} images are keyframes, {self.steps} steps"
        )


def evenly(images: int, frames: int) -> list[int]:
    """Indices of so many frames, evenly spaced from the first to the last; all when there are no more."""
    return [int(i) for i in np.unique(np.linspace(0, frames - 1, images).round())]


def shown_well(exam: Exam, indices: Sequence[int], at_least: int = SEEN_IN) -> list[TruthQuery]:
    """The questions about things, "object" and "attribute", that at least so many of the frames show well."""
    counts = Counter(i for index in indices for i in exam.well_visible(exam.room.trajectory[index]))
    return [
        query
        for query in exam.queries
        if query.category in THINGS and any(counts[i] >= at_least for i in query.instance_ids)
    ]


def evaluate_sparse_views(
    exam: Exam, images: int, config: MapperConfig, budget: Budget, encoder: Encoder, device: torch.device, folder: Path
) -> SparseViewsResult:
    """Writes a nerfstudio folder of evenly spaced frames of the room, maps it as any such folder, and judges the
    answers in the room's frame.

    Args:
        encoder: on the device.
        folder: is written; the similarity transform of its poses depends on the room's seed alone.
    Raises:
        OSError: the folder cannot be written.
    """
    seed, indices = exam.room.seed, evenly(images, len(exam.room))
    T_scene_room = Similarity.random(np.random.default_rng([seed, 9]))
    write_nerfstudio(SparseViews(exam.room, indices, T_scene_room), folder, depth=False)
    source = NerfstudioFolder(folder)
    online = OnlineMapper(config.override({"scene.units": source.units}), encoder, device, seed)
    frames = [source[i] for i in range(len(source))]
    (stop,) = drive(frames, budget, online.ingest, online.advance, settle=online.settle)
    T_room_map = T_scene_room.scaled(source.world_scale).inverse()
    queries = shown_well(exam, indices)
    answers = [T_room_map.answer(answer) for answer in ask(METHODS["field"](online), queries)]
    outcomes = [judge(query, answer, exam.surface) for query, answer in zip(queries, answers, strict=True)]
    return SparseViewsResult(
        seed=seed,
        images=len(indices),
        keyframes=online.mapper.keyframes,
        steps=stop.steps,
        texts=[query.text for query in queries],
        categories=[query.category for query in queries],
        correct=[outcome.correct for outcome in outcomes],
        found=[answer.best_relevancy >= encoder.calibration.found_threshold for answer in answers],
        errors=[outcome.error for outcome in outcomes],
    )


def _fraction(correct: Sequence[bool]) -> str:
    return f"{sum(correct)} of {len(correct)}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="What is found in a few images without depth and without a scale")
    parser.add_argument("--seeds", type=seed_list, default="12001", help="rooms: a,b,c or a-b")
    parser.add_argument("--images", type=int, default=20, help="of each room, evenly spaced along its walk")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, help="training a room; default 60")
    budget.add_argument("--steps", type=int, help="training steps a room, instead of seconds")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default="mini", help="mini, or the name of an open_clip model")
    parser.add_argument("--pretrained", default="", help="its weights: tag or file")
    parser.add_argument(
        "--set", nargs="*", type=name_and_value, default=[], metavar="NAME=VALUE", help="other numbers of the preset"
    )
    parser.add_argument("--folders", type=Path, help="where the folders are kept, one a room; default: nowhere")
    parser.add_argument("--out", type=Path, help="JSON file for every answer")
    options = parser.parse_args(arguments)

    device = torch.device(options.device)
    encoder = load_encoder(options.encoder, options.pretrained, device)
    config = PRESETS[options.preset].override(dict(options.set))
    budgeted = Budget(steps=options.steps) if options.steps else Budget(seconds=options.seconds or 60.0)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in options.seeds:
            folder = (options.folders or Path(temporary)) / f"room_{seed}"
            exam = Exam(Room(seed), views=0)
            results.append(evaluate_sparse_views(exam, options.images, config, budgeted, encoder, device, folder))
            print(results[-1], flush=True)
    correct = [right for result in results for right in result.correct]
    percent = 100 * sum(correct) / max(len(correct), 1)
    print(f"all {len(results)} rooms: {_fraction(correct)} right, {percent:.1f} %")
    if options.out is not None:
        options.out.write_text(
            json.dumps(plain([asdict(result) for result in results]), indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
