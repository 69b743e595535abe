"""CLIP's contrastive loss for captions that several crops share, with the canonical phrases in between.

LERF's relevancy compares a text with canonical phrases, so these have to lie between the texts that are true of a crop
and those that are false. open_clip's ClipLoss takes every other caption of a batch for a negative, which is wrong
where "a mug" meets a red mug; here each true (crop, text) pair competes with what is known to be false alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, canonical_embeds: Tensor, true: Tensor, false: Tensor, scale: Tensor
) -> Tensor:
    """Mean of InfoNCE image -> text, InfoNCE text -> image, and canonical phrases against false texts.

    ``image_embeds`` (B, D), ``text_embeds`` (T, D), ``canonical_embeds`` (C, D), unit norm; ``true``, ``false`` (B, T)
    bool, pairs that are neither do not count; ``scale``: the logit scale.

        text_i      = mean over true t of  log(1 + (sum_false exp(s e_i.t') + sum_c exp(s e_i.c)) / exp(s e_i.t))
        canonical_i = mean over c of       log(1 + sum_false exp(s e_i.t') / exp(s e_i.c))
        image_t     = mean over true i of  log(1 + sum_false exp(s e_j.t) / exp(s e_i.t))
    """
    logits = scale * image_embeds @ text_embeds.T
    canonical = scale * image_embeds @ canonical_embeds.T
    outside = logits.masked_fill(~false, -1e4)  # not -inf: a text may have no false crop
    false_texts = outside.logsumexp(dim=1, keepdim=True)
    false_images = outside.logsumexp(dim=0, keepdim=True)
    rivals = torch.logaddexp(false_texts, canonical.logsumexp(dim=1, keepdim=True))
    image_to_text = _mean_where(true, F.softplus(rivals - logits), dim=1)
    text_to_image = _mean_where(true, F.softplus(false_images - logits), dim=0)
    return image_to_text + text_to_image + F.softplus(false_texts - canonical).mean()


def _mean_where(true: Tensor, values: Tensor, dim: int) -> Tensor:
    """Mean over the true pairs of each row (dim 1) or column (dim 0), then over those that have any."""
    count = true.sum(dim=dim)
    means = values.masked_fill(~true, 0.0).sum(dim=dim) / count.clamp(min=1)
    return means.sum() / (count > 0).sum().clamp(min=1)
