"""How well the inputs of the node are served, as plain numbers and words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOTEWORTHY_LOSS = 0.02  # share of the messages that is lost in transport


@dataclass(frozen=True)
class InputReport:
    """One input at one moment.

    Attributes:
        name: "image", of the topic ~/image.
        topic: as it is remapped.
        optional: the map does without it.
        received, lost: messages so far; lost by the middleware, as far as it says so.
        rate: Hz over the last seconds.
        silence: s since the last message, or since the node listens.
        delay: s from the stamp of the last message to its arrival, by the node's clock; NaN before the first.
        offset: s, median distance from the stamp of an image to the nearest one here; NaN when unknown.
        publishers: their number.
        alternatives: published topics that could be meant instead, when nobody publishes this one.
        problem: what is wrong and what to do, in words; empty when nothing is known to be.
    """

    name: str
    topic: str
    optional: bool
    received: int
    lost: int
    rate: float
    silence: float
    delay: float
    offset: float
    publishers: int
    alternatives: tuple[str, ...]
    problem: str

    @property
    def loses(self) -> bool:
        """Whether a noteworthy share is lost in transport."""
        return self.lost > NOTEWORTHY_LOSS * (self.received + self.lost)


@dataclass(frozen=True)
class InputHealth:
    """All inputs at one moment.

    Attributes:
        frames_without_depth: frames that were used without the depth that was waited for.
        missing: what images that wait still lack, in words; empty when none waits.
    """

    reports: tuple[InputReport, ...] = ()
    frames_without_depth: int = 0
    missing: str = ""

    @property
    def trouble(self) -> str:
        """What keeps frames from coming, in words; empty when nothing is known to."""
        needed = [report for report in self.reports if not report.optional]
        silent = [report for report in needed if report.publishers == 0]
        problems = [report.problem for report in needed if report.problem and report.publishers]
        if silent:
            alternatives = dict.fromkeys(topic for report in silent for topic in report.alternatives)
            remapped = f"~/{silent[0].name}" if len(silent) == 1 else "the topics"
            problems = [unpublished([report.topic for report in silent], list(alternatives), remapped), *problems]
        return "; ".join(problems)

    @property
    def depth_unpublished(self) -> str:
        """Topics of the depth inputs when none of them has a publisher or has had a message; empty otherwise."""
        depth = [report for report in self.reports if report.name.rpartition("/")[2] == "depth"]
        if any(report.publishers or report.received for report in depth):
            return ""
        return ", ".join(report.topic for report in depth)

    @property
    def doubt(self) -> str:
        """What is wrong, although frames come; empty when nothing is known to be."""
        for report in self.reports:
            if report.optional and report.publishers and report.problem:
                return report.problem
            if report.loses:
                return f"{report.lost} messages of {report.topic} were lost in transport: see config/fastdds.xml"
        return ""


def unpublished(topics: Sequence[str], alternatives: Sequence[str], remapped: str) -> str:
    """The sentence about topics that nobody publishes.

    Args:
        alternatives: what could be meant instead.
        remapped: what to remap, e.g. "~/image".
    """
    said = f"nobody publishes {', '.join(topics)}"
    if not alternatives:
        return f"{said}: start the camera, or remap {remapped}"
    types = "that type" if len(topics) == 1 else "those types"
    return f"{said}, but messages of {types} come on {', '.join(alternatives)}: remap {remapped}"
