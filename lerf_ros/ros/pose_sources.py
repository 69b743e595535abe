"""Where the pose of an image comes from: messages of a topic, interpolated at its stamp, or TF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped
from nav_msgs.msg import Odometry

from lerf_ros.geometry.poses import Pose, interpolated, to_optical
from lerf_ros.ros.conversions import CameraMount, matrix_from_pose, stamp_to_ns
from lerf_ros.ros.drops import DroppedFrame, DropReason
from lerf_ros.ros.encodings import ConversionError
from lerf_ros.ros.stamped_queue import StampedQueue
from lerf_ros.ros.transforms import NotYet, Transforms

PoseMessage: TypeAlias = PoseStamped | PoseWithCovarianceStamped | Odometry
POSE_MESSAGES: dict[str, type] = {
    "pose": PoseStamped,
    "pose_with_covariance": PoseWithCovarianceStamped,
    "odometry": Odometry,
}
POSE_SOURCES = (*POSE_MESSAGES, "tf")
_STEEP = 0.9  # cosine; a camera that looks straight up or lies on its side


class PoseSource(Protocol):
    """Knows where cameras are."""

    def at(self, stamp_ns: int, camera_frame: str, expired: bool) -> Pose | None:
        """T_world_camera (4, 4), optical axes, at a stamp; None while it is worth waiting.

        Args:
            camera_frame: frame_id of the image.
            expired: whether waiting is over; then it is a pose or DroppedFrame.

        Raises:
            DroppedFrame: BAD_POSE as soon as that is known; NO_POSE when waiting is over.
        """

    def begin_again(self) -> None:
        """Time has jumped back."""


@dataclass(frozen=True)
class PoseOptions:
    """How pose messages become the poses of images.

    Attributes:
        map_frame: frame in which poses must be given.
        child_frame: frame that the poses move; empty: that of Odometry's child_frame_id, or the camera's.
        slop: s, how far a pose may be from the image's stamp when it is not between two.
        gap: s, two poses this close together are interpolated.
        queue: messages kept.
    """

    map_frame: str = "map"
    child_frame: str = ""
    slop: float = 0.02
    gap: float = 0.25
    queue: int = 1000


@dataclass(frozen=True)
class _Posed:
    T_world_child: Pose
    child_frame: str  # empty: not known


class Mount(Protocol):
    """Knows how cameras sit on the frame that pose messages move."""

    def T_world_camera(self, T_world_child: Pose, child_frame: str, camera_frame: str, stamp_ns: int) -> Pose:
        """(4, 4) optical axes. `child_frame` is empty when nobody says which frame is posed.

        Raises:
            NotYet: it may be known later.
            DroppedFrame: BAD_POSE.
        """

    def begin_again(self) -> None:
        """Time has jumped back."""


class PoseTopic:
    """Poses from PoseStamped, PoseWithCovarianceStamped or Odometry messages.

    The pose at a stamp is that of a message with this very stamp, else interpolated between the two around it, else,
    once no later one can be hoped for, the nearest. Motion is never carried on beyond the messages.

    Args:
        mount: where the camera sits on the frame that the poses move: fixed, or in TF.
    """

    def __init__(self, options: PoseOptions, mount: Mount) -> None:
        self._options = options
        self._mount = mount
        self._poses: StampedQueue[_Posed | ConversionError] = StampedQueue(options.queue)

    def add(self, message: PoseMessage) -> None:
        posed: _Posed | ConversionError
        try:
            posed = self._checked(message)
        except ConversionError as error:  # kept: the images that need it are dropped with that reason
            posed = error
        self._poses.add(stamp_to_ns(message.header.stamp), posed)

    def at(self, stamp_ns: int, camera_frame: str, expired: bool) -> Pose | None:
        posed = self._posed_at(stamp_ns, expired)
        if isinstance(posed, ConversionError):
            raise DroppedFrame(DropReason.BAD_POSE, str(posed))
        if posed is None:
            if expired:
                raise DroppedFrame(DropReason.NO_POSE, self._why_none(stamp_ns))
            return None
        try:
            return self._mount.T_world_camera(posed.T_world_child, posed.child_frame, camera_frame, stamp_ns)
        except NotYet as error:
            if expired:
                raise DroppedFrame(DropReason.NO_POSE, str(error)) from error
            return None

    def begin_again(self) -> None:
        self._mount.begin_again()  # the queue notices for itself

    def _posed_at(self, stamp_ns: int, expired: bool) -> _Posed | ConversionError | None:
        before, after = self._poses.before(stamp_ns), self._poses.after(stamp_ns)
        if before is not None and before[0] == stamp_ns:
            return before[1]
        if before is not None and after is not None and after[0] - before[0] <= self._options.gap * 1e9:
            return _between(before, after, stamp_ns)
        nearest = self._poses.nearest(stamp_ns)
        if nearest is None or abs(nearest[0] - stamp_ns) > self._options.slop * 1e9:
            return None
        return nearest[1] if expired or after is not None else None

    def _checked(self, message: PoseMessage) -> _Posed:
        options, frame = self._options, _bare(message.header.frame_id)
        if frame and frame != _bare(options.map_frame):
            raise ConversionError(
                f"poses are given in frame '{frame}', the map is in '{options.map_frame}': set map.frame, "
                "or publish poses in the map frame"
            )
        child = _bare(options.child_frame)
        if isinstance(message, Odometry):
            moved = _bare(message.child_frame_id)
            if child and moved and moved != child:
                raise ConversionError(
                    f"odometry moves '{moved}' (child_frame_id), pose.child_frame is '{child}': set one to the other"
                )
            child = child or moved
        pose = message.pose if isinstance(message, PoseStamped) else message.pose.pose
        return _Posed(matrix_from_pose(pose), child)

    def _why_none(self, stamp_ns: int) -> str:
        nearest = self._poses.nearest(stamp_ns)
        if nearest is None:
            return "nothing on ~/pose"
        return (
            f"the nearest pose is {abs(nearest[0] - stamp_ns) * 1e-9:.3f} s from the image's stamp (sync.pose_slop is "
            f"{self._options.slop:g} s): check the clocks and the rate of ~/pose"
        )


class FixedMount:
    """Where the camera sits on the posed frame, by parameters."""

    def __init__(self, mount: CameraMount, name: str = "pose") -> None:
        self._mount = mount
        self._name = name  # of its parameters, for messages

    def T_world_camera(self, T_world_child: Pose, child_frame: str, camera_frame: str, stamp_ns: int) -> Pose:
        camera_frame = _bare(camera_frame)
        # A pose of the robot's base, taken for the camera's, would give a plausible but wrong map.
        if child_frame and camera_frame != child_frame and self._mount.is_identity:
            raise DroppedFrame(
                DropReason.BAD_POSE,
                f"poses move '{child_frame}', images come from '{camera_frame}': set {self._name}.xyz and "
                f"{self._name}.quaternion to the camera's place in '{child_frame}', or pose.extrinsics: tf",
            )
        return self._mount.T_world_camera(T_world_child)

    def begin_again(self) -> None:
        pass


class TransformMount:
    """Where the camera sits on the posed frame, by TF."""

    def __init__(self, transforms: Transforms, axes: str) -> None:
        self._transforms = transforms
        self._axes = axes

    def T_world_camera(self, T_world_child: Pose, child_frame: str, camera_frame: str, stamp_ns: int) -> Pose:
        if not child_frame:
            raise DroppedFrame(DropReason.BAD_POSE, "nobody says which frame the poses move: set pose.child_frame")
        T_child_camera = self._transforms.lookup(child_frame, _bare(camera_frame), stamp_ns)
        return to_optical(T_world_child @ T_child_camera, self._axes)

    def begin_again(self) -> None:
        self._transforms.begin_again()


class TransformPoses:
    """Poses from TF: of the image's frame in the map frame."""

    def __init__(self, transforms: Transforms, map_frame: str, axes: str) -> None:
        self._transforms = transforms
        self._map_frame = _bare(map_frame)
        self._axes = axes

    def at(self, stamp_ns: int, camera_frame: str, expired: bool) -> Pose | None:
        if not camera_frame:
            raise DroppedFrame(
                DropReason.BAD_POSE, "the image has no frame_id, so that TF cannot say where it was taken"
            )
        try:
            return to_optical(self._transforms.lookup(self._map_frame, _bare(camera_frame), stamp_ns), self._axes)
        except NotYet as error:
            if expired:
                raise DroppedFrame(DropReason.NO_POSE, str(error)) from error
            return None

    def begin_again(self) -> None:
        self._transforms.begin_again()


def doubt_of_axes(T_world_camera: Pose) -> str:
    """Why the axes of a camera look wrong in a map whose z is up; empty when they do not. Body axes taken for optical
    ones look straight up, optical ones taken for body axes lie on their side."""
    right, _, forward = np.asarray(T_world_camera)[2, :3]
    advice = "if it does not, and z is up in the map, then pose.axes is wrong, or its place on the robot is"
    if forward > _STEEP:
        return f"it seems to look straight up: {advice}"
    if abs(right) > _STEEP:
        return f"it seems to lie on its side: {advice}"
    return ""


def _bare(frame: str) -> str:
    return frame.lstrip("/")  # of ROS 1


def _between(
    before: tuple[int, _Posed | ConversionError], after: tuple[int, _Posed | ConversionError], stamp_ns: int
) -> _Posed | ConversionError:
    for _, posed in (before, after):
        if isinstance(posed, ConversionError):
            return posed
    first, second = before[1], after[1]
    assert isinstance(first, _Posed) and isinstance(second, _Posed)
    share = (stamp_ns - before[0]) / (after[0] - before[0])
    return _Posed(interpolated(first.T_world_child, second.T_world_child, share), first.child_frame)
