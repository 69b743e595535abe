"""How a question is to be answered."""

from __future__ import annotations

from dataclasses import dataclass

from lerf_ros.features.encoder import RelevancyCalibration


@dataclass(frozen=True)
class QueryOptions:
    """How to answer.

    Attributes:
        max_targets: at most this many targets a text.
        min_relevancy: in [0, 1]; a target below it is not reported. None: the encoder's calibrated threshold.
        canonical_phrases: what relevancy is measured against. None: the encoder's.
        up_world: (3,) map-up, for the orientation of targets.
        scale_steps: scales tried, evenly spaced in log scale over the supervised range.
        min_support: a region of fewer surface points is noise, not a target.
        prominence: a second maximum counts as another target when the rank between the two dips below this share of
            its height above the map's median.
        closer_points: surface points of the closer look that every region gets; 0: none.
        closer_radius: m; a larger region is left as the map's own points show it.
    """

    max_targets: int = 5
    min_relevancy: float | None = None
    canonical_phrases: tuple[str, ...] | None = None
    up_world: tuple[float, float, float] = (0.0, 0.0, 1.0)
    scale_steps: int = 16
    min_support: int = 4
    prominence: float = 0.9
    closer_points: int = 1500
    closer_radius: float = 0.8

    def phrases(self, calibration: RelevancyCalibration) -> tuple[str, ...]:
        """What relevancy is measured against, with an encoder of this calibration."""
        return self.canonical_phrases or calibration.canonical_phrases
