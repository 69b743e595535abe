"""Image + camera_info + optional depth + pose -> Frame.

Nothing here waits or has a clock: messages come with the time of their arrival, `poll` says what time it is.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from geometry_msgs.msg import PoseStamped
from scipy.spatial.transform import Rotation, Slerp
from sensor_msgs.msg import CameraInfo, Image

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.conversions import (
    CameraMount,
    ConversionError,
    camera_from_info,
    matrix_from_pose,
    metres_from_depth,
    rgb_from_image,
    stamp_to_ns,
)
from lerf_ros.ros.drops import DropCounter, DropReason

T = TypeVar("T")

DEPTH_USES = ("auto", "required", "off")
_RESTART_NS = 1_000_000_000  # stamps that jump back further than this come from a recording that began again


@dataclass(frozen=True)
class AssemblyOptions:
    """How messages become frames.

    Attributes:
        slop: s, how far the stamps of depth and of a single pose may be from the image's.
        pose_gap: s, two poses this close together are interpolated at the image's stamp.
        wait: s, how long an image waits for what belongs to it.
        depth: "auto" (used when it comes), "required", or "off".
        queue: messages kept of each input.
        map_frame: frame in which poses must be given.
        child_frame: frame that the poses move; empty: the camera's.
        rectified: images are rectified, CameraInfo.p is their camera.
        mount: how the camera sits on the frame that the pose moves.
    """

    slop: float = 0.02
    pose_gap: float = 0.25
    wait: float = 0.5
    depth: str = "auto"
    queue: int = 30
    map_frame: str = "map"
    child_frame: str = ""
    rectified: bool = False
    mount: CameraMount = field(default_factory=CameraMount)


class StampedQueue(Generic[T]):
    """A bounded list ordered by stamp; the oldest entries fall out."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._stamps: list[int] = []
        self._items: list[T] = []

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, stamp_ns: int, item: T) -> None:
        index = bisect.bisect_right(self._stamps, stamp_ns)
        self._stamps.insert(index, stamp_ns)
        self._items.insert(index, item)
        if len(self._stamps) > self._capacity:
            del self._stamps[0], self._items[0]

    def nearest(self, stamp_ns: int) -> tuple[int, T] | None:
        """(stamp, item) nearest to a stamp, or None when empty."""
        if not self._stamps:
            return None
        index = min(range(len(self._stamps)), key=lambda i: abs(self._stamps[i] - stamp_ns))
        return self._stamps[index], self._items[index]

    def around(self, stamp_ns: int) -> tuple[tuple[int, T], tuple[int, T]] | None:
        """The entries just before (or at) and just after a stamp, or None when one is missing."""
        index = bisect.bisect_right(self._stamps, stamp_ns)
        if index == 0 or index == len(self._stamps):
            return None
        return (self._stamps[index - 1], self._items[index - 1]), (self._stamps[index], self._items[index])

    def discard_after(self, stamp_ns: int) -> None:
        """Forgets everything later than a stamp."""
        index = bisect.bisect_right(self._stamps, stamp_ns)
        del self._stamps[index:], self._items[index:]


@dataclass
class _WaitingImage:
    stamp_ns: int
    message: Image
    deadline: float


