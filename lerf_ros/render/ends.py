"""Where rays end: what their densities say, without any knowledge of depth."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lerf_ros.kernels import runs_kernels
from lerf_ros.render.volume import depth_spread, median_depth, opacity, weights_from_sigmas


class Ends(NamedTuple):
    """Of R rays with S samples: weights (R, S), and t_median (R,) m, opacity (R,) and spread (R,) m as
    `volume.median_depth`, `volume.opacity` and `volume.depth_spread` have them."""

    weights: Tensor
    t_median: Tensor
    opacity: Tensor
    spread: Tensor


def ray_ends(sigmas: Tensor, t_edges: Tensor) -> Ends:
    """Ends of rays with densities sigmas (R, S), 1/m, between t_edges (R, S + 1) m. Where our kernels run, one launch
    finds them, and agrees to rounding. Gives no gradient there."""
    if runs_kernels(sigmas.device):
        from lerf_ros.render.ends_triton import ray_ends_triton  # not everywhere installed

        return Ends(*ray_ends_triton(sigmas, t_edges))
    return ray_ends_torch(sigmas, t_edges)


def ray_ends_torch(sigmas: Tensor, t_edges: Tensor) -> Ends:
    """Reference backend of `ray_ends`."""
    weights = weights_from_sigmas(sigmas, t_edges[:, 1:] - t_edges[:, :-1])
    return Ends(weights, median_depth(weights, t_edges), opacity(weights), depth_spread(weights, t_edges))
