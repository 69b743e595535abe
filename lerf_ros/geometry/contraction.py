"""World metres <-> the unit cube in which the field is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

# The outermost representable shell: |contract(x)| = 2 is infinity, which no inverse can give back.
_MAX_CONTRACTED = 2.0 - 1e-4


def contract(x: Tensor) -> Tensor:
    """mip-NeRF 360 contraction (Barron et al. 2022, eq. 10) with the L2 norm.

    ``contract(x) = x`` where ``|x| <= 1``, else ``(2 - 1/|x|) x/|x|``. Both are ``x r (2 - r)`` with
    ``r = 1 / max(1, |x|)``, so there is no branch.

    Args:
        x: (N, 3), any length.

    Returns:
        (N, 3) inside the ball of radius 2.
    """
    r = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1.0).reciprocal()
    return x * (r * (2.0 - r))


def uncontract(y: Tensor) -> Tensor:
    """Inverse of :func:`contract`: ``y / (m (2 - m))`` with ``m = max(1, |y|)``. Beyond the ball it gives the outermost
    representable shell, 10,000 radii away.

    Args:
        y: (N, 3) inside the ball of radius 2.
    """
    m = torch.linalg.vector_norm(y, dim=-1, keepdim=True).clamp(1.0, _MAX_CONTRACTED)
    return y / (m * (2.0 - m))


def unit_from_local(x_local: Tensor) -> Tensor:
    """``contract(x_local) / 4 + 1/2``: scene-local coordinates (radius one) to x_unit in [0, 1]^3, (N, 3)."""
    return contract(x_local) * 0.25 + 0.5


def local_from_unit(x_unit: Tensor) -> Tensor:
    """Inverse of :func:`unit_from_local`, (N, 3)."""
    return uncontract((x_unit - 0.5) * 4.0)


@dataclass(frozen=True)
class SceneBounds:
    """The mapped volume: a ball in the map frame that fills the inner half of the unit cube.

    ``x_local = (x_world - center) / radius``; ``x_unit = contract(x_local) / 4 + 1/2``. Inside the ball the map is a
    pure scaling by ``1 / (4 radius)``; outside, space is squashed into the shell up to the cube's inscribed ball.

    Attributes:
        center: (3,) world, metres (kept as Python floats, which are float64).
        radius: metres.

    Raises:
        ValueError: center is not three finite numbers, or radius is not positive.
    """

    center: tuple[float, float, float]
    radius: float
    _centers: dict[torch.device, Tensor] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        center = tuple(float(value) for value in self.center)
        if len(center) != 3 or not all(math.isfinite(value) for value in center):
            raise ValueError(f"the scene center must be three finite numbers (metres), got {center}")
        if not (math.isfinite(self.radius) and self.radius > 0.0):
            raise ValueError(f"the scene radius must be positive (metres), got {self.radius}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "radius", float(self.radius))

    def to_local(self, x_world: Tensor) -> Tensor:
        """World metres (N, 3) to float32 scene-local coordinates. The subtraction runs in float64: map frames (UTM!)
        may lie far from zero. Apply it to ray origins once; then ``x_local = origin_local + t * direction / radius``.
        """
        x_world = x_world.double()
        # Axis by axis: a tensor of the center would be copied to the device, and every training step would wait for it.
        offsets = [x_world[..., axis] - value for axis, value in enumerate(self.center)]
        return (torch.stack(offsets, dim=-1) / self.radius).float()

    def center_on(self, device: torch.device) -> Tensor:
        """The centre (3,) float64 on a device, made once: captured graphs go on reading it."""
        if device not in self._centers:
            self._centers[device] = torch.tensor(self.center, dtype=torch.float64, device=device)
        return self._centers[device]

    def to_unit(self, x_world: Tensor) -> Tensor:
        """World metres (N, 3) to x_unit (N, 3) float32."""
        return unit_from_local(self.to_local(x_world))

    def to_world(self, x_unit: Tensor) -> Tensor:
        """Inverse of :meth:`to_unit`: world metres (N, 3) float64."""
        center = torch.tensor(self.center, dtype=torch.float64, device=x_unit.device)
        return local_from_unit(x_unit.double()) * self.radius + center

    def contains(self, x_world: Tensor) -> Tensor:
        """Which points lie inside the uncontracted ball: (N,) bool."""
        return torch.linalg.vector_norm(self.to_local(x_world), dim=-1) <= 1.0
