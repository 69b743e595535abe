"""How well texts fit surface points over a range of scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lerf_ros.features.encoder import Encoder, RelevancyCalibration
from lerf_ros.mapping.surface import AskedSurface
from lerf_ros.query.options import QueryOptions


@dataclass(frozen=True)
class Sweep:
    """How well a text fits each of N surface points at S scales.

    Attributes:
        scales: (S,) m, or (S, N): in each place its own.
        ranks: (S, N), by which places are compared: k (e.q - contrast max_i e.c_i). Unlike relevancy it does not
            saturate over whole tables.
        offset: (S, N), to be taken off for the logit of relevancy: k (1 - contrast) max_i e.c_i.
    """

    scales: Tensor
    ranks: Tensor
    offset: Tensor


def sweeps(
    surface: AskedSurface, encoder: Encoder, texts: Sequence[str], scales: Tensor, options: QueryOptions
) -> list[Sweep]:
    """How well each text fits the surface at the scales, in one pass over it."""
    embeds = encoder.encode_texts([*texts, *options.phrases(encoder.calibration)])
    ranks, offset = _ranked(surface, embeds, len(texts), scales, encoder.calibration)
    return [Sweep(scales, rank, offset) for rank in ranks]


def sweep_of_places(
    surface: AskedSurface,
    embeds: Tensor,
    texts: int,
    text: Tensor,
    scales: Tensor,
    calibration: RelevancyCalibration,
) -> Sweep:
    """How well each point fits its own text.

    Args:
        embeds: (T + C, D) unit embeddings of T texts and of what relevancy is measured against.
        texts: T.
        text: (N,) int64 of the texts.
    """
    ranks, offset = _ranked(surface, embeds, texts, scales, calibration)
    own = ranks.gather(0, text.expand(1, len(scales), -1))[0]
    return Sweep(scales, own, offset)


def _ranked(
    surface: AskedSurface, embeds: Tensor, texts: int, scales: Tensor, calibration: RelevancyCalibration
) -> tuple[Tensor, Tensor]:
    """Ranks (T, S, N) of the first T of embeds, and their offset (S, N), by the others."""
    scaled = calibration.k * surface.similarity(scales, embeds).float().permute(2, 0, 1)
    canonical = scaled[texts:].amax(dim=0)
    return scaled[:texts] - calibration.contrast * canonical, (1 - calibration.contrast) * canonical
