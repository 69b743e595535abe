"""Rendered views of the map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.decoding import CropScale, LanguageFeatures, asked_features
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.marching import render_rays
from lerf_ros.mapping.rays import rays_of_view


@dataclass(frozen=True)
class Rendering:
    """One view on a pixel grid (H, W).

    Attributes:
        rgb: (H, W, 3) in [0, 1].
        depth_z: (H, W) m, the median along the ray.
        opacity: (H, W).
        features: what the H W pixels know about language, row by row; None when not asked for.
        scale_min, scale_max: (H W,) between which the pixels can be asked: the scales of the keyframes' smallest and
            largest crops, if they saw this view.
        scale_of: side of a crop, in pixels of the keyframes' image size, -> (H W,) its scale around each pixel.
    """

    rgb: Tensor
    depth_z: Tensor
    opacity: Tensor
    features: LanguageFeatures | None = None
    scale_min: Tensor | None = None
    scale_max: Tensor | None = None
    scale_of: Callable[[float], Tensor] | None = None


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
    crop_scale: CropScale | None = None,
) -> Rendering:
    """Renders every stride-th pixel of a view, from stride // 2; never sees measured depth. With `crop_scale`, language
    comes with it."""
    v, u = torch.meshgrid(
        torch.arange(stride // 2, camera.height, stride, device=fields.device),
        torch.arange(stride // 2, camera.width, stride, device=fields.device),
        indexing="ij",
    )
    uv = torch.stack([u, v], dim=-1).reshape(-1, 2).float()
    rays, z_per_t = rays_of_view(camera, T_world_camera, uv, bounds)
    parts, features = [], []
    for rendered in render_rays(fields, config, rays):
        parts.append((rendered.rgb, rendered.ends.t_median, rendered.ends.opacity))
        if crop_scale is not None and fields.language is not None:
            features.append(asked_features(fields.language, rendered.march, config.language))
    rgb, t, opacities = (torch.cat(column) for column in zip(*parts, strict=True))
    rendering = Rendering(rgb.view(*u.shape, 3).clamp(0, 1), (t * z_per_t).view(u.shape), opacities.view(u.shape))
    if crop_scale is None or not features:
        return rendering
    levels, focal_px = crop_scale.layout.levels, camera.fy * crop_scale.layout.height / camera.height
    low, high = crop_scale.asked(levels[0].crop_px, levels[-1].crop_px, t, z_per_t, focal_px)
    scale_of = partial(crop_scale.of, t=t, z_per_t=z_per_t, focal_px=focal_px)
    return replace(rendering, features=LanguageFeatures.cat(features), scale_min=low, scale_max=high, scale_of=scale_of)
