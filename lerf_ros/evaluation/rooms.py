"""Maps generated rooms without ROS, asks their questions, and counts right answers: of the field, and of the baseline.

python -m lerf_ros.evaluation.rooms --seeds 3 4 --seconds 150 --preset cpu
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
import yaml

from lerf_ros.evaluation.demo_report import outcome_table
from lerf_ros.evaluation.localization import Outcome, Score, judge
from lerf_ros.evaluation.methods import SURFACE_POINTS, voxel_average
from lerf_ros.evaluation.pacing import drive
from lerf_ros.evaluation.statistics import best_threshold
from lerf_ros.features.encoder import Encoder, load_encoder
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.surface import SemanticSurface
from lerf_ros.query.targets import QueryOptions, find_targets
from lerf_ros.world.room import Room
from lerf_ros.world.source import FrameSource
from lerf_ros.world.truth import TruthQuery


def map_source(
    source: FrameSource, encoder: Encoder, config: MapperConfig, device: torch.device | str, seconds: float
) -> OnlineMapper:
    """Feeds all frames evenly over the first half of the time and trains throughout."""
    frames = [source[index] for index in range(len(source))]
    online = OnlineMapper(config, encoder, device)
    drive(frames, seconds, online.ingest, online.advance)
    return online


def ask(
    surface: SemanticSurface, encoder: Encoder, queries: Sequence[TruthQuery], min_relevancy: float | None = None
) -> list[Outcome]:
    """Asks a surface all queries and judges the answers."""
    options = QueryOptions(max_targets=1, min_relevancy=min_relevancy)
    answers = find_targets(surface, encoder, [query.text for query in queries], options)
    return [judge(query, answer) for query, answer in zip(queries, answers, strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Questions about generated rooms: the field and its baseline")
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="rooms")
    parser.add_argument("--seconds", type=float, default=150.0, help="of mapping, per room")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other numbers of the preset")
    options = parser.parse_args(arguments)

    settings = dict(setting.split("=", 1) for setting in options.set)
    config = PRESETS[options.preset].override({name: yaml.safe_load(value) for name, value in settings.items()})
    encoder = load_encoder(device=options.device)
    totals: dict[str, list[Outcome]] = {"field": [], "voxel average": []}
    unfiltered: list[Outcome] = []
    for seed in options.seeds:
        room = Room(seed)
        queries = [*room.present_queries(), *room.absent_queries()]
        online = map_source(room, encoder, config, options.device, options.seconds)
        print(f"\nroom {seed}: {online.mapper.keyframes} keyframes, {online.mapper.steps} steps, ", end="")
        print(f"{100 * online.pyramid_progress:.0f} % of crops encoded")
        field = online.mapper.surface(SURFACE_POINTS)
        unfiltered += ask(field, encoder, queries, min_relevancy=0.0)
        for name, surface in (("field", field), ("voxel average", voxel_average(online).surface())):
            outcomes = ask(surface, encoder, queries)
            totals[name] += outcomes
            print(f"\n{name}\n{outcome_table(outcomes, truth=True)}")
    print()
    for name, outcomes in totals.items():
        print(f"{name:<14} {Score.of(outcomes)}")
    present, absent = ([o.answer.best_relevancy for o in unfiltered if o.present is there] for there in (True, False))
    print(f"the threshold that parts present from absent best here: {best_threshold(present, absent):.3f}")


if __name__ == "__main__":
    main()
