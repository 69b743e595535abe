"""Image and text encoder: any open_clip model, the built-in mini CLIP included, behind one class."""

from __future__ import annotations

import difflib
import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from lerf_ros.captured import CapturedBatches
from lerf_ros.features.vision_transformer import FusedVisionTransformer, is_supported
from lerf_ros.features.word_tokenizer import WordTokenizer
from lerf_ros.kernels import has_bfloat16

MINI_CLIP = Path(__file__).parent / "mini_clip"
_CACHED_TEXTS = 4096
_CAPTURED_PIXELS = 2**20  # of the crops of one captured batch
_CAPTURED_TEXTS = 8  # of one captured batch


class EncoderError(RuntimeError):
    """The encoder cannot be loaded; the message says what to do."""


@dataclass(frozen=True)
class RelevancyCalibration:
    """What relevancy needs to know about an encoder (LERF, eq. 4 and 5): it travels with the weights.

    The defaults are those of LERF's code for OpenCLIP models (k = 10, four canonical phrases); 0.5 is where a text
    fits as well as the best-fitting canonical phrase, so a threshold a little above it means "clearly better".

    Attributes:
        k: inverse temperature.
        canonical_phrases: what relevancy is measured against.
        found_threshold: relevancy from which a place in a map counts as found.
        contrast: in [0, 1], how much of the similarity to the canonical phrases is taken off when places are ranked; 1
            ranks them by relevancy, as LERF does, 0 by the similarity to the text alone.
    """

    k: float = 10.0
    canonical_phrases: tuple[str, ...] = ("object", "things", "stuff", "texture")
    found_threshold: float = 0.55
    contrast: float = 1.0

    def __post_init__(self) -> None:
        if not (self.k > 0 and 0 < self.found_threshold < 1 and self.canonical_phrases and 0 <= self.contrast <= 1):
            raise ValueError(
                f"needs k > 0, 0 < found_threshold < 1, 0 <= contrast <= 1 and at least one canonical phrase: {self}"
            )

    @classmethod
    def from_file(cls, path: Path) -> RelevancyCalibration:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "canonical_phrases": tuple(values["canonical_phrases"])})


