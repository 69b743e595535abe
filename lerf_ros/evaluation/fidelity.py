"""Feature fidelity: what the field says a crop looks like, against the crop's own embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lerf_ros.evaluation.exam import HeldOutView
from lerf_ros.features.pyramid import PyramidLayout
from lerf_ros.mapping.online import OnlineMapper

CROPS = 48  # a view and level
_VIEWS = 4


@torch.no_grad()
def feature_fidelity(online: OnlineMapper, held_out: Sequence[HeldOutView], stride: int) -> list[list[float]]:
    """Mean cosine between rendered and crop embeddings in held-out views, per level of the pyramid.

    Crops are drawn among those whose centre lies in the picture; the field is asked at the pixel next to the centre, at
    the crop's physical size there, by its own depth.

    Returns:
        [crop_px, cosine, crops, cosine with the crop that was drawn next instead] of every level: the last says how
        alike all crops are to the encoder.
    """
    mapper, encoder = online.mapper, online.encoder
    layout = mapper.layout
    assert layout is not None
    rng = np.random.default_rng(0)
    sums = np.zeros((len(layout.levels), 3))
    for view in held_out[:: max(1, len(held_out) // _VIEWS)][:_VIEWS]:
        camera = view.view.camera
        rendering = mapper.render(camera, view.view.T_world_camera, stride=stride, features=True)
        assert rendering.features is not None and rendering.scale_of is not None
        image = torch.from_numpy(view.view.image).to(mapper.device).permute(2, 0, 1).float() / 255
        for number, level in enumerate(layout.levels):
            chosen, uv = _crops(layout, number, rng)
            cut = layout.crops(image, number, size=encoder.image_size)[chosen.to(mapper.device)]
            own = encoder.encode_images(cut)
            cell = ((uv - stride // 2) / stride).round().long().to(mapper.device)
            rows, columns = rendering.depth_z.shape
            pixel = cell[:, 1].clamp(0, rows - 1) * columns + cell[:, 0].clamp(0, columns - 1)
            rendered = rendering.features[pixel].embed(rendering.scale_of(level.crop_px)[pixel])
            sums[number] += [float((own * rendered).sum()), len(own), float((own.roll(1, 0) * rendered).sum())]
    return [
        [level.crop_px, float(total / max(count, 1)), int(count), float(other / max(count, 1))]
        for level, (total, count, other) in zip(layout.levels, sums, strict=True)
    ]


def _crops(layout: PyramidLayout, level: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Index (B,) and centre (B, 2), pixels, of random crops of a level whose centres lie in the image."""
    centres = layout.centres(level)
    inside = ((centres >= 0) & (centres <= torch.tensor([layout.width - 1, layout.height - 1]))).all(dim=1)
    options = inside.nonzero().flatten().numpy()
    chosen = torch.from_numpy(rng.choice(options, min(CROPS, len(options)), replace=False))
    return chosen, centres[chosen]
