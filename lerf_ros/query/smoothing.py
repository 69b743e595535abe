"""How well a text fits a surface, each point asked together with its neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lerf_ros.kernels import runs_kernels
from lerf_ros.mapping.surface import SurfacePoints
from lerf_ros.query.neighbourhood import Neighbourhood
from lerf_ros.query.relevancy import half_step, supervised
from lerf_ros.query.sweep import Sweep


class Smoothed(NamedTuple):
    """A sweep, smoothed over the surface.

    scales (S,) m, or (S, N), of the sweep; values (S, N), ranks averaged over each point's neighbourhood, -inf where a
    point was never trained at a scale: it neither answers there nor counts for its neighbours; own (S, N), ranks as
    they are; relevancy (S, N), averaged alike; peak (N,), the highest of the values.
    """

    scales: Tensor
    values: Tensor
    own: Tensor
    relevancy: Tensor
    peak: Tensor


class Smoother:
    """Smooths sweeps over N surface points, whose neighbours are known."""

    def __init__(self, points: SurfacePoints, near: Neighbourhood) -> None:
        self._points, self._near = points, near
        self._scales: Tensor | None = None  # those that the next two are of: (S, N) which values count, ...
        self._valid = self._shares = torch.empty(0)  # ... and the share of each neighbourhood that does

    def __call__(self, sweep: Sweep) -> Smoothed:
        """Where our kernels run, one launch does it all."""
        values, relevancy = self._means(sweep)
        return Smoothed(sweep.scales, values, sweep.ranks, relevancy, values.amax(dim=0))

    def _means(self, sweep: Sweep) -> tuple[Tensor, Tensor]:
        points, near = self._points, self._near
        if runs_kernels(sweep.ranks.device):
            from lerf_ros.query.smoothing_triton import smoothed_triton  # not everywhere installed

            of_points = points.scale_min, points.scale_max, sweep.ranks, sweep.offset, near.members, near.shares
            return smoothed_triton(sweep.scales, half_step(sweep.scales), *of_points)
        return self.means_torch(sweep)

    def means_torch(self, sweep: Sweep) -> tuple[Tensor, Tensor]:
        """Reference backend: values and relevancy."""
        if self._scales is not sweep.scales:  # texts that are asked together share them
            self._scales = sweep.scales
            self._valid = supervised(sweep.scales, self._points.scale_min, self._points.scale_max).float()
            self._shares = self._near.smooth(self._valid).clamp_min(1e-6)
        means = self._near.smooth(torch.stack([sweep.ranks, sweep.ranks - sweep.offset]) * self._valid)
        ranks, logits = torch.where(self._valid > 0, means / self._shares, -torch.inf)
        return ranks, logits.sigmoid()
