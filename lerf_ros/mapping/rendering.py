"""Marching rays through the field: what training, rendered views and surface points have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.field.language import LanguageField
from lerf_ros.field.radiance import RadianceField
from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.rays import rays_of_view
from lerf_ros.render.rays import Rays
from lerf_ros.render.sampling import midpoints
from lerf_ros.render.volume import accumulate, median_depth, opacity, weights_from_sigmas


@dataclass(frozen=True)
class March:
    """R rays with S samples each: x_unit (R, S, 3), t_edges (R, S + 1) m, sigmas and weights (R, S), rgb (R, 3)."""

    x_unit: Tensor
    t_edges: Tensor
    sigmas: Tensor
    weights: Tensor
    rgb: Tensor


@dataclass(frozen=True)
class Rendering:
    """One view on a pixel grid (H, W): rgb (H, W, 3) in [0, 1]; depth_z (H, W) m, the median along the ray;
    opacity (H, W); features (H, W, F), blended hash features of the language field, or None when not asked for."""

    rgb: Tensor
    depth_z: Tensor
    opacity: Tensor
    features: Tensor | None


def march(radiance: RadianceField, rays: Rays, t_edges: Tensor) -> March:
    """Renders colour along rays whose intervals are t_edges (R, S + 1) metres.

    Light that passes all samples takes the colour of the last one: rooms have no background.
    """
    x_unit = rays.x_unit(midpoints(t_edges))
    sigmas, geometry = radiance.density(x_unit.flatten(0, 1))
    sigmas = sigmas.view(x_unit.shape[:2])
    weights = weights_from_sigmas(sigmas, t_edges[:, 1:] - t_edges[:, :-1])
    colours = radiance.colour(geometry, rays.directions).view(x_unit.shape)
    rgb = accumulate(weights, colours) + (1 - opacity(weights))[:, None] * colours[:, -1]
    return March(x_unit, t_edges, sigmas, weights, rgb)


def blend_language(language: LanguageField, weights: Tensor, x_unit: Tensor, samples: int) -> Tensor:
    """Language features of each ray: the blend (R, F) of the hash features of its heaviest samples.

    The weights are detached, so that no language gradient reaches density, and sum to one.

    Args:
        weights: (R, S).
        x_unit: (R, S, 3).
        samples: how many of the S are blended.
    """
    heaviest, index = weights.detach().topk(min(samples, weights.shape[1]), dim=1, sorted=False)
    heaviest = heaviest / heaviest.sum(dim=1, keepdim=True).clamp_min(1e-8)
    x_unit = torch.gather(x_unit, 1, index[..., None].expand(-1, -1, 3))
    return accumulate(heaviest, language.features(x_unit.flatten(0, 1)).view(*index.shape, -1))


@torch.no_grad()
def render_rays(fields: MapFields, config: MapperConfig, rays: Rays) -> Iterator[March]:
    """Marches along rays in chunks of `sampling.render_chunk`, without any knowledge of depth."""
    for start in range(0, len(rays.directions), config.sampling.render_chunk):
        part = slice(start, start + config.sampling.render_chunk)
        chunk = Rays(rays.origins[part], rays.directions[part], rays.radius)
        yield march(fields.radiance, chunk, fields.propose(chunk, config.sampling.render_samples, jitter=False))


def psnr(rgb: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]: -10 log10 of the mean squared error."""
    return float(-10 * np.log10(np.mean(np.square(rgb - truth))))


@torch.no_grad()
def render_view(
    fields: MapFields,
    config: MapperConfig,
    bounds: SceneBounds,
    camera: Camera,
    T_world_camera: Pose,
    stride: int,
    features: bool,
) -> Rendering:
    """Renders every stride-th pixel of a view, from stride // 2; never sees measured depth."""
    device = fields.proposal.sigmas.device
    v, u = torch.meshgrid(
        torch.arange(stride // 2, camera.height, stride, device=device),
        torch.arange(stride // 2, camera.width, stride, device=device),
        indexing="ij",
    )
    uv = torch.stack([u, v], dim=-1).reshape(-1, 2).float()
    rays, z_per_t = rays_of_view(camera, T_world_camera, uv, bounds)
    language = fields.language if features else None
    parts: list[tuple[Tensor, ...]] = []
    for marched in render_rays(fields, config, rays):
        part: tuple[Tensor, ...] = (
            marched.rgb,
            median_depth(marched.weights, marched.t_edges),
            opacity(marched.weights),
        )
        if language is not None:
            part += (blend_language(language, marched.weights, marched.x_unit, config.language.samples),)
        parts.append(part)
    rgb, t, opacities, *blended = (torch.cat(column) for column in zip(*parts, strict=True))
    return Rendering(
        rgb=rgb.view(*u.shape, 3).clamp(0, 1),
        depth_z=(t * z_per_t).view(u.shape),
        opacity=opacities.view(u.shape),
        features=blended[0].view(*u.shape, -1) if blended else None,
    )
