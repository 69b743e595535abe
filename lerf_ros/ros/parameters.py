"""Every parameter of the node `lerf`, in one table, and what the values mean to the parts of the node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from lerf_ros.geometry.poses import AXES, pose_from_quaternion
from lerf_ros.geometry.units import METRES, SCENE_UNITS
from lerf_ros.mapping.config import PRESETS, MapperConfig
from lerf_ros.query.options import QueryOptions
from lerf_ros.ros.assembly import DEPTH_USES, AssemblyOptions
from lerf_ros.ros.autosave import SavePlan
from lerf_ros.ros.conversions import CameraMount
from lerf_ros.ros.declarations import Parameter, ParameterError, Parameters, Read, Settings
from lerf_ros.ros.pace import Limits
from lerf_ros.ros.pose_sources import POSE_SOURCES, PoseOptions

RELIABILITIES = ("best_effort", "reliable")
IMAGE_TRANSPORTS, DEPTH_TRANSPORTS = ("raw", "compressed"), ("raw", "compressedDepth", "compressed")
_BASE_PRESET_BYTES = 20e9


def _qos(
    name: str, reliability: str, depth: int, advice: str = "", read: Read = Read.ACTIVATE
) -> tuple[Parameter, ...]:
    """Rows for the quality of service of a topic, or of several that go together."""
    return (
        Parameter(f"qos.{name}.reliability", reliability, f"of ~/{name}{advice}", choices=RELIABILITIES, read=read),
        Parameter(f"qos.{name}.depth", depth, f"messages of ~/{name} that DDS keeps", 1, 1000, read=read),
    )


LERF_PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        False,
        "configure and activate without being asked; leave false when launch does it",
        read=Read.START,
    ),
    Parameter("device", "auto", "'cpu', 'cuda', 'cuda:1' ...; auto: a GPU when there is one"),
    Parameter(
        "preset",
        "auto",
        "sizes of the map; auto: cpu without a GPU, robot below 20 GB of GPU memory, else base",
        choices=("auto", "cpu", "robot", "base"),
    ),
    Parameter(
        "encoder.model", "mini", "'mini' (built in, works offline, a few hundred words) or an open_clip model name"
    ),
    Parameter("encoder.pretrained", "", "open_clip's pretrained tag or the path of a local file; empty for 'mini'"),
    Parameter(
        "dense.model",
        "",
        "features of whole images that sharpen language: none, auto, clip-tokens (built in) or a timm ViT, "
        "e.g. vit_small_patch8_224.dino; empty: the preset's",
    ),
    Parameter("dense.pretrained", "", "weights file for a timm ViT; empty: downloaded once"),
    Parameter("map.frame", "map", "frame of poses and targets, z up", read=Read.ACTIVATE),
    Parameter(
        "map.units",
        METRES,
        "of poses and depth, and so of all answers; scene units: the scale of the poses is unknown (COLMAP)",
        choices=(METRES, SCENE_UNITS),
    ),
    Parameter(
        "map.path", "lerf_map", "folder that save_map and load_map use when the request names none", read=Read.ALWAYS
    ),
    Parameter("map.load", False, "load map.path when the node is configured"),
    Parameter("map.autosave", 0.0, "min from one save of the map to map.path to the next; 0: none", 0.0, 1e5),
    Parameter("map.save_on_shutdown", False, "save the map to map.path at cleanup and when the node ends"),
    Parameter("map.overrides", [""], "any other number of the preset as 'name=value', e.g. 'sampling.samples=32'"),
    Parameter(
        "scene.center", [0.0, 0.0, 0.0], "m, centre of the mapped volume in the map frame, with scene.radius > 0"
    ),
    Parameter("scene.radius", 0.0, "m, radius of the mapped volume; 0: both from the first keyframe's depth", 0.0, 1e4),
    Parameter(
        "cameras",
        [""],
        "names of several cameras, with inputs ~/NAME/image ... and NAME.pose.xyz, .quaternion and .axes each; "
        "empty: one camera without a name",
        read=Read.ACTIVATE,
    ),
    Parameter(
        "image.transport",
        "raw",
        "compressed: CompressedImage on ~/image/compressed",
        choices=IMAGE_TRANSPORTS,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "image.rectified", False, "images are rectified (image_proc): their camera is CameraInfo.p", read=Read.ACTIVATE
    ),
    Parameter(
        "depth.use",
        "auto",
        "auto: used when it comes; required: images without it are dropped",
        choices=DEPTH_USES,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "depth.prior",
        "none",
        "monocular depth model that completes the depth found by stereo: none, the folder of a transformers model, or "
        "owner/model on the Hugging Face hub, which is then downloaded",
    ),
    Parameter(
        "depth.transport",
        "raw",
        "as image.transport, on ~/depth/compressedDepth or ~/depth/compressed",
        choices=DEPTH_TRANSPORTS,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "depth.check_frame",
        True,
        "depth in another frame than the image is not registered; false: it is, all the same",
        read=Read.ACTIVATE,
    ),
    Parameter(
        "pose.source",
        "pose",
        "type of ~/pose: PoseStamped, PoseWithCovarianceStamped or Odometry; tf: no topic, the image's frame in TF",
        choices=POSE_SOURCES,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "pose.child_frame",
        "",
        "frame that ~/pose moves; empty: Odometry's child_frame_id, or the camera's own",
        read=Read.ACTIVATE,
    ),
    Parameter(
        "pose.extrinsics",
        "parameters",
        "where the camera sits on pose.child_frame: pose.xyz and pose.quaternion, or tf",
        choices=("parameters", "tf"),
        read=Read.ACTIVATE,
    ),
    Parameter(
        "pose.axes",
        "optical",
        "axes of the camera frame: optical (z forward) or body (x forward)",
        choices=AXES,
        read=Read.ACTIVATE,
    ),
    Parameter("pose.xyz", [0.0, 0.0, 0.0], "m, position of the camera in pose.child_frame", read=Read.ACTIVATE),
    Parameter(
        "pose.quaternion",
        [0.0, 0.0, 0.0, 1.0],
        "x, y, z, w: orientation of the camera in pose.child_frame",
        read=Read.ACTIVATE,
    ),
    Parameter(
        "sync.slop",
        0.02,
        "s, how far the stamp of depth may be from the image's; 0: the same stamp",
        0.0,
        10.0,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "sync.pose_gap",
        0.25,
        "s, two poses this close together are interpolated between",
        0.0,
        10.0,
        read=Read.ACTIVATE,
    ),
    Parameter(
        "sync.pose_slop",
        0.02,
        "s, the nearest pose serves where no two lie around the image",
        0.0,
        10.0,
        read=Read.ACTIVATE,
    ),
    Parameter("sync.wait", 0.5, "s, how long an image waits for what belongs to it", 0.0, 60.0, read=Read.ACTIVATE),
    Parameter(
        "sync.queue",
        30,
        "images, camera_infos and depth images that are kept for matching",
        1,
        1000,
        read=Read.ACTIVATE,
    ),
    Parameter("sync.pose_queue", 1000, "poses that are kept for matching", 2, 100_000, read=Read.ACTIVATE),
    *_qos("image", "best_effort", 10, "; best_effort takes from every publisher"),
    *_qos("camera_info", "best_effort", 10),
    *_qos("depth", "best_effort", 10),
    *_qos("pose", "best_effort", 10),
    *_qos("corrected_poses", "reliable", 1),
    *_qos("status", "reliable", 10, read=Read.START),
    *_qos("targets", "reliable", 1, ", ~/target, ~/target_with_covariance and ~/markers, latched", read=Read.START),
    *_qos("keyframes", "reliable", 1, " and ~/keyframes/frusta, which are latched", read=Read.START),
    Parameter("keyframe.capacity", 0, "keyframes kept at most; 0: the preset's", 0, 100_000),
    Parameter(
        "keyframe.translation",
        0.0,
        "m from the nearest keyframe to a new one; 0: the preset's",
        0.0,
        100.0,
        read=Read.ALWAYS,
    ),
    Parameter(
        "keyframe.rotation",
        0.0,
        "rad from the nearest keyframe to a new one; 0: the preset's",
        0.0,
        math.pi,
        read=Read.ALWAYS,
    ),
    Parameter(
        "replay.recent",
        -1.0,
        "[0, 1], share of the rays that comes from new keyframes; negative: the preset's",
        -1.0,
        1.0,
        read=Read.ALWAYS,
    ),
    Parameter(
        "training.enabled",
        True,
        "false: frames are ignored, the node only answers (from a loaded map)",
        read=Read.ACTIVATE,
    ),
    Parameter("training.rays", 0, "rays a step; 0: the preset's", 0, 1_000_000),
    Parameter("training.threads", 0, "CPU threads of the mapper; 0: PyTorch's choice", 0, 1024),
    Parameter("training.max_rate", 0.0, "training steps/s at most; 0: no limit", 0.0, 1e6, read=Read.ALWAYS),
    Parameter(
        "training.time_share",
        1.0,
        "of the time, at most, that training and encoding take; questions come on top",
        0.01,
        1.0,
        read=Read.ALWAYS,
    ),
    Parameter(
        "training.idle_steps",
        10_000,
        "training ends so many steps after the last new keyframe or correction, until there is another; 0: never",
        0,
        1_000_000_000,
        read=Read.ALWAYS,
    ),
    Parameter("training.seed", 0, "of all random numbers", 0, 2**31 - 1),
    Parameter("query.max_targets", 5, "targets of an answer when the request says 0", 1, 1000, read=Read.ALWAYS),
    Parameter(
        "query.min_relevancy",
        -1.0,
        "[0, 1], what counts as found; negative: the encoder's own",
        -1.0,
        1.0,
        read=Read.ALWAYS,
    ),
    Parameter(
        "query.max_points",
        0,
        "surface points at which a question is answered; 0: by device",
        0,
        10_000_000,
        read=Read.ALWAYS,
    ),
    Parameter(
        "query.max_age",
        1.0,
        "s, surface points may be behind the map while it is trained",
        0.0,
        3600.0,
        read=Read.ALWAYS,
    ),
    Parameter("status.rate", 2.0, "Hz of ~/status", 0.1, 100.0, read=Read.ALWAYS),
)


LIMITS = ("max_rate", "time_share", "idle_steps")  # of training, below `training`


def _map_can_be_made(parameters: Settings) -> None:
    mapper_config(parameters, preset_name(parameters, torch_device(parameters)))


def declare_cameras(parameters: Parameters) -> list[str]:
    """Declares what each of several cameras has of its own; what is not set for it is as for all.

    Returns:
        The names of the cameras; one empty name when they have none.
    Raises:
        ParameterError: a name that cannot be part of a topic, or twice the same.
    """
    names = list(filter(None, parameters["cameras"]))
    if len(set(names)) < len(names) or not all(name.isidentifier() for name in names):
        raise ParameterError(f"parameter cameras is {names}; it needs different names of letters, digits and _")
    common = {parameter.name: parameter for parameter in LERF_PARAMETERS}
    for camera in names:
        for name in ("pose.xyz", "pose.quaternion", "pose.axes"):
            description = f"{common[name].description}; of camera '{camera}'"
            own = replace(common[name], name=f"{camera}.{name}", default=parameters[name], description=description)
            parameters.declare([own])
    return names or [""]


def assembly_options(parameters: Settings) -> AssemblyOptions:
    """Parameters -> how the messages of a camera are matched."""
    return AssemblyOptions(
        slop=parameters["sync.slop"],
        wait=parameters["sync.wait"],
        depth=parameters["depth.use"],
        queue=parameters["sync.queue"],
        rectified=parameters["image.rectified"],
        same_frame=parameters["depth.check_frame"],
    )


def pose_options(parameters: Settings) -> PoseOptions:
    """Parameters -> how pose messages become the poses of images."""
    return PoseOptions(
        map_frame=parameters["map.frame"],
        child_frame=parameters["pose.child_frame"],
        slop=parameters["sync.pose_slop"],
        gap=parameters["sync.pose_gap"],
        queue=parameters["sync.pose_queue"],
    )


def camera_mount(parameters: Settings, prefix: str = "") -> CameraMount:
    """Parameters PREFIXpose.xyz, .quaternion and .axes -> how the camera sits on the frame that is posed.

    Raises:
        ParameterError: not a rigid transform.
    """
    position, orientation = parameters[f"{prefix}pose.xyz"], parameters[f"{prefix}pose.quaternion"]
    try:
        return CameraMount(parameters[f"{prefix}pose.axes"], pose_from_quaternion(position, orientation))
    except ValueError as error:
        raise ParameterError(f"parameters {prefix}pose.xyz, {prefix}pose.quaternion: {error}") from error


def mapper_config(parameters: Settings, preset: str) -> MapperConfig:
    """Preset + what the parameters change.

    Raises:
        ParameterError: unknown name or unusable value in map.overrides.
    """
    values: dict[str, Any] = {"scene.units": parameters["map.units"]}
    if parameters["scene.radius"] > 0:
        values |= {"scene.center": parameters["scene.center"], "scene.radius": parameters["scene.radius"]}
    for name, setting in (
        ("keyframe.capacity", "keyframe.capacity"),
        ("keyframe.translation", "keyframe.translation"),
        ("keyframe.rotation", "keyframe.rotation"),
        ("training.rays", "sampling.rays"),
    ):
        if parameters[name] > 0:
            values[setting] = parameters[name]
    if parameters["replay.recent"] >= 0:
        values["replay.recent"] = parameters["replay.recent"]
    for name in ("dense.model", "dense.pretrained", "depth.prior"):
        if parameters[name]:
            values[name] = parameters[name]
    for override in filter(None, parameters["map.overrides"]):
        setting, equals, value = override.partition("=")
        if not equals:
            raise ParameterError(f"map.overrides: '{override}' is not of the form 'name=value'")
        values[setting.strip()] = yaml.safe_load(value)
    try:
        return PRESETS[preset].override(values)
    except ValueError as error:
        raise ParameterError(f"map.overrides: {error}") from error


def query_options(parameters: Settings, max_targets: int, min_relevancy: float, phrases: Sequence[str]) -> QueryOptions:
    """What a request says, completed by the parameters (max_targets 0, min_relevancy negative, no phrases)."""
    threshold = min_relevancy if min_relevancy >= 0 else parameters["query.min_relevancy"]
    return QueryOptions(
        max_targets=int(max_targets) or parameters["query.max_targets"],
        min_relevancy=float(threshold) if threshold >= 0 else None,
        canonical_phrases=tuple(str(phrase) for phrase in phrases) or None,
    )


def save_plan(parameters: Settings) -> SavePlan:
    """When the map is saved without being asked."""
    path = Path(parameters["map.path"]).expanduser()
    return SavePlan(path, 60.0 * parameters["map.autosave"], parameters["map.save_on_shutdown"])


def training_limits(parameters: Settings) -> Limits:
    """What training may take."""
    return Limits(**{name: parameters[f"training.{name}"] for name in LIMITS})


def qos_profile(parameters: Settings, name: str, latched: bool = False) -> QoSProfile:
    """QoS of the topic ~/`name`; latched: who comes later gets the last messages, too."""
    reliable = parameters[f"qos.{name}.reliability"] == "reliable"
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=parameters[f"qos.{name}.depth"],
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def torch_device(parameters: Settings) -> torch.device:
    """Parameter `device` -> a device that exists.

    Raises:
        ParameterError: unknown, or a GPU that PyTorch does not see.
    """
    name = parameters["device"]
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ParameterError(f"parameter device is '{name}'; it can be auto, cpu, cuda, cuda:1 ...") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ParameterError(
            f"parameter device is '{name}', but PyTorch sees {torch.cuda.device_count()} GPUs: check nvidia-smi and "
            "that this PyTorch is built for CUDA, or use device: cpu"
        )
    return device


def preset_name(parameters: Settings, device: torch.device) -> str:
    """Parameter `preset`, or what fits the device."""
    if parameters["preset"] != "auto":
        return parameters["preset"]
    if device.type == "cpu":
        return "cpu"
    memory = torch.cuda.get_device_properties(device).total_memory
    return "base" if memory >= _BASE_PRESET_BYTES else "robot"


LERF_CHECKS = (camera_mount, torch_device, _map_can_be_made)
"""What a change has to pass: those who read the values raise ParameterError when they cannot use them."""
