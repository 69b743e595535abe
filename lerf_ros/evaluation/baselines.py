"""LERF's configuration (Kerr et al. 2023 and its code, on Nerfacto) as settings of this mapper, to compare with.

The same as LERF's: sizes of the fields (preset ``base``), crop pyramid, loss of language, decoding, scale, proposal
sampling, learning rates at first. Ours: keyframes, Adam with a warm-up instead of RAdam, how rates fall, no refinement
of poses, no appearance code, the radius of the scene as the unit of the normalised scale, and the search of maxima on
surface points.
"""

from __future__ import annotations

from lerf_ros.evaluation.frame_changes import without_depth
from lerf_ros.evaluation.variants import Variant

LERF_CONFIGURATION = {
    "language.decoding": "per_sample",  # the head decodes each sample, embeddings are blended
    "language.samples": 24,  # the heaviest of 48
    "language.scale": "normalised",
    "sampling.proposal": "networks",  # 256 and 96 proposal samples ...
    "sampling.samples": 48,  # ... and 48 of the field
    "sampling.render_samples": 48,
    "sampling.render_chunk": 4096,  # 256 samples a ray take memory
    "dense.model": "auto",  # DINO where its weights are
    "replay.language": 1.0,  # every ray carries language ...
    "replay.recent": 0.0,  # ... and comes from any keyframe
    "optimiser.grid_rate": 1e-2,
    "optimiser.network_rate": 1e-2,
    "optimiser.language_grid_rate": 1e-2,
    "optimiser.language_network_rate": 1e-2,
}

LERF = Variant("lerf", LERF_CONFIGURATION, frames=without_depth, budget=10.0, rooms=4)
