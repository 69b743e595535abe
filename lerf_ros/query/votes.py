"""A vote of the views: what the keyframes that see a place say about a text, each by its own crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_device
from lerf_ros.mapping.keyframe_crops import KeyframeCrops
from lerf_ros.query.options import QueryOptions
from lerf_ros.query.relevancy import relevancy_logit

_PLACES = 256  # asked together


class Votes:
    """How relevant every single crop is for each of some texts, before anything is averaged.

    Args:
        texts: at least one.

    Attributes:
        crops, texts: the same.
    """

    def __init__(self, crops: KeyframeCrops, encoder: Encoder, texts: Sequence[str], options: QueryOptions) -> None:
        self.crops, self.texts = crops, list(texts)
        cosines = crops.similarity(encoder.encode_texts([*texts, *options.phrases(encoder.calibration)]))
        logits = relevancy_logit(cosines[:, : len(texts)], cosines[:, len(texts) :], encoder.calibration.k)
        self._logits = logits.nan_to_num(nan=-torch.inf, neginf=-torch.inf)  # (M, T); -inf where none is encoded
        self._relevancy = self._logits.sigmoid()

    def best(self, count: int) -> Tensor:
        """The most relevant crops of each text, at most `count`: (T, C) int64, numbered as in `KeyframeCrops`."""
        return self._logits.topk(min(count, len(self._logits)), dim=0).indices.T

    def shares(self, numbers: Tensor, x_world: Tensor) -> Tensor:
        """The share of the views that find texts, by their numbers (P,) int64, at places (P, 3) m, map frame.

        One view: relevancy of each of its crops, interpolated between crops of one size; the best size counts. All
        views that see the place: the mean. Averaged embeddings blur what single views are sure of; this does not.

        Returns:
            (P,) in [0, 1]; NaN where no view with encoded crops sees the place.
        """
        own = (on_device(each, self._relevancy.device).split(_PLACES) for each in (numbers, x_world))
        parts = zip(*own, strict=True)
        return torch.cat([self._shares(*part) for part in parts])

    def _shares(self, numbers: Tensor, x_world: Tensor) -> Tensor:
        at = self.crops.at(x_world)
        of_size = (at.weights * self._relevancy[at.crops, numbers[:, None, None]]).sum(dim=-1)
        of_view = torch.where(at.encoded, of_size, 0.0).amax(dim=-1)  # (V, P)
        return of_view.sum(dim=0) / at.encoded.any(dim=-1).sum(dim=0)
