"""Parameters that change while the node maps, handed to the worker."""

from __future__ import annotations

from collections.abc import Callable

from lerf_ros.mapping.config import TUNABLE
from lerf_ros.ros.declarations import Parameters, Settings
from lerf_ros.ros.map_setup import MapSetup
from lerf_ros.ros.parameters import LIMITS, mapper_config, training_limits
from lerf_ros.ros.worker import MapWorker

_MAX_POINTS = {"cpu": 40_000, "cuda": 50_000}  # surface points at which a question is answered


class LiveSettings:
    """Follows `query.max_points`, `query.max_age`, the limits of training and what a map can be tuned by.

    Args:
        running: the worker and what its map was made by; None while there is none.
    """

    def __init__(self, settings: Parameters, running: Callable[[], tuple[MapWorker, MapSetup] | None]) -> None:
        self._running = running
        for names, effect in (
            (["query.max_points", "query.max_age"], self._answer_at),
            ([f"training.{name}" for name in LIMITS], self._limit),
            (list(TUNABLE), self._tune),
        ):
            settings.on_change(names, self._with_worker(effect))

    def _with_worker(self, effect: Callable[[MapWorker, MapSetup, Settings], None]) -> Callable[[Settings], None]:
        def follow(settings: Settings) -> None:
            running = self._running()
            if running is not None:
                effect(*running, settings)

        return follow

    @staticmethod
    def _answer_at(worker: MapWorker, setup: MapSetup, settings: Settings) -> None:
        worker.answer_at(max_points(settings, setup), settings["query.max_age"])

    @staticmethod
    def _limit(worker: MapWorker, setup: MapSetup, settings: Settings) -> None:
        worker.limit(training_limits(settings))

    @staticmethod
    def _tune(worker: MapWorker, setup: MapSetup, settings: Settings) -> None:
        config = mapper_config(settings, setup.preset).values()
        worker.request(lambda online: online.tune({name: config[name] for name in TUNABLE}))


def max_points(settings: Settings, setup: MapSetup) -> int:
    """Surface points at which questions are answered."""
    return int(settings["query.max_points"]) or _MAX_POINTS[setup.device.type]
