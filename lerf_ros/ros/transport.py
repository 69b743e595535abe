"""Why nothing comes on a topic, as the ROS graph knows it: nobody publishes, another type, or QoS that does not fit."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

_SUGGESTIONS = 3  # topics that are named at most


@dataclass(frozen=True)
class TopicState:
    """What the graph knows about a topic that somebody wants to receive.

    Attributes:
        publishers: their number, whatever they publish.
        fault: why nothing can come from them, in words; empty when it can.
        alternatives: topics of the wanted type that are published, the most similar name first; only when nobody
            publishes the topic itself.
    """

    publishers: int
    fault: str = ""
    alternatives: tuple[str, ...] = ()


def type_name(kind: type) -> str:
    """sensor_msgs.msg.Image -> "sensor_msgs/msg/Image"."""
    return "/".join([*kind.__module__.split(".")[:2], kind.__name__])


def topic_state(node: Node, topic: str, kind: type, qos: QoSProfile) -> TopicState:
    """Args: topic, fully resolved; kind, the wanted message; qos, of the subscription."""
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return TopicState(0, alternatives=_published(node, topic, type_name(kind)))
    return TopicState(len(publishers), _fault(publishers, type_name(kind), qos))


def _published(node: Node, topic: str, wanted: str) -> tuple[str, ...]:
    """Topics of a type that other nodes publish."""
    others = [
        name
        for name, types in node.get_topic_names_and_types()
        if name != topic
        and wanted in types
        and any(_is_of_another(node, each) for each in node.get_publishers_info_by_topic(name))
    ]
    return tuple(difflib.get_close_matches(topic, others, n=_SUGGESTIONS, cutoff=0.0))


def _is_of_another(node: Node, endpoint: TopicEndpointInfo) -> bool:
    return (endpoint.node_namespace, endpoint.node_name) != (node.get_namespace(), node.get_name())


def _fault(publishers: list[TopicEndpointInfo], wanted: str, qos: QoSProfile) -> str:
    """Empty as soon as one publisher fits."""
    fitting_type = [publisher for publisher in publishers if publisher.topic_type == wanted]
    if not fitting_type:
        found = ", ".join(sorted({publisher.topic_type for publisher in publishers}))
        return f"its type is {found}, ours {wanted}: remap to another topic"
    faults = [_qos_fault(publisher.qos_profile, qos) for publisher in fitting_type]
    return faults[0] if all(faults) else ""


def _qos_fault(offered: QoSProfile, ours: QoSProfile) -> str:
    """The two policies that keep ROS nodes apart in practice; their deadlines and lifespans are unset."""
    if offered.reliability == ReliabilityPolicy.BEST_EFFORT and ours.reliability == ReliabilityPolicy.RELIABLE:
        return "its reliability is BEST_EFFORT, ours RELIABLE: incompatible"
    if offered.durability == DurabilityPolicy.VOLATILE and ours.durability == DurabilityPolicy.TRANSIENT_LOCAL:
        return "its durability is VOLATILE, ours TRANSIENT_LOCAL: incompatible"
    return ""