class _Drop(Exception):
    """An image cannot become a frame."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class FrameAssembler:
    """Matches the inputs by stamp and delivers validated frames in the order of their stamps.

    An image waits until its camera, pose and depth are there, at most `options.wait`; then it is dropped, or, when only
    optional depth is missing, delivered without it. Every image either becomes a frame or is counted with its reason.
    Not thread-safe: call it from one thread.

    Args:
        options: how to match.
        drops: where unused images are counted.
        deliver: called with every complete frame.
        depth_published: whether somebody publishes depth. The first keyframe sets the scale of the map, so that
            optional depth is also waited for before the first has come.
    """

    def __init__(
        self,
        options: AssemblyOptions,
        drops: DropCounter,
        deliver: Callable[[Frame], None],
        depth_published: Callable[[], bool] = lambda: False,
    ) -> None:
        self.options = options
        self.frames_without_depth = 0  # delivered although depth was expected
        self._drops = drops
        self._deliver = deliver
        self._depth_published = depth_published
        self._images: deque[_WaitingImage] = deque()
        self._cameras: StampedQueue[Camera | ConversionError] = StampedQueue(options.queue)
        self._poses: StampedQueue[Pose | ConversionError] = StampedQueue(options.queue)
        self._depths: StampedQueue[Image] = StampedQueue(options.queue)
        self._last_stamp_ns: int | None = None

    def add_image(self, message: Image, now: float) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        newest = self._images[-1].stamp_ns if self._images else self._last_stamp_ns
        if newest is not None and stamp_ns <= newest:
            if stamp_ns > newest - _RESTART_NS:
                self._drops.add(DropReason.STALE, "an image is not newer than the one before it")
                return
            self._begin_again(stamp_ns)
        self._images.append(_WaitingImage(stamp_ns, message, now + self.options.wait))
        self.poll(now)

    def add_camera_info(self, message: CameraInfo, now: float) -> None:
        self._cameras.add(
            stamp_to_ns(message.header.stamp), _or_error(lambda: camera_from_info(message, self.options.rectified))
        )
        self.poll(now)

    def add_depth(self, message: Image, now: float) -> None:
        if self.options.depth != "off":
            self._depths.add(stamp_to_ns(message.header.stamp), message)
            self.poll(now)

    def add_pose(self, message: PoseStamped, now: float) -> None:
        self._poses.add(stamp_to_ns(message.header.stamp), _or_error(lambda: self._checked_pose(message)))
        self.poll(now)

    def poll(self, now: float) -> None:
        """Delivers or drops every image whose time has come. Call it regularly, also when nothing arrives."""
        while self._images:
            waiting = self._images[0]
            expired = now >= waiting.deadline or len(self._images) > self.options.queue
            try:
                frame = self._assemble(waiting, expired)
            except _Drop as drop:
                self._drops.add(drop.reason, str(drop))
            else:
                if frame is None:
                    return
                self._deliver(frame)
            self._images.popleft()
            self._last_stamp_ns = waiting.stamp_ns

    def missing(self) -> str:
        """What the oldest waiting image lacks, in words; empty when none waits."""
        if not self._images:
            return ""
        stamp_ns = self._images[0].stamp_ns
        lacking = [
            topic
            for topic, there in (
                ("~/camera_info", len(self._cameras) > 0),
                ("~/pose", self._pose_at(stamp_ns, expired=True) is not None),
                ("~/depth", self.options.depth != "required" or self._depth_at(stamp_ns) is not None),
            )
            if not there
        ]
        return " and ".join(lacking)

    def _assemble(self, waiting: _WaitingImage, expired: bool) -> Frame | None:
        """The frame, or None while it is worth waiting.

        Raises:
            _Drop: the image cannot be used.
        """
        stamp_ns = waiting.stamp_ns
        # A camera publishes one CameraInfo with every image, or one for ever: the nearest stamp serves both.
        camera = self._cameras.nearest(stamp_ns)
        pose = self._pose_at(stamp_ns, expired)
        depth = self._depth_at(stamp_ns)
        depth_awaited = depth is None and self._depth_expected()
        if not expired and (camera is None or pose is None or depth_awaited):
            return None
        if camera is None:
            raise _Drop(DropReason.NO_CAMERA_INFO, "nothing on ~/camera_info")
        if pose is None:
            raise _Drop(DropReason.NO_POSE, self._why_no_pose(stamp_ns))
        if depth_awaited:
            if self.options.depth == "required":
                detail = f"nothing on ~/depth within {self.options.slop:g} s of the image (depth.use is 'required')"
                raise _Drop(DropReason.NO_DEPTH, detail)
            self.frames_without_depth += 1
        return self._frame(waiting, camera[1], pose, depth)

    def _frame(
        self,
        waiting: _WaitingImage,
        camera: Camera | ConversionError,
        pose: Pose | ConversionError,
        depth: Image | None,
    ) -> Frame:
        if isinstance(camera, ConversionError):
            raise _Drop(DropReason.BAD_CAMERA_INFO, str(camera))
        if isinstance(pose, ConversionError):
            raise _Drop(DropReason.BAD_POSE, str(pose))
        self._check_mount(waiting.message.header.frame_id)
        try:
            image = rgb_from_image(waiting.message)
        except ConversionError as error:
            raise _Drop(DropReason.BAD_IMAGE, str(error)) from error
        height, width = image.shape[:2]
        if (camera.width, camera.height) != (width, height):
            detail = (
                f"camera_info is for {camera.width}x{camera.height}, the image is {width}x{height}: "
                "remap the camera_info that belongs to this image"
            )
            raise _Drop(DropReason.BAD_CAMERA_INFO, detail)
        depth_z = None
        if depth is not None:
            try:
                depth_z = metres_from_depth(depth)
            except ConversionError as error:
                raise _Drop(DropReason.BAD_DEPTH, str(error)) from error
            if depth_z.shape != (height, width):
                detail = (
                    f"{depth_z.shape[1]}x{depth_z.shape[0]} vs image {width}x{height}; "
                    "set up registration (depth_image_proc/register)"
                )
                raise _Drop(DropReason.UNREGISTERED_DEPTH, detail)
        try:
            T_world_camera = self.options.mount.T_world_camera(pose)
            return Frame(waiting.stamp_ns, image, depth_z, camera, T_world_camera)
        except ValueError as error:
            raise _Drop(DropReason.REJECTED, str(error)) from error

    def _pose_at(self, stamp_ns: int, expired: bool) -> Pose | ConversionError | None:
        """The pose at a stamp: exact, else interpolated, else (once no later pose can be hoped for) the nearest."""
        nearest = self._poses.nearest(stamp_ns)
        if nearest is None or nearest[0] == stamp_ns:
            return None if nearest is None else nearest[1]
        around = self._poses.around(stamp_ns)
        if around is not None and around[1][0] - around[0][0] <= self.options.pose_gap * 1e9:
            return _interpolated(*around, stamp_ns)
        if (expired or around is not None) and abs(nearest[0] - stamp_ns) <= self.options.slop * 1e9:
            return nearest[1]
        return None

    def _depth_at(self, stamp_ns: int) -> Image | None:
        nearest = self._depths.nearest(stamp_ns)
        if nearest is None or abs(nearest[0] - stamp_ns) > self.options.slop * 1e9:
            return None
        return nearest[1]

    def _depth_expected(self) -> bool:
        if self.options.depth == "auto":
            return len(self._depths) > 0 or self._depth_published()
        return self.options.depth == "required"

    def _why_no_pose(self, stamp_ns: int) -> str:
        nearest = self._poses.nearest(stamp_ns)
        if nearest is None:
            return "nothing on ~/pose"
        return (
            f"the nearest pose is {abs(nearest[0] - stamp_ns) * 1e-9:.3f} s from the image's stamp (sync.slop is "
            f"{self.options.slop:g} s): check the clocks and the rate of ~/pose"
        )

    def _checked_pose(self, message: PoseStamped) -> Pose:
        frame = message.header.frame_id
        if frame and frame.lstrip("/") != self.options.map_frame:
            raise ConversionError(
                f"poses are given in frame '{frame}', the map is in '{self.options.map_frame}': set map.frame, "
                "or publish poses in the map frame"
            )
        return matrix_from_pose(message.pose)

    def _check_mount(self, camera_frame: str) -> None:
        """A pose of the robot's base, taken for the camera's, would give a plausible but wrong map."""
        child_frame = self.options.child_frame
        if child_frame and camera_frame != child_frame and self.options.mount.is_identity:
            detail = (
                f"poses move '{child_frame}', images come from '{camera_frame}': set pose.xyz, pose.quaternion and "
                f"pose.axes to the camera's place in '{child_frame}'"
            )
            raise _Drop(DropReason.BAD_POSE, detail)

    def _begin_again(self, stamp_ns: int) -> None:
        for _ in self._images:
            self._drops.add(DropReason.STALE, "time jumped back while the image waited")
        self._images.clear()
        self._last_stamp_ns = None
        for queue in (self._cameras, self._poses, self._depths):
            queue.discard_after(stamp_ns + _RESTART_NS)


def _or_error(convert: Callable[[], T]) -> T | ConversionError:
    """A message that cannot be used is kept as its error: the image that needs it is dropped with that reason."""
    try:
        return convert()
    except ConversionError as error:
        return error


def _interpolated(
    before: tuple[int, Pose | ConversionError], after: tuple[int, Pose | ConversionError], stamp_ns: int
) -> Pose | ConversionError:
    """Linear in position, constant angular velocity in rotation."""
    for _, pose in (before, after):
        if isinstance(pose, ConversionError):
            return pose
    share = (stamp_ns - before[0]) / (after[0] - before[0])
    T_before, T_after = np.asarray(before[1]), np.asarray(after[1])
    pose = np.eye(4)
    rotations = Rotation.from_matrix(np.stack([T_before[:3, :3], T_after[:3, :3]]))
    pose[:3, :3] = Slerp([0.0, 1.0], rotations)(share).as_matrix()
    pose[:3, 3] = (1.0 - share) * T_before[:3, 3] + share * T_after[:3, 3]
    return pose
