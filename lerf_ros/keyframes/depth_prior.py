"""A learned depth prior: a monocular network of transformers, which predicts inverse depth for every pixel.

Such networks know inverse depth only up to its scale and shift (Ranftl et al. 2020, "Towards robust monocular depth
estimation"); `depth_completion` finds these from the stereo depth of the same keyframe and fills in what stereo lacks.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

EXAMPLE = "depth-anything/Depth-Anything-V2-Small-hf"
_FILES = "config.json, preprocessor_config.json and model.safetensors"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MIN_DEPTH = 1e-3  # m, of networks that predict metric depth

# Model types of transformers whose output is known; whether it is depth (True) or inverse depth (False).
_PREDICTS_DEPTH: dict[str, Callable[[Any], bool]] = {
    "depth_anything": lambda config: config.depth_estimation_type == "metric",
    "depth_pro": lambda config: False,  # its image processor inverts, the network does not
    "dpt": lambda config: bool(config.add_projection),  # DINOv2's heads for NYU and KITTI: depth; MiDaS: inverse depth
    "glpn": lambda config: True,
    "zoedepth": lambda config: True,
}


class DepthPriorError(RuntimeError):
    """The depth prior cannot be loaded; the message says what to do."""


@dataclass(frozen=True)
class NetworkInput:
    """How a network wants its images, from the settings of its image processor.

    Attributes:
        height, width: px; None: the size of the image.
        keep_aspect_ratio: one of ``height`` and ``width`` is met only: the one that changes the image least.
        multiple: px; both sides are rounded to multiples of it (down where the image keeps its size).
        mean, std: per colour channel, of images in [0, 1].
    """

    height: int | None
    width: int | None
    keep_aspect_ratio: bool
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_processor(cls, processor: Any) -> NetworkInput:
        """From an image processor of transformers."""
        size = getattr(processor, "size", None) if getattr(processor, "do_resize", True) else None
        normalises = getattr(processor, "do_normalize", None)
        return cls(
            height=size["height"] if size else None,
            width=size["width"] if size else None,
            keep_aspect_ratio=bool(getattr(processor, "keep_aspect_ratio", False)),
            multiple=max(
                int(getattr(processor, "ensure_multiple_of", None) or getattr(processor, "size_divisor", None) or 1), 1
            ),
            mean=tuple(processor.image_mean) if normalises else (0.0, 0.0, 0.0),
            std=tuple(processor.image_std) if normalises else (1.0, 1.0, 1.0),
        )

    def size_for(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) that an image of ``height`` x ``width`` px is resized to; as in DPTImageProcessor."""
        if self.height is None or self.width is None:
            return max(height // self.multiple, 1) * self.multiple, max(width // self.multiple, 1) * self.multiple
        vertical, horizontal = self.height / height, self.width / width
        if self.keep_aspect_ratio:
            vertical = horizontal = min(vertical, horizontal, key=lambda factor: abs(1 - factor))
        rows, columns = round(vertical * height / self.multiple), round(horizontal * width / self.multiple)
        return max(rows, 1) * self.multiple, max(columns, 1) * self.multiple


class DepthPrior:
    """Predicts relative inverse depth from single images. Inference only, in float32.

    Attributes:
        name: what `load_depth_prior` was asked for.
    """

    def __init__(
        self, name: str, model: Any, network_input: NetworkInput, predicts_depth: bool, device: torch.device
    ) -> None:
        """``model``: pixels (1, 3, h, w) -> an object with ``predicted_depth`` (1, h', w')."""
        self.name = name
        self._model = model.to(device).float().eval().requires_grad_(False)
        self._network_input, self._predicts_depth, self._device = network_input, predicts_depth, device
        self._mean = torch.tensor(network_input.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(network_input.std, device=device).view(3, 1, 1)

    @torch.no_grad()
    def predict(self, image: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Relative inverse depth of an image.

        Args:
            image: (3, H, W), RGB in [0, 1], any float type and device.
            size: rows and columns of the result; that of the image when None.

        Returns:
            (H', W') float32 on the device of the prior: inverse depth up to an unknown scale and shift. Metric depth is
            inverted; what is not finite stays so.

        Raises:
            ValueError: ``image`` has another shape.
        """
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"the image must be (3, H, W) with H, W > 0, got {tuple(image.shape)}")
        height, width = image.shape[1:]
        pixels = image.to(self._device, torch.float32)[None]
        network_size = self._network_input.size_for(height, width)
        pixels = F.interpolate(pixels, network_size, mode="bilinear", antialias=True)
        predicted = self._model((pixels - self._mean) / self._std).predicted_depth.float()  # (1, h', w')
        relative = 1 / predicted.clamp(min=_MIN_DEPTH) if self._predicts_depth else predicted
        return F.interpolate(relative[:, None], size or (height, width), mode="bilinear", antialias=True)[0, 0]


def load_depth_prior(name: str, device: str | torch.device = "cpu") -> DepthPrior | None:
    """Loads a monocular depth model of transformers: Depth Anything (V1, V2), DPT, Depth Pro, ZoeDepth or GLPN.

    Nothing is downloaded unless it is asked for, and giving the name of a model on the Hugging Face hub is asking:

    - ``"none"``: no prior; transformers is not imported.
    - an existing folder with config.json, preprocessor_config.json and model.safetensors, as written by
      ``save_pretrained`` or ``hf download NAME --local-dir FOLDER``: never goes online.
    - ``owner/model``: taken from the local cache of the hub; downloaded once when it is not there.

    Anything else is refused before any network access. A relative path ``a/b`` that does not exist reads like a hub
    name; ``./a/b`` does not. Weights are read from safetensors files only, and no code of a repository is run.

    Raises:
        DepthPriorError: transformers is not installed, the name is neither, the hub cannot be reached, or there is
            another kind of model; the message says what to do.
    """
    if name == "none":
        return None
    folder = _folder(name)
    if folder is not None:
        _check_folder(folder)
    elif not _HUB_NAME.fullmatch(name) or Path(name).exists():
        raise DepthPriorError(
            f"'{name}' is neither a folder nor a name on the Hugging Face hub: give the folder that holds {_FILES}, a "
            f"name such as '{EXAMPLE}', or 'none' as 'depth.prior'"
        )
    try:
        transformers = importlib.import_module("transformers")  # optional, and takes seconds
    except ImportError as error:
        raise DepthPriorError(
            f"the depth prior '{name}' needs transformers, which cannot be imported ({error}): "
            "run `pip install transformers`, or use 'none' as 'depth.prior'"
        ) from error
    device = torch.device(device)
    try:
        if folder is not None:
            return _load(transformers, name, str(folder), True, device)
        try:
            return _load(transformers, name, name, True, device)  # a robot without a network must not wait for the hub
        except DepthPriorError:
            raise
        except Exception:  # not, or not completely, in the cache
            return _load(transformers, name, name, False, device)
    except DepthPriorError:
        raise
    except Exception as error:  # transformers, huggingface_hub, safetensors and torch each raise their own kinds
        raise DepthPriorError(_advice(name, folder, error)) from error


def _folder(name: str) -> Path | None:
    """The existing folder of this name."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # the home of a user that does not exist
        return None
    return path if name and path.is_dir() else None


def _check_folder(folder: Path) -> None:
    """DepthPriorError: no config.json, or one that transformers can only complete from the hub."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        backbone, backbone_config = config.get("backbone"), config.get("backbone_config")
    except (OSError, ValueError, AttributeError) as error:
        raise DepthPriorError(f"{folder} holds no model of transformers, which needs {_FILES} ({error})") from error
    if backbone and not backbone_config:
        raise DepthPriorError(
            f"{path} names its backbone '{backbone}' only, which would be looked up on the hub: load the "
            "model where there is a network, and write it to the folder with save_pretrained"
        )


def _load(transformers: ModuleType, name: str, source: str, only_local: bool, device: torch.device) -> DepthPrior:
    config = transformers.AutoConfig.from_pretrained(source, local_files_only=only_local)
    written_as = getattr(config, "architectures", None) or []
    if config.model_type not in _PREDICTS_DEPTH or (
        written_as and not any(architecture.endswith("ForDepthEstimation") for architecture in written_as)
    ):
        raise DepthPriorError(
            f"{name} is a model of the type '{config.model_type}' ({', '.join(written_as) or 'no architecture given'}) "
            f"and not a depth model of one of the types {', '.join(sorted(_PREDICTS_DEPTH))}: use one such as "
            f"'{EXAMPLE}', or 'none'"
        )
    processor = transformers.AutoImageProcessor.from_pretrained(source, local_files_only=only_local)
    model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
        source, config=config, local_files_only=only_local, use_safetensors=True, output_loading_info=True
    )
    # The first fusion layer of DPT has no use for its first residual unit, and MiDaS' files leave it out.
    missing = sorted(key for key in report["missing_keys"] if ".residual_layer1." not in key)
    if missing:
        raise DepthPriorError(
            f"the weights of {name} are incomplete: {len(missing)} are missing, such as {missing[0]}; the files are "
            "damaged or of another kind of model"
        )
    predicts_depth = _PREDICTS_DEPTH[config.model_type](config)
    return DepthPrior(name, model, NetworkInput.from_processor(processor), predicts_depth, device)


def _advice(name: str, folder: Path | None, error: Exception) -> str:
    reason = " ".join(str(error).split())  # those of transformers have several lines
    if folder is not None:
        return f"{folder} cannot be loaded as a depth model, which needs {_FILES} that belong together: {reason}"
    return (
        f"the depth model {name} could not be loaded from the Hugging Face hub ({reason}). Without a network, run "
        f"`hf download {name} --local-dir FOLDER` on another machine, copy the folder and give its path as "
        "'depth.prior', or use 'none'."
    )
