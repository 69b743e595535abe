"""Everything that `python -m lerf_ros.evaluation --variants ...` can compare, each one switch away from the default."""

from __future__ import annotations

from lerf_ros.evaluation.baselines import LERF
from lerf_ros.evaluation.frame_changes import pose_noise, without_depth
from lerf_ros.evaluation.variants import Variant

ABLATIONS: dict[str, tuple[Variant, ...]] = {
    "DINO": (Variant("dino", {"dense.model": "auto"}),),
    "embedding without scale": (Variant("no_scale", {"language.scale": "none"}),),
    "LERF's normalised scale": (Variant("normalised_scale", {"language.scale": "normalised"}),),
    "decoding": (
        Variant("sampled", {"language.decoding": "sampled"}),
        Variant("per_sample", {"language.decoding": "per_sample"}),
    ),
    "language samples": (Variant("samples_24", {"language.samples": 24}),),
    "proposal": (Variant("proposal_networks", {"sampling.proposal": "networks"}),),
    "depth": (Variant("no_depth", frames=without_depth),),
    "pose noise": (
        Variant("noise_1cm", frames=pose_noise(metres=0.01)),
        Variant("noise_3cm", frames=pose_noise(metres=0.03)),
        Variant("noise_1deg", frames=pose_noise(degrees=1.0)),
        Variant("noise_3deg", frames=pose_noise(degrees=3.0)),
    ),
    "closer look": (Variant("field_alone", {"close_up.share": 0.0}),),
    "keyframes": tuple(Variant(f"keyframes_{n}", {"keyframe.capacity": n}) for n in (10, 20, 40)),
    "seconds of training": tuple(Variant(f"time_{share:g}", budget=share) for share in (0.25, 0.5, 2.0, 4.0)),
}

DEFAULT = Variant("default", methods=("field", "voxels", "crop_votes"))
VARIANTS: dict[str, Variant] = {
    variant.name: variant for variant in (DEFAULT, LERF, *(v for group in ABLATIONS.values() for v in group))
}
