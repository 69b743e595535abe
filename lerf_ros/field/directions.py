"""Real spherical harmonics of viewing directions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SH4_COMPONENTS = 16


def spherical_harmonics_4(directions: Tensor) -> Tensor:
    """The real spherical harmonics of degrees 0 to 3 ("SH-4": four bands), orthonormal on the sphere.

    Signs carry the Condon-Shortley phase, ``(-1)^m``, as in instant-NGP and Nerfacto; l ascending, m from -l to l.

    Args:
        directions: unit vectors, (N, 3).

    Returns:
        (N, 16).
    """
    x, y, z = directions.unbind(dim=-1)
    xx, yy, zz = x * x, y * y, z * z
    pi = math.pi
    return torch.stack(
        [
            torch.full_like(x, math.sqrt(1 / (4 * pi))),
            -math.sqrt(3 / (4 * pi)) * y,
            math.sqrt(3 / (4 * pi)) * z,
            -math.sqrt(3 / (4 * pi)) * x,
            math.sqrt(15 / (4 * pi)) * x * y,
            -math.sqrt(15 / (4 * pi)) * y * z,
            math.sqrt(5 / (16 * pi)) * (3 * zz - 1),
            -math.sqrt(15 / (4 * pi)) * x * z,
            math.sqrt(15 / (16 * pi)) * (xx - yy),
            -math.sqrt(35 / (32 * pi)) * y * (3 * xx - yy),
            math.sqrt(105 / (4 * pi)) * x * y * z,
            -math.sqrt(21 / (32 * pi)) * y * (5 * zz - 1),
            math.sqrt(7 / (16 * pi)) * z * (5 * zz - 3),
            -math.sqrt(21 / (32 * pi)) * x * (5 * zz - 1),
            math.sqrt(105 / (16 * pi)) * z * (xx - yy),
            -math.sqrt(35 / (32 * pi)) * x * (xx - 3 * yy),
        ],
        dim=-1,
    )
