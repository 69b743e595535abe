"""A vote of the views: what the keyframes that see a place say about a text, each by its own crops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lerf_ros.features.encoder import Encoder
from lerf_ros.host import on_device
from lerf_ros.kernels import runs_kernels
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
        text_embeds = encoder.encode_texts([*texts, *options.phrases(encoder.calibration)])
        self._logits, self._relevancy = judged(crops, text_embeds, len(texts), encoder.calibration.k)

    def best(self, count: int) -> Tensor:
        """The most relevant crops of each text, at most `count`: (T, C) int64, numbered as in `KeyframeCrops`."""
        return self._logits.topk(min(count, self._logits.shape[1]), dim=1).indices

    def places(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The middles of the most relevant crops of each text, at most `count`, see `KeyframeCrops.middles`.

        Returns:
            x_world (T, C, 3) m, map frame, and sizes (T, C) m, NaN where nothing was measured; and the shares (T, C) of
            the views that find the text there.
        """
        best = self.best(count)
        x_world, sizes = self.crops.middles(best.flatten())
        numbers = torch.arange(best.numel(), device=best.device) // best.shape[1]
        shares = self.shares(numbers, x_world)
        return x_world.view(*best.shape, 3), sizes.view(best.shape), shares.view(best.shape)

    def shares(self, numbers: Tensor, x_world: Tensor) -> Tensor:
        """The share of the views that find texts, by their numbers (P,) int64, at places (P, 3) m, map frame.

        One view: relevancy of each of its crops, interpolated between crops of one size; the best size counts. All
        views that see the place: the mean. Averaged embeddings blur what single views are sure of; this does not.
        Where our kernels run, one launch does it all, and agrees to rounding.

        Returns:
            (P,) in [0, 1]; NaN where no view with encoded crops sees the place.
        """
        numbers, x_world = (on_device(each, self._relevancy.device) for each in (numbers, x_world))
        if runs_kernels(self._relevancy.device):
            from lerf_ros.query.votes_triton import shares_triton  # not everywhere installed

            return shares_triton(self.crops.store, self._relevancy, numbers, x_world)
        return self.shares_torch(numbers, x_world)

    def shares_torch(self, numbers: Tensor, x_world: Tensor) -> Tensor:
        """Reference backend of `shares`."""
        parts = zip(numbers.split(_PLACES), x_world.split(_PLACES), strict=True)
        return torch.cat([self._shares_torch(*part) for part in parts])

    def _shares_torch(self, numbers: Tensor, x_world: Tensor) -> Tensor:
        at = self.crops.at(x_world)
        of_size = (at.weights * self._relevancy[numbers[:, None, None], at.crops]).sum(dim=-1)
        of_view = torch.where(at.encoded, of_size, 0.0).amax(dim=-1)  # (V, P)
        return of_view.sum(dim=0) / at.encoded.any(dim=-1).sum(dim=0)


def judged(crops: KeyframeCrops, text_embeds: Tensor, texts: int, k: float) -> tuple[Tensor, Tensor]:
    """How relevant all M crops are for texts; text_embeds (texts + canonical phrases, D), k of the encoder.

    Returns:
        logits (texts, M), which do not saturate, and relevancy (texts, M); -inf and 0 where a crop is not encoded.
    """
    if runs_kernels(text_embeds.device):
        from lerf_ros.query.votes_triton import judged_triton  # not everywhere installed

        return judged_triton(crops.store, crops.cosines(text_embeds), texts, k)
    return judged_torch(crops.similarity(text_embeds), texts, k)


def judged_torch(cosines: Tensor, texts: int, k: float) -> tuple[Tensor, Tensor]:
    """Reference backend of `judged`, from cosines (M, texts + canonical phrases), -inf where a crop is not encoded."""
    logits = relevancy_logit(cosines[:, :texts], cosines[:, texts:], k).nan_to_num(nan=-torch.inf, neginf=-torch.inf).T
    return logits, logits.sigmoid()
