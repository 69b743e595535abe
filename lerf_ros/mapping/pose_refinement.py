"""Poses of keyframes refined in training: each is aligned with what the map, taught by all of them, shows there.

LERF and Nerfacto learn corrections of poses ("SO3xR3") by gradients with respect to the places of samples, which our
hash grids do not give. Here a pose is refined as trackers do (iMAP: Sucar et al. 2021): a damped Gauss-Newton step on
errors of colour and depth at some hundred pixels, whose derivatives are finite differences of rendered views.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from lerf_ros.geometry.camera import directions_from_uv
from lerf_ros.geometry.contraction import SceneBounds
from lerf_ros.geometry.poses import Pose
from lerf_ros.host import on_device, on_host
from lerf_ros.mapping.config import MapperConfig
from lerf_ros.mapping.fields import MapFields
from lerf_ros.mapping.keyframes import KeyframeStore
from lerf_ros.mapping.marching import render_rays
from lerf_ros.render.rays import Rays

_PROBE = np.array([0.01] * 3 + [0.005] * 3)  # m and rad, half width of the finite differences
_COLOUR_NOISE = 0.05  # standard deviations: of colours in [0, 1], ...
_DEPTH_NOISE = 0.02  # ... and of depth, m; what errs by more counts less (Huber)
_LEAST_OPACITY = 0.5  # of a ray that says anything about where the camera is
_INDEPENDENT = 30  # pixels of a turn whose errors count as independent: the map errs by surfaces, not by pixels


def moved(T_world_camera: Pose, twist: NDArray[np.float64]) -> Pose:
    """The camera shifted by twist[:3] m and turned by the rotation vector twist[3:] rad, both along its own axes."""
    pose = T_world_camera.copy()
    pose[:3, 3] += T_world_camera[:3, :3] @ twist[:3]
    pose[:3, :3] = T_world_camera[:3, :3] @ Rotation.from_rotvec(twist[3:]).as_matrix()
    return pose


def twist_between(T_world_from: Pose, T_world_to: Pose) -> NDArray[np.float64]:
    """(6,) what `moved` takes from one pose to the other."""
    R = T_world_from[:3, :3]
    turn = Rotation.from_matrix(R.T @ T_world_to[:3, :3]).as_rotvec()
    return np.concatenate([R.T @ (T_world_to[:3, 3] - T_world_from[:3, 3]), turn])


class PoseRefinement:
    """Refines the poses of one map's keyframes, one at a time.

    A pull towards the pose that a keyframe came with, as if that had errors of `refinement.translation` and
    `refinement.rotation`, holds what the pixels leave open. It also settles the gauge: all keyframes and the map could
    move together unseen. That their corrections have mean zero is not enforced: a keyframe that comes or goes would
    then move all others, and with them a map that was right.

    Rendered surfaces lie a little before the measured ones, everywhere alike. Cameras would step back from them, the
    map would follow, and so on; so errors of depth are taken against their mean over all keyframes.
    """

    def __init__(self, config: MapperConfig, fields: MapFields, store: KeyframeStore, bounds: SceneBounds) -> None:
        self._config, self._fields, self._store, self._bounds = config, fields, store, bounds
        capacity, device = store.config.capacity, store.images.device
        # by slot, as a share of the depth, as its last turn showed it
        self._depth_bias = torch.full((capacity,), torch.nan, device=device)

    def turn(self, step: int) -> int | None:
        """Slot of the keyframe whose turn comes after a training step, if one's does."""
        refinement = self._config.refinement
        turn, rest = divmod(step - refinement.start, refinement.every)
        return None if turn < 0 or rest else turn % len(self._store)

    def refine(self, slot: int) -> None:
        """Gives a keyframe its `refined` pose."""
        self._store.refine(slot, self.refined(slot))

    @torch.no_grad()
    def refined(self, slot: int) -> Pose:
        """T_world_camera of a keyframe after `refinement.rate` of a Gauss-Newton step, from random pixels."""
        refinement, T_world_camera = self._config.refinement, self._store.host_poses[slot]
        twists = np.concatenate([np.zeros((1, 6)), np.diag(_PROBE), -np.diag(_PROBE)])
        errors, counts = self._errors(slot, np.stack([moved(T_world_camera, twist) for twist in twists]))
        slopes = (errors[1:7] - errors[7:]) / (2 * errors.new_tensor(_PROBE)[:, None])
        weights = counts / errors[0].abs().clamp_min(1.0)
        hessian, gradient = on_host((slopes * weights) @ slopes.T, slopes @ (weights * errors[0]))
        share = _INDEPENDENT / refinement.rays
        trust = np.array([refinement.translation] * 3 + [refinement.rotation] * 3) ** -2.0
        back = twist_between(T_world_camera, self._store.given_poses[slot])
        step: NDArray[Any] = np.linalg.solve(
            share * hessian.astype(np.float64) + np.diag(trust), trust * back - share * gradient.astype(np.float64)
        )
        return moved(T_world_camera, refinement.rate * step)

    def _errors(self, slot: int, poses: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Errors (P, 4 R) of colour and depth at random pixels of a keyframe, by their standard deviations, were its
        pose one of (P, 4, 4); and which of them count, 1 or 0 (4 R,), as the first pose shows them."""
        store, camera, rays = self._store, self._store.camera, self._config.refinement.rays
        u, v = (torch.randint(size, (rays,), device=store.images.device) for size in (camera.width, camera.height))
        directions, z_per_t = directions_from_uv(torch.stack([u, v], dim=-1).float(), *store.intrinsics[slot].unbind())
        T = on_device(poses, u.device)
        origins = self._bounds.to_local(T[:, :3, 3]).repeat_interleave(rays, dim=0)
        directions = torch.einsum("pij,rj->pri", T[:, :3, :3].float(), directions).flatten(0, 1)
        parts = [
            (part.rgb, part.ends.t_median, part.ends.opacity)
            for part in render_rays(self._fields, self._config, Rays(origins, directions, self._bounds.radius))
        ]
        rgb, t, opacities = (torch.cat(column) for column in zip(*parts, strict=True))
        if self._fields.exposure is not None:
            rgb = self._fields.exposure(rgb, torch.full_like(t, slot, dtype=torch.long))
        of_colour = rgb.unflatten(0, (-1, rays)) - store.images[slot, v, u].float() / 255

        t_measured = store.depth_z[slot, v, u].float() / z_per_t
        of_depth = t.unflatten(0, (-1, rays)) - t_measured
        shown = opacities[:rays] > _LEAST_OPACITY
        relative = torch.where(shown, of_depth[0] / t_measured, torch.nan)
        self._depth_bias[slot] = relative.nanmedian()
        of_depth = of_depth - self._depth_bias.nanmean() * t_measured  # NaN: not measured
        counts = torch.cat([shown.repeat_interleave(3), shown & of_depth[0].isfinite()]).float()
        errors = torch.cat([of_colour.flatten(1) / _COLOUR_NOISE, of_depth / _DEPTH_NOISE], dim=1)
        return errors.nan_to_num(), counts
