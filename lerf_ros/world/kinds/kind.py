"""What a kind of object is: how it is built, what it is called, which colours it comes in and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lerf_ros.world.materials import COLOURS, MATERIALS, Material

PAINTED = tuple(c for c in COLOURS if c not in MATERIALS)
ANY = tuple(COLOURS)


@dataclass(frozen=True)
class Kind:
    """One kind of thing.

    `build(main, rng)` returns the `Shape` (of furniture: and the list of its surfaces), standing on z = 0 and looking
    along +x; `main` is the material that names its colour. `places` are among "table", "shelf", "floor" and "soft"
    (sofas, beds); furniture has none.
    """

    name: str
    build: Callable[[Material, np.random.Generator], Any]
    colours: tuple[str, ...] = PAINTED
    places: tuple[str, ...] = ("table", "shelf")
    synonyms: tuple[str, ...] = ()
    pattern: str = "plain"
    role: str = "object"
    turned_deg: float = 35.0  # how far it may be turned away from looking into the room
