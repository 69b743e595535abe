"""Which images the map is made of: ~/keyframes and ~/keyframes/frusta."""

from __future__ import annotations

from collections.abc import Callable

from nav_msgs.msg import Path
from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.publisher import Publisher
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from lerf_ros.mapping.keyframes import KeyframePoses
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.messages import frusta_markers, keyframe_path
from lerf_ros.ros.parameters import qos_profile

_PERIOD = 1.0  # s: keyframes come faster than anybody looks


class KeyframeTopics:
    """Publishes the keyframes when they have changed and somebody listens; who comes later is served then.

    Args:
        keyframes: the present ones, the same object as long as they are the same; None: there are none.
        now: header of the messages.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        group: CallbackGroup,
        keyframes: Callable[[], KeyframePoses | None],
        now: Callable[[], Header],
    ) -> None:
        self._keyframes, self._now = keyframes, now
        latched = qos_profile(settings, "keyframes", latched=True)
        self._topics: list[tuple[Publisher, Callable[[KeyframePoses | None, Header], Path | MarkerArray]]] = [
            (node.create_publisher(Path, "~/keyframes", latched), keyframe_path),
            (node.create_publisher(MarkerArray, "~/keyframes/frusta", latched), frusta_markers),
        ]
        self._published: list[KeyframePoses | None] = [None, None]
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(_PERIOD, self._publish, group, steady)

    def _publish(self) -> None:
        present = self._keyframes()
        for number, (publisher, message) in enumerate(self._topics):
            if present is not self._published[number] and publisher.get_subscription_count():
                publisher.publish(message(present, self._now()))
                self._published[number] = present
