"""Marching rays through the field: what training, rendered views and surface points have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lerf_ros.field.radiance import RadianceField
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.fields import MapFields
from lerf_ros.render.composite import Composite, composite
from lerf_ros.render.ends import Ends, ray_ends
from lerf_ros.render.gradient_scaling import scaled_gradients
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import midpoints
from lerf_ros.render.volume import rendered_colour


@dataclass(frozen=True)
class March:
    """R rays with S samples each: x_unit (R, S, 3), t_edges (R, S + 1) m, sigmas and weights (R, S)."""

    rays: Rays
    x_unit: Tensor
    t_edges: Tensor
    sigmas: Tensor
    weights: Tensor

    def __getitem__(self, part: slice) -> March:
        """Some of the rays."""
        rays = Rays(self.rays.origins[part], self.rays.directions[part], self.rays.radius)
        arrays = self.x_unit, self.t_edges, self.sigmas, self.weights
        return March(rays, *(array[part] for array in arrays))


@dataclass(frozen=True)
class Rendered:
    """R rays as they are seen: their march, where they end, and colours (R, S, 3) of the samples."""

    march: March
    ends: Ends
    colours: Tensor

    @property
    def rgb(self) -> Tensor:
        """(R, 3), see `volume.rendered_colour`."""
        return rendered_colour(self.ends.weights, self.colours)


def march(radiance: RadianceField, rays: Rays, t_edges: Tensor) -> Rendered:
    """Marches along rays whose intervals are t_edges (R, S + 1) metres."""
    x_unit, sigmas, colours = _field_along(radiance, rays, t_edges)
    ends = ray_ends(sigmas, t_edges)
    return Rendered(March(rays, x_unit, t_edges, sigmas, ends.weights), ends, colours)


def march_measured(
    radiance: RadianceField,
    rays: Rays,
    t_edges: Tensor,
    t_measured: Tensor,
    t_sigma: Tensor,
    far: float,
    near_field: float = 0.0,
) -> tuple[March, Composite]:
    """As `march`, for training: with errors per ray against t_measured (R,), whose standard deviation is t_sigma (R,),
    both m, see `render.composite`. The weights carry no gradient; gradients of samples nearer than near_field m are
    scaled, see `render.gradient_scaling`."""
    x_unit, sigmas, colours = _field_along(radiance, rays, t_edges)
    if near_field > 0:
        sigmas, colours = scaled_gradients(sigmas, colours, midpoints(t_edges), near_field)
    result = composite(sigmas, colours, t_edges, t_measured, t_sigma, far)
    return March(rays, x_unit, t_edges, sigmas, result.weights), result


def _field_along(radiance: RadianceField, rays: Rays, t_edges: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Places of the samples, x_unit (R, S, 3), and there sigmas (R, S), 1/m, and colours (R, S, 3)."""
    x_unit = rays.x_unit_of_intervals(t_edges)
    return x_unit, *radiance.along_rays(x_unit, rays.directions)


@torch.no_grad()
def render_rays(fields: MapFields, config: MapperConfig, rays: Rays) -> Iterator[Rendered]:
    """Marches along rays in chunks of `sampling.render_chunk`, without any knowledge of depth."""
    for start in range(0, len(rays.directions), config.sampling.render_chunk):
        part = slice(start, start + config.sampling.render_chunk)
        chunk = Rays(rays.origins[part], rays.directions[part], rays.radius)
        t_edges, _ = fields.propose(chunk, config.sampling.render_samples, jitter=False)
        yield march(fields.radiance, chunk, t_edges)
