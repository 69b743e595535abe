"""Other colours for the things in a rendered view, so that kinds and colours are learnt apart from one another.

A surface's colour is its paint times its light (`lerf_ros.world.render`), so paint can be exchanged afterwards: what a
pixel has along the old paint's RGB is its light, and what it has beside it (gloss, a pattern) stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lerf_ros.world.kinds.catalogue import HELD_OUT_COMBINATIONS
from lerf_ros.world.kinds.kind import PAINTED
from lerf_ros.world.materials import COLOURS

REPAINTED = 0.8  # of the things; wood and metal have patterns of their own and stay
OFF_COLOUR = 0.18  # of its length that a pixel may lie beside its thing's paint ..
OFF_LEVELS = 6.0  # .. and grey levels more, which rounding makes
SHADE = (0.2, 1.4)  # how dark and how light a paint gets; beyond that it is another paint
SHADE_LEVELS = 25.0  # grey levels more: highlights on dark paint


def draw_paints(kinds: list[str], colours: list[str], instance: np.ndarray, rng: np.random.Generator) -> list[str]:
    """A colour for each region: most painted instances get a new one, but never a held-out one for their kind."""
    held_out: dict[str, set[str]] = {}
    for kind, colour in HELD_OUT_COMBINATIONS:
        held_out.setdefault(kind, set()).add(colour)
    drawn: dict[int, str] = {}
    for kind, colour, number in zip(kinds, colours, instance.tolist()):
        if number not in drawn:
            choices = [c for c in PAINTED if c not in held_out.get(kind, ()) and c != colour]
            change = colour in PAINTED and rng.random() < REPAINTED
            drawn[number] = str(rng.choice(choices)) if change else colour
    return [drawn[number] for number in instance.tolist()]


def repaint(images: Tensor, masks: Tensor, old: list[str], new: list[str]) -> Tensor:
    """The images (V, H, W, 3) uint8 with the paint of every region (masks (V, H, W)) exchanged; "" paints nothing."""
    device = images.device
    source, target = (
        torch.tensor([COLOURS.get(c, (1, 1, 1)) for c in colours], dtype=torch.float32, device=device)
        for colours in (old, new)
    )
    changed = torch.tensor([a != b for a, b in zip(old, new)], device=device)
    done = []
    for image, mask in zip(images, masks.long()):
        rgb, paint = image.float(), source[mask]
        light = (rgb * paint).sum(dim=-1, keepdim=True) / (paint * paint).sum(dim=-1, keepdim=True)
        beside = rgb - light * paint
        own = beside.norm(dim=-1) < OFF_COLOUR * rgb.norm(dim=-1) + OFF_LEVELS
        shade, brightest = light[..., 0], paint.amax(dim=-1)
        own &= (shade > SHADE[0]) & (shade * brightest < SHADE[1] * brightest + SHADE_LEVELS) & changed[mask]
        done.append(torch.where(own[..., None], light * target[mask] + beside, rgb).clamp(0, 255).to(torch.uint8))
    return torch.stack(done)
