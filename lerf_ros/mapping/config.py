"""Every number of the map in one tree of dataclasses, with presets and overrides by dotted name."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import ScaleInput
from lerf_ros.geometry.units import METRES, Units

TUNABLE = ("keyframe.translation", "keyframe.rotation", "replay.recent")
"""Settings that may change in the midst of mapping."""

ProposalKind = Literal["grid", "networks"]
"""Where rays without known depth are sampled: ``grid``, a coarse density grid that follows the field; ``networks``,
trained proposal networks (Nerfacto)."""

Decoding = Literal["blend", "sampled", "per_sample"]
"""From the features along a ray to its embedding; training and asking use the same quantity:

- ``blend``: the hash features of the heaviest samples are blended by weight, the head decodes the blend once;
- ``sampled``: training decodes one sample, drawn in proportion to its weight; asking decodes the surface point;
- ``per_sample``: the head decodes each of the heaviest samples and the embeddings are blended by weight (LERF).
"""


@dataclass(frozen=True)
class SceneConfig:
    """The mapped volume. What is unset is found from the depth of the first keyframe, and grows when the robot sees
    beyond it."""

    center: tuple[float, float, float] | None = None  # m, map frame
    radius: float | None = None  # m; beyond it space is contracted
    margin: float = 1.3  # of the automatic volume around what has been seen
    near: float = 0.15  # m along the ray
    far: float = 8.0  # m along the ray
    units: Units = METRES  # of poses, and so of all lengths; maps of scenes without a scale: "scene units"


@dataclass(frozen=True)
class KeyframeConfig:
    """When a frame becomes a keyframe, and how many are kept."""

    capacity: int = 300
    translation: float = 0.15  # m from the nearest keyframe
    rotation: float = 0.20  # rad from the nearest keyframe
    unseen_share: float = 0.25  # a frame that sees more unmapped volume than this is taken, moved or not
    unseen_voxel: float = 0.25  # m, the cells in which "unmapped" is counted
    blur_ratio: float = 0.5  # sharpness below this share of the recent median counts as blurred
    blur_wait: int = 4  # frames that a blurred candidate waits for a sharper neighbour


@dataclass(frozen=True)
class RadianceConfig:
    """Density and colour (Nerfacto's field)."""

    grid: HashGridConfig = HashGridConfig(levels=16, features=2, log2_table=19, min_resolution=16, max_resolution=2048)
    hidden: int = 64
    geometry_features: int = 15
    exposure: bool = False  # one learned gain per keyframe and colour channel


@dataclass(frozen=True)
class LanguageConfig:
    """Embeddings at a scale (LERF's field)."""

    coarse_grid: HashGridConfig = HashGridConfig(
        levels=12, features=8, log2_table=19, min_resolution=16, max_resolution=128
    )
    fine_grid: HashGridConfig = HashGridConfig(
        levels=12, features=8, log2_table=19, min_resolution=128, max_resolution=512
    )
    hidden: int = 256
    layers: int = 4
    samples: int = 8  # heaviest samples of a ray that are blended
    decoding: Decoding = "blend"
    scale: ScaleInput = "physical"


@dataclass(frozen=True)
class SamplingConfig:
    """Where along a ray the field is asked."""

    rays: int = 4096  # per step
    samples: int = 48  # per ray in a step
    surface_share: float = 0.5  # of a ray's samples that lie around its known depth, within three standard deviations
    depth_free_share: float = 0.3  # of the rays are sampled without their depth, as in rendering
    proposal: ProposalKind = "grid"
    explore: float = 0.5  # of the samples of a ray whose depth is to guide it and is not known is spread evenly
    proposal_resolution: int = 128  # cells per axis of the proposal grid
    proposal_bins: int = 128  # bins per ray in the proposal grid
    render_samples: int = 64  # per ray in rendering
    render_chunk: int = 32768  # rays per chunk in rendering


@dataclass(frozen=True)
class DepthConfig:
    """Depth from several views where no depth camera has measured it, see `stereo_depth`."""

    stereo: bool = True
    rows: int = 240  # of the images that are matched; at most those of the keyframes
    planes: int = 128  # depths that are compared, from infinity on; their disparities differ by a pixel at most
    sources: int = 6  # views that a keyframe is matched with
    between: int = 16  # frames that are kept to match keyframes with, the latest that did not become one
    time_share: float = 0.4  # of the working time, while keyframes wait that could be matched better
    prior: str = "none"  # a monocular depth model: none, a folder, or owner/model; see `keyframes.depth_prior`


@dataclass(frozen=True)
class ProposalNetworksConfig:
    """Nerfacto's proposal networks, for ``sampling.proposal = networks``: one entry per round."""

    bins: tuple[int, ...] = (256, 96)  # per ray
    max_resolutions: tuple[int, ...] = (128, 256)
    levels: int = 5
    features: int = 2
    log2_table: int = 17
    hidden: int = 16
    anneal_steps: int = 1000  # until their weights are taken as they are


@dataclass(frozen=True)
class ReplayConfig:
    """Which keyframes the rays of a step come from."""

    recent: float = 0.3  # share of the rays that comes from new keyframes, while there are any
    recent_keyframes: int = 8  # how many are new at most ...
    recent_steps: int = 200  # ... and for how many steps
    language: float = 0.5  # share of the rays that also carries language, from keyframes with encoded crops


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; colour has weight 1."""

    depth: float = 0.2
    sight: float = 0.1  # free space before, and density at, the measured surface
    sight_sigma: float = 0.02  # m, thickness of a measured surface
    distortion: float = 0.002
    near_field: float = 1.0  # m; gradients nearer than this are scaled down where no keyframe has depth: no floaters
    interlevel: float = 1.0  # trains proposal networks, and nothing else
    language: float = 0.1  # LERF's
    dino: float = 0.05  # of 1 for a head that knows only the mean feature; the language loss of one is about as large
    exposure: float = 0.1  # pulls the gains to 1


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam, one learning rate per kind of parameter."""

    grid_rate: float = 1e-2
    network_rate: float = 2e-3
    language_grid_rate: float = 1e-2
    language_network_rate: float = 1e-3
    exposure_rate: float = 1e-3
    warm_up: int = 100  # steps of linear warm-up
    half_life: int = 2000  # the rate falls as 1 / (1 + step / half_life) ...
    rate_floor: float = 0.1  # ... down to this share, so that a running robot keeps learning


@dataclass(frozen=True)
class RefinementConfig:
    """Poses of keyframes, refined together from what their images show; see `pose_adjustment`. They stay as they were
    given unless they have errors beyond chance, and where lengths are in scene units."""

    enabled: bool = True
    translation: float = 0.03  # m per axis, standard deviation of the error of a given position, and ...
    rotation: float = 0.03  # rad per axis, ... of a given orientation: the larger, the less given poses are trusted
    every_keyframes: int = 10  # new ones, from one adjustment to the next
    time_share: float = 0.5  # of one processor core, while there is something to adjust


@dataclass(frozen=True)
class PyramidConfig:
    """LERF's crop pyramid and the budget for encoding it."""

    fractions: tuple[float, ...] = (0.05, 0.125, 0.2, 0.275, 0.35, 0.425, 0.5)  # crop side / image height
    strides: tuple[float, ...] | None = None  # stride / crop side; LERF's when unset
    batch: int = 256  # crops per unit of work
    time_share: float = 0.7  # of the working time, in which crops that wait are encoded (on a GPU beside training) ...
    urgent_share: float = 0.8  # ... while some of them are coarse: a new keyframe shall be asked about at once
    coarse: float = 0.2  # crop side / image height from which on crops are coarse


@dataclass(frozen=True)
class DenseConfig:
    """Dense features of whole images, which regularise the language field (LERF: DINO); see `features.dense`."""

    model: str = "none"  # none, auto, clip-tokens or a vision transformer of timm
    pretrained: str = ""  # weights file; empty: timm's own weights
    rows: int = 30  # of patches over the image height


@dataclass(frozen=True)
class SurfaceConfig:
    """The points at which questions are answered."""

    spacing: float = 0.02  # m, at most one point per cell of this size
    min_opacity: float = 0.5
    max_spread: float = 0.15  # standard deviation of the depth along the ray / median depth


@dataclass(frozen=True)
class CloseUpConfig:
    """Crops of the keyframes that are cut and encoded for a question, in a closer look at a place."""

    share: float = 0.9  # what they count beside the field; 0: the field is asked alone
    views: int = 4  # keyframes: those that show the place best
    fractions: tuple[float, ...] = (0.05, 0.075, 0.11, 0.17, 0.25, 0.375, 0.5)  # crop side / image height
    stride: float = 0.3  # / crop side
    crops: int = 10000  # to encode of each of them at most, coarse ones first
    seconds: float = 0.25  # of encoding for one question, at the pace measured last; the next one goes on; 0: no bound
    batch: int = 1024  # crops encoded at a time at most; fewer where they are large
    memory_mb: int = 512  # of embeddings that are kept for the next question
    scale_bins: int = 10  # evenly spaced in log scale ...
    scale_min: float = 0.02  # m ... from here
    scale_max: float = 2.0  # m ... to here


@dataclass(frozen=True)
class VoxelConfig:
    """The baseline without training: crop embeddings averaged into surface voxels."""

    size: float = 0.03  # m
    capacity: int = 60000  # voxels
    pixel_stride: int = 8  # every n-th pixel of a keyframe is entered
    scale_bins: int = 8  # evenly spaced in log scale ...
    scale_min: float = 0.03  # m ... from here
    scale_max: float = 2.0  # m ... to here


@dataclass(frozen=True)
class MapperConfig:
    """The whole map. Names of single values are dotted: ``keyframe.translation``."""

    scene: SceneConfig = field(default_factory=SceneConfig)
    keyframe: KeyframeConfig = field(default_factory=KeyframeConfig)
    radiance: RadianceConfig = field(default_factory=RadianceConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    depth: DepthConfig = field(default_factory=DepthConfig)
    proposal: ProposalNetworksConfig = field(default_factory=ProposalNetworksConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    pyramid: PyramidConfig = field(default_factory=PyramidConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)
    surface: SurfaceConfig = field(default_factory=SurfaceConfig)
    close_up: CloseUpConfig = field(default_factory=CloseUpConfig)
    voxel: VoxelConfig = field(default_factory=VoxelConfig)

    def values(self) -> dict[str, Any]:
        """All values by dotted name; ``MapperConfig().override(config.values()) == config``."""
        return dict(_leaves(self, ""))

    def override(self, values: Mapping[str, Any]) -> MapperConfig:
        """A copy with some values replaced.

        Args:
            values: dotted name -> value. Lists stand for tuples and whole numbers for floats, as in YAML and JSON.

        Raises:
            ValueError: unknown name (the closest known ones are listed) or a value of the wrong type.
        """
        config = self
        for name, value in values.items():
            config = _replaced(config, name.split("."), value, name)
        return config


def _leaves(node: Any, prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for f in fields(node):
        value = getattr(node, f.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{f.name}.")
        else:
            yield f"{prefix}{f.name}", value


def _replaced(node: Any, path: list[str], value: Any, name: str) -> Any:
    hints = typing.get_type_hints(type(node))
    head, rest = path[0], path[1:]
    if head not in hints:
        raise ValueError(f"there is no setting {name!r}; here the names are {', '.join(sorted(hints))}")
    current = getattr(node, head)
    if is_dataclass(current):
        if not rest:
            raise ValueError(
                f"{name!r} is a group of settings; name one of {', '.join(f.name for f in fields(current))}"
            )
        return replace(node, **{head: _replaced(current, rest, value, name)})
    if rest:
        raise ValueError(f"there is no setting {name!r}: {head!r} is a single value")
    return replace(node, **{head: _converted(value, hints[head], name)})


def _converted(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint` (bool, int, float, one of several words, tuples of them, or None where allowed)."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        if value is None:
            return None
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list of numbers, not {value!r}")
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise ValueError(f"{name} must have {len(kinds)} values, not {len(value)}")
        return tuple(_converted(v, kinds[0], name) for v in value)
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise ValueError(f"{name} must be one of {', '.join(typing.get_args(hint))}, not {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} must be of type {hint.__name__}, not {value!r}")
    if hint is int and value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
    lowest = -math.inf if name == "scene.center" else 0.0
    if hint is float and not (math.isfinite(value) and value >= lowest):
        raise ValueError(f"{name} must be a finite number of at least {lowest}, not {value}")
    return value


_ROBOT = {  # 8 to 16 GB GPUs
    "radiance.grid.log2_table": 18,
    "language.coarse_grid.levels": 8,
    "language.coarse_grid.features": 4,
    "language.coarse_grid.log2_table": 18,
    "language.fine_grid.levels": 8,
    "language.fine_grid.features": 4,
    "language.fine_grid.log2_table": 18,
    "sampling.samples": 32,
    "sampling.render_samples": 48,
    "keyframe.capacity": 200,
    "close_up.crops": 400,
}
_CPU = {  # two cores, no GPU: held-out quality per CPU second decided
    "radiance.grid.levels": 10,
    "radiance.grid.log2_table": 16,
    "radiance.grid.max_resolution": 1024,
    "radiance.hidden": 32,
    "language.coarse_grid.levels": 5,
    "language.coarse_grid.features": 4,
    "language.coarse_grid.log2_table": 15,
    "language.coarse_grid.max_resolution": 64,
    "language.fine_grid.levels": 3,
    "language.fine_grid.features": 4,
    "language.fine_grid.log2_table": 16,
    "language.fine_grid.min_resolution": 96,
    "language.fine_grid.max_resolution": 320,
    "language.hidden": 128,
    "language.layers": 3,
    "language.samples": 3,
    "replay.language": 0.75,
    "sampling.rays": 1024,
    "sampling.samples": 12,
    "depth.rows": 120,
    "depth.planes": 64,
    "sampling.proposal_resolution": 96,
    "sampling.proposal_bins": 48,
    "sampling.render_samples": 24,
    "sampling.render_chunk": 8192,
    "keyframe.capacity": 120,
    "optimiser.grid_rate": 0.02,
    "optimiser.network_rate": 0.005,
    "optimiser.language_grid_rate": 0.02,
    "optimiser.language_network_rate": 0.003,
    # 523 crops a frame instead of 1,148: half of LERF's are of the smallest size, and there is no time for them.
    "pyramid.fractions": (0.125, 0.2, 0.3, 0.4, 0.5),
    "pyramid.strides": (0.62, 0.5, 0.5, 0.5, 0.5),
    "pyramid.batch": 64,
    "pyramid.time_share": 0.4,
    "pyramid.urgent_share": 0.4,
    "dense.rows": 15,
    "close_up.views": 2,  # half the encoding of 4
    "close_up.stride": 0.4,
    "close_up.seconds": 0.0,  # answers do not depend on how busy the cores are
    "close_up.batch": 64,
}
_BASE = MapperConfig()  # LERF's sizes
PRESETS: dict[str, MapperConfig] = {"cpu": _BASE.override(_CPU), "robot": _BASE.override(_ROBOT), "base": _BASE}
