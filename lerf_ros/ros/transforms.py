"""TF, asked without waiting. The only place that knows tf2_ros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.time import Time

from lerf_ros.geometry.poses import Pose, pose_from_quaternion
from lerf_ros.ros.drops import DroppedFrame, DropReason


class NotYet(Exception):
    """TF cannot say it (yet); the text is tf2's reason."""


class TransformsMissing(RuntimeError):
    """tf2_ros is not installed; the text says what to do."""


class Transforms:
    """A `tf2_ros.Buffer`.

    Args:
        buffer: of tf2_ros, or with its `lookup_transform` and `clear`.
        failure: tf2_ros.TransformException, what the buffer raises.
        listener: what feeds the buffer, kept alive with it.
    """

    def __init__(self, buffer: Any, failure: type[Exception], listener: Any = None) -> None:
        self._buffer = buffer
        self._failure = failure
        self._listener = listener

    def lookup(self, target_frame: str, source_frame: str, stamp_ns: int) -> Pose:
        """T_target_source (4, 4) at a stamp.

        Raises:
            NotYet: unknown frames, no connection between them, or a time that TF does not cover.
            DroppedFrame: what TF says is no pose, or there is no stamp, for which it would say the latest one.
        """
        if stamp_ns == 0:
            raise DroppedFrame(DropReason.BAD_POSE, "the image has no stamp: TF cannot say where it was taken")
        try:
            transform = self._buffer.lookup_transform(target_frame, source_frame, Time(nanoseconds=stamp_ns)).transform
        except self._failure as error:
            raise NotYet(f"TF from '{source_frame}' to '{target_frame}': {error}") from error
        p, q = transform.translation, transform.rotation
        try:
            return pose_from_quaternion((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
        except ValueError as error:
            detail = f"TF from '{source_frame}' to '{target_frame}': {error}"
            raise DroppedFrame(DropReason.BAD_POSE, detail) from error

    def begin_again(self) -> None:
        """Forgets all but static transforms: tf2 refuses what is older than it remembers."""
        self._buffer.clear()

    def close(self) -> None:
        if self._listener is not None:
            self._listener.unregister()


def open_transforms(node: Node) -> Transforms:
    """Listens to /tf and /tf_static.

    Raises:
        TransformsMissing: tf2_ros is not installed.
    """
    tf2_ros = _tf2_ros("take poses from a topic (pose.source: pose or odometry) and pose.extrinsics: parameters")
    buffer = tf2_ros.Buffer()
    return Transforms(buffer, tf2_ros.TransformException, tf2_ros.TransformListener(buffer, node))


def open_broadcaster(node: Node) -> Callable[[PoseStamped, str], None]:
    """(a pose, the frame that it moves) -> /tf.

    Raises:
        TransformsMissing: tf2_ros is not installed.
    """
    broadcaster = _tf2_ros("do without TF").TransformBroadcaster(node)

    def broadcast(pose: PoseStamped, child_frame: str) -> None:
        p = pose.pose.position
        transform = Transform(translation=Vector3(x=p.x, y=p.y, z=p.z), rotation=pose.pose.orientation)
        stamped = TransformStamped(header=pose.header, child_frame_id=child_frame, transform=transform)
        broadcaster.sendTransform(stamped)

    return broadcast


def _tf2_ros(instead: str) -> Any:
    try:
        import tf2_ros
    except ImportError as error:
        raise TransformsMissing(
            f"TF needs tf2_ros, which cannot be imported ({error}): install ros-$ROS_DISTRO-tf2-ros-py and source ROS, "
            f"or {instead}"
        ) from error
    return tf2_ros
