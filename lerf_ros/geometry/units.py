"""What lengths are measured in: metres, or the arbitrary units of a reconstruction that has no absolute scale."""

from __future__ import annotations

from typing import Literal

Units = Literal["m", "scene units"]

METRES: Units = "m"
SCENE_UNITS: Units = "scene units"
"""Structure from motion (COLMAP) recovers a scene up to a similarity transform: lengths have ratios, but no metre."""

NOT_METRES = "lengths are in scene units, not metres: the scale of this scene is unknown"
"""What is said wherever a length could be taken for metres."""
