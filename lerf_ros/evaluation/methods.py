"""What can be asked: the trained field, and baselines on the same keyframes and crops, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lerf_ros.evaluation.crop_votes import CropVotes
from lerf_ros.features.encoder import Encoder
from lerf_ros.geometry.camera import Camera, project
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.frame import Frame
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.mapping.surface import SemanticSurface
from lerf_ros.mapping.voxels import VoxelMap
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import relevancy, scale_sweep, supervised
from lerf_ros.query.targets import Answer, find_targets

SURFACE_POINTS = 40_000
_CHOOSING_PIXELS = 20_000  # of a view, evenly spread: enough to see at which scale a text peaks
VIEW_SCALES = 16  # scales tried in a view, evenly spaced in log scale over the supervised range


class Method(Protocol):
    """Answers texts about one map; made once for each map (and each moment of it) that is asked."""

    name: str

    def answer(self, texts: Sequence[str], min_relevancy: float | None = None, max_targets: int = 1) -> list[Answer]:
        """One answer a text, as `query.targets.find_targets` gives them."""
        ...

    def relevancy_view(
        self, camera: Camera, T_world_camera: Pose, texts: Sequence[str], stride: int
    ) -> NDArray[np.float32] | None:
        """Relevancy (T, h, w) in a view, every `stride`-th pixel from `stride // 2`, each text at the one scale whose
        peak in the view is highest (LERF, section 3.5); None for methods without views."""
        ...


class SurfaceMethod:
    """A method that answers from a `SemanticSurface`; in a view its points are splatted."""

    def __init__(self, name: str, surface: SemanticSurface, encoder: Encoder) -> None:
        self.name, self.surface, self.encoder = name, surface, encoder

    def answer(self, texts: Sequence[str], min_relevancy: float | None = None, max_targets: int = 1) -> list[Answer]:
        options = QueryOptions(max_targets=max_targets, min_relevancy=min_relevancy)
        return find_targets(self.surface, self.encoder, texts, options)

    def relevancy_view(
        self, camera: Camera, T_world_camera: Pose, texts: Sequence[str], stride: int
    ) -> NDArray[np.float32] | None:
        points = self.surface.points
        view = np.zeros((len(texts), *grid_shape(camera, stride)), np.float32)
        pixel, chosen = splat(points.x_world, camera, T_world_camera, stride)
        if len(chosen) and points.has_language:
            scales = scale_sweep(points.scale_min, points.scale_max, VIEW_SCALES)
            known = supervised(scales, points.scale_min, points.scale_max)[:, chosen]
            similarity = self.surface.similarity(scales, asked_embeds(self.encoder, texts))[:, chosen]
            values = known_relevancy(similarity, known, len(texts), self.encoder)
            of_text = values[peak_scale(values), :, torch.arange(len(texts), device=values.device)]
            view.reshape(len(texts), -1)[:, pixel.cpu().numpy()] = of_text.cpu().numpy()
        return view


class FieldMethod(SurfaceMethod):
    """The language embedded radiance field, as the node answers from it."""

    def __init__(self, online: OnlineMapper) -> None:
        super().__init__("field", online.surface(SURFACE_POINTS), online.encoder)
        self._online = online

    def relevancy_view(
        self, camera: Camera, T_world_camera: Pose, texts: Sequence[str], stride: int
    ) -> NDArray[np.float32]:
        return rendered_relevancy(self._online, camera, T_world_camera, texts, stride)


class VoxelMethod(SurfaceMethod):
    """Crop embeddings averaged into surface voxels."""

    def __init__(self, online: OnlineMapper) -> None:
        super().__init__("voxels", voxel_average(online).surface(), online.encoder)


class CropVotesMethod(SurfaceMethod):
    """Per-view 2D crop relevancy, lifted by depth and voted in 3D."""

    def __init__(self, online: OnlineMapper) -> None:
        assert online.mapper.store is not None
        votes = CropVotes(online.mapper.config.voxel, online.mapper.store, online.encoder)
        super().__init__("crop_votes", votes, online.encoder)

    def answer(self, texts: Sequence[str], min_relevancy: float | None = None, max_targets: int = 1) -> list[Answer]:
        options = QueryOptions(max_targets=max_targets, min_relevancy=min_relevancy, scale_steps=1)
        return find_targets(self.surface, self.encoder, texts, options)


MethodFactory = Callable[[OnlineMapper], Method]
METHODS: dict[str, MethodFactory] = {"field": FieldMethod, "voxels": VoxelMethod, "crop_votes": CropVotesMethod}


def voxel_average(online: OnlineMapper) -> VoxelMap:
    """Voxels filled with the keyframes and crops that the map has."""
    store, layout = online.mapper.store, online.mapper.layout
    assert store is not None and layout is not None
    voxels = VoxelMap(online.mapper.config.voxel, layout, online.encoder.embed_dim, online.mapper.device)
    for slot in range(len(store)):
        frame = Frame(
            store.stamps_ns[slot],
            store.images[slot].cpu().numpy(),
            store.depth_z[slot].float().cpu().numpy(),
            store.camera,
            store.host_poses[slot],
        )
        voxels.add(frame, store.embeds[slot], store.valid[slot])
    return voxels


@torch.no_grad()
def rendered_relevancy(
    online: OnlineMapper, camera: Camera, T_world_camera: Pose, texts: Sequence[str], stride: int
) -> NDArray[np.float32]:
    """Relevancy (T, h, w) in a rendered view, see `Method.relevancy_view`; zeros before any crop is encoded."""
    mapper, encoder = online.mapper, online.encoder
    if mapper.store is None or not mapper.store.has_language:
        return np.zeros((len(texts), *grid_shape(camera, stride)), np.float32)
    rendering = mapper.render(camera, T_world_camera, stride=stride, features=True)
    assert rendering.features is not None and rendering.scale_min is not None and rendering.scale_max is not None
    scales = scale_sweep(rendering.scale_min, rendering.scale_max, VIEW_SCALES)  # colours alone: hardly a surface
    known = supervised(scales, rendering.scale_min, rendering.scale_max)
    asked = asked_embeds(encoder, texts)
    some = slice(None, None, max(1, rendering.depth_z.numel() // _CHOOSING_PIXELS))
    similarity = rendering.features[some].similarity(scales, asked)
    chosen = peak_scale(known_relevancy(similarity, known[:, some], len(texts), encoder))
    values = torch.empty(len(texts), rendering.depth_z.numel(), device=scales.device)
    for s in chosen.unique():
        own = (chosen == s).nonzero()[:, 0]
        similarity = rendering.features.similarity(scales[s : s + 1], torch.cat([asked[own], asked[len(texts) :]]))
        values[own] = known_relevancy(similarity, known[s : s + 1], len(own), encoder)[0].T
    return values.view(len(texts), *rendering.depth_z.shape).float().cpu().numpy()


def asked_embeds(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """(T + C, D): the texts, then the canonical phrases."""
    return encoder.encode_texts([*texts, *encoder.calibration.canonical_phrases])


def known_relevancy(similarity: Tensor, known: Tensor, texts: int, encoder: Encoder) -> Tensor:
    """Relevancy (S, N, T) of T texts.

    Args:
        similarity: (S, N, T + C) cosines with the texts and then the canonical phrases.
        known: (S, N) bool, where a point was trained at about that scale; relevancy is 0 elsewhere.
    """
    values = relevancy(similarity[..., :texts], similarity[..., texts:], encoder.calibration.k)
    return torch.where(known[..., None], values, 0.0)


def peak_scale(values: Tensor) -> Tensor:
    """(T,) int64: for each text the scale at which its relevancy, values (S, N, T), peaks highest."""
    return values.amax(dim=1).argmax(dim=0)


def grid_shape(camera: Camera, stride: int) -> tuple[int, int]:
    """(rows, columns) of every `stride`-th pixel from `stride // 2`."""
    return len(range(stride // 2, camera.height, stride)), len(range(stride // 2, camera.width, stride))


def splat(x_world: Tensor, camera: Camera, T_world_camera: Pose, stride: int) -> tuple[Tensor, Tensor]:
    """Which point each pixel of a strided view shows: the nearest of those whose 3 x 3 pixels cover it.

    Returns:
        (pixel (P,) flat index on the grid of the stride, point (P,) index), both int64.
    """
    T_camera_world = torch.from_numpy(np.linalg.inv(T_world_camera)).to(x_world)
    uv, depth_z = project(x_world @ T_camera_world[:3, :3].T + T_camera_world[:3, 3], camera)
    rows, columns = grid_shape(camera, stride)
    cell = ((torch.nan_to_num(uv, nan=-1e6).clamp(-1e6, 1e6) - stride // 2) / stride).round().long()
    number = torch.arange(len(x_world), device=x_world.device)
    pixels, points = [], []
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            u, v = cell[:, 0] + du, cell[:, 1] + dv
            inside = (depth_z > 0.05) & (u >= 0) & (u < columns) & (v >= 0) & (v < rows)
            pixels.append((v * columns + u)[inside])
            points.append(number[inside])
    pixel, point = torch.cat(pixels), torch.cat(points)
    order = torch.argsort(depth_z[point], stable=True)
    pixel, point = pixel[order], point[order]
    order = torch.argsort(pixel, stable=True)
    pixel, point = pixel[order], point[order]
    first = torch.ones_like(pixel, dtype=torch.bool)
    first[1:] = pixel[1:] != pixel[:-1]
    return pixel[first], point[first]