class Encoder:
    """Embeds image crops and texts into one space, in which cosines compare them. Inference only."""

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Callable[[list[str]], Tensor],
        calibration: RelevancyCalibration,
        dtype: torch.dtype = torch.float32,
    ):
        """``model``: an open_clip model whose weights are in ``dtype``; ``tokenizer``: texts -> (T, context) ids."""
        self.name = name
        self.calibration = calibration
        # channels_last: convolutions on a CPU take half the time, and far less when its cores are busy
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.tokenizer = tokenizer
        self.device = next(model.parameters()).device
        self.dtype = dtype
        size = self.model.visual.image_size
        self.image_size: int = size if isinstance(size, int) else size[0]
        preprocess = open_clip.get_model_preprocess_cfg(model)
        self._mean = torch.tensor(preprocess["mean"], device=self.device).view(3, 1, 1)
        self._std = torch.tensor(preprocess["std"], device=self.device).view(3, 1, 1)
        self._fused = FusedVisionTransformer(model.visual, self._mean, self._std) if is_supported(model) else None
        most = 1 << (max(1, _CAPTURED_PIXELS // self.image_size**2).bit_length() - 1)
        on_gpu = self.device.type == "cuda"
        self._captured = CapturedBatches(self._embed_plainly, most) if on_gpu and self._fused is None else None
        embed_tokens = self.model.encode_text
        is_captured = on_gpu and _is_plain_text(model)
        self._embed_tokens = CapturedBatches(embed_tokens, _CAPTURED_TEXTS, fewest=1) if is_captured else embed_tokens
        self._texts: OrderedDict[str, Tensor] = OrderedDict()
        self.embed_dim = self._embed_texts(["object"]).shape[-1]

    @torch.no_grad()
    def encode_images(self, crops: Tensor) -> Tensor:
        """Unit-norm embeddings (B, D) float32 of crops (B, 3, h, w), RGB in [0, 1], resized to the model's own size."""
        if crops.ndim != 4 or crops.shape[1] != 3 or 0 in crops.shape[2:]:
            raise ValueError(f"crops must be (B, 3, h, w) with h, w > 0, got {tuple(crops.shape)}")
        crops = crops.to(self.device, torch.float32)
        size = (self.image_size, self.image_size)
        if crops.shape[2:] != size:
            crops = F.interpolate(crops, size, mode="bilinear", antialias=True)
        return F.normalize(self._embed_images(crops).float(), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings (T, D) float32, cached. ValueError when a text is blank."""
        keys = [" ".join(text.split()) for text in texts]
        if not all(keys):
            raise ValueError("cannot encode an empty text")
        new = [key for key in dict.fromkeys(keys) if key not in self._texts]
        known = {key: self._texts[key] for key in keys if key in self._texts}
        known.update(zip(new, self._embed_texts(new) if new else ()))
        self._texts.update(known)
        for key in known:
            self._texts.move_to_end(key)
        while len(self._texts) > _CACHED_TEXTS:
            self._texts.popitem(last=False)
        return torch.stack([known[key] for key in keys]) if keys else torch.zeros(0, self.embed_dim, device=self.device)

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that the encoder has never seen; always empty for models with a sub-word vocabulary."""
        return self.tokenizer.unknown_words(text) if isinstance(self.tokenizer, WordTokenizer) else []

    @torch.no_grad()
    def rehearse(self) -> None:
        """Compiles and captures what encoding takes on a GPU, so that no question waits for it."""
        if isinstance(self._embed_tokens, CapturedBatches):
            tokens = self.tokenizer(["object"])
            self._embed_tokens.rehearse(tokens.shape[1:], self.device, tokens.dtype)
        if self._captured is not None:
            self._captured.rehearse((3, self.image_size, self.image_size), self.device)

    def _embed_images(self, crops: Tensor) -> Tensor:
        """Crops (B, 3, H, W) float32 of the model's own size -> (B, D), of any length."""
        if self._fused is not None and len(crops):
            return self._fused(crops)
        if self._captured is not None and len(crops):
            return self._captured(crops)
        return self._embed_plainly(crops)

    def _embed_plainly(self, crops: Tensor) -> Tensor:
        crops = ((crops - self._mean) / self._std).to(self.dtype, memory_format=torch.channels_last)
        return self.model.encode_image(crops)

    @torch.no_grad()
    def _embed_texts(self, texts: list[str]) -> Tensor:
        return F.normalize(self._embed_tokens(self.tokenizer(texts).to(self.device)).float(), dim=-1)


def load_encoder(model: str = "mini", pretrained: str = "", device: str | torch.device = "cpu") -> Encoder:
    """Loads ``"mini"`` (in the package) or any open_clip model.

    ``pretrained`` is one of open_clip's tags (downloaded once, then cached) or the path of a weights file; for
    ``"mini"``, empty means the packaged weights. CUDA devices with bf16 support use it, anything else float32.
    EncoderError when the name or tag is unknown, the file is missing or does not fit, or the download fails.
    """
    device = torch.device(device)
    if model == "mini":
        open_clip.add_model_config(MINI_CLIP / "mini.json")
        pretrained = pretrained or str(MINI_CLIP / "mini.safetensors")
        calibration = RelevancyCalibration.from_file(MINI_CLIP / "calibration.json")
    else:
        calibration = RelevancyCalibration()
    _check_names(model, pretrained)
    bf16 = has_bfloat16(device)
    try:
        network = open_clip.create_model(
            model, pretrained, precision="bf16" if bf16 else "fp32", device=device, require_pretrained=True
        )
        tokenizer = _tokenizer(model)
    except Exception as error:  # open_clip, huggingface_hub, safetensors and torch each raise their own kinds
        raise EncoderError(_advice(model, pretrained, error)) from error
    if isinstance(network.visual, ModifiedResNet):
        _fold_batch_norms(network.visual.eval())
    return Encoder(model, network, tokenizer, calibration, torch.bfloat16 if bf16 else torch.float32)


def _fold_batch_norms(module: nn.Module) -> None:
    """Puts every batch normalisation that follows a convolution into that convolution's weights: in inference both are
    linear, and a quarter of a small network's time on a CPU is normalisation."""
    children = list(module.named_children())
    for (name, child), (next_name, follower) in itertools.pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(follower, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, follower))
            setattr(module, next_name, nn.Identity())
    for _, child in children:
        _fold_batch_norms(child)


def _is_plain_text(model: Any) -> bool:
    """Whether texts are encoded by open_clip's own transformer, which asks the device for nothing."""
    return type(model) is CLIP or (type(model) is CustomTextCLIP and type(model.text) is TextTransformer)


def _tokenizer(model: str) -> Callable[[list[str]], Tensor]:
    if model == "mini":
        context_length = open_clip.get_model_config("mini")["text_cfg"]["context_length"]
        return WordTokenizer.from_file(MINI_CLIP / "vocabulary.txt", context_length)
    return open_clip.get_tokenizer(model)


def _check_names(model: str, pretrained: str) -> None:
    models = open_clip.list_models()
    if model not in models:
        close = difflib.get_close_matches(model, ["mini", *models], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "open_clip.list_models() lists them."
        raise EncoderError(f"no open_clip model is called '{model}'; {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags and not Path(pretrained).is_file():
        raise EncoderError(
            f"'{pretrained}' is neither a weights file nor a pretrained tag of {model}; "
            f"its tags are: {', '.join(tags) or 'none'}. Give one of them or the path of a file."
        )


def _advice(model: str, pretrained: str, error: Exception) -> str:
    if Path(pretrained).is_file():
        return f"the weights file {pretrained} is damaged or not made for {model}: {error}"
    source = open_clip.get_pretrained_cfg(model, pretrained)
    repository, _, filename = source.get("hf_hub", "").rpartition("/")
    where = f"https://huggingface.co/{repository}/resolve/main/{filename or 'open_clip_model.safetensors'}"
    return (
        f"{model} '{pretrained}' could not be downloaded ({error}). Without a network, fetch "
        f"{where if repository else source.get('url')} on another machine and give that file's path as 'pretrained', "
        "or use the built-in encoder 'mini'."
    )
