#!/usr/bin/env python3
"""Measures the installed mini CLIP on rooms: the card's figures and what it takes for what."""

from __future__ import annotations

import argparse
import json
import sys

from mini_clip_evaluation import evaluate
from mini_clip_rooms import render_room

from lerf_ros.features.encoder import load_encoder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10_000, 10_001, 10_002])
    parser.add_argument("--views", type=int, default=12, help="per room")
    parser.add_argument("--weights", default="", help="instead of the installed ones; must fit the installed mini.json")
    options = parser.parse_args()
    encoder = load_encoder("mini", options.weights)
    figures, tables = evaluate(encoder, [render_room(seed, options.views) for seed in options.seeds])
    print(tables)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
