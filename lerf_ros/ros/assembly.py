"""Image + camera_info + optional depth + pose -> Frame.

Nothing here waits or has a clock: images come with the time of their arrival, `poll` says what time it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lerf_ros.geometry.lens import Lens
from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.conversions import lens_from_info, stamp_to_ns
from lerf_ros.ros.drops import DropCounter, DroppedFrame, DropReason
from lerf_ros.ros.encodings import ConversionError
from lerf_ros.ros.frame_builder import FrameBuilder
from lerf_ros.ros.pose_sources import PoseSource, doubt_of_axes
from lerf_ros.ros.stamped_queue import RESTART_NS, StampedQueue

DEPTH_USES = ("auto", "required", "off")
_IN_STEP = 2  # images in a row with a camera_info of their own stamp are no coincidence


@dataclass(frozen=True)
class AssemblyOptions:
    """How the messages of one camera are matched.

    Attributes:
        slop: s, how far the stamp of depth may be from the image's; 0: the same.
        wait: s, how long an image waits for what belongs to it.
        depth: "auto" (used when it comes), "required", or "off".
        queue: messages kept of each input.
        rectified: images are rectified, CameraInfo.p is their camera.
        same_frame: depth must carry the image's frame_id, as registered depth does.
    """

    slop: float = 0.02
    wait: float = 0.5
    depth: str = "auto"
    queue: int = 30
    rectified: bool = False
    same_frame: bool = True


@dataclass(frozen=True)
class _Calibration:
    lens: Lens | ConversionError
    frame: str


@dataclass
class _WaitingImage:
    stamp_ns: int
    message: Image | CompressedImage
    deadline: float
    overdue: bool = False  # at the last look its deadline had passed
    expired: bool = False  # waiting is over


class FrameAssembler:
    """Matches the inputs of one camera by stamp and delivers frames in the order of their stamps.

    An image waits until its camera, pose and depth are there, at most `options.wait`; then it is dropped, or, when only
    optional depth is missing, delivered without it. Every image is either delivered or counted with its reason. What
    is delivered builds the frame when it is called: decoding and straightening take milliseconds, and most frames of a
    fast camera are overtaken by a newer one before the mapper has time for them.
    Not thread-safe: call it from one thread. The frames may be built in another one, one after the other.

    Args:
        options: how to match.
        poses: where the camera is.
        drops: where unused images are counted.
        deliver: called for every complete frame with what builds it, which raises DroppedFrame.
        depth_published: whether somebody publishes depth. The first keyframe sets the scale of the map, so that
            optional depth is also waited for before the first has come.
        camera: its name, where there are several; its topics begin with ~/`camera`.
    """

    def __init__(
        self,
        options: AssemblyOptions,
        poses: PoseSource,
        drops: DropCounter,
        deliver: Callable[[Callable[[], Frame]], None],
        depth_published: Callable[[], bool] = lambda: False,
        camera: str = "",
    ) -> None:
        self.options = options
        self.frames_without_depth = 0  # delivered although depth was expected
        self.doubt = ""  # why the last image that was delivered looks as if its frames were mixed up, in words
        self._poses = poses
        self._drops = drops
        self._deliver = deliver
        self._depth_published = depth_published
        self._base = f"~/{camera}" if camera else "~"
        self._builder = FrameBuilder(camera, options.same_frame)
        self._images: deque[_WaitingImage] = deque()
        self._calibrations: StampedQueue[_Calibration] = StampedQueue(options.queue)
        self._infos_in_step = 0  # images in a row that had a camera_info of their own stamp
        self._depths: StampedQueue[Image | CompressedImage] = StampedQueue(options.queue)
        self._last_stamp_ns: int | None = None

    def add_image(self, message: Image | CompressedImage, now: float) -> None:
        stamp_ns = stamp_to_ns(message.header.stamp)
        newest = self._images[-1].stamp_ns if self._images else self._last_stamp_ns
        if newest is not None and stamp_ns <= newest:
            if stamp_ns > newest - RESTART_NS:
                self._drops.add(DropReason.STALE, "an image is not newer than the one before it")
                return
            self._begin_again()
        self._images.append(_WaitingImage(stamp_ns, message, now + self.options.wait))
        self.advance()

    def add_camera_info(self, message: CameraInfo) -> None:
        lens: Lens | ConversionError
        frame = message.header.frame_id
        try:
            lens = lens_from_info(message, self.options.rectified)
        except ConversionError as error:  # kept: the images that need it are dropped with that reason
            lens = error
        self._calibrations.add(stamp_to_ns(message.header.stamp), _Calibration(lens, frame))
        self.advance()

    def add_depth(self, message: Image | CompressedImage) -> None:
        if self.options.depth != "off":
            self._depths.add(stamp_to_ns(message.header.stamp), message)
            self.advance()

    def poll(self, now: float) -> None:
        """Gives up images whose time has come, and looks for poses. Call it regularly, also when nothing arrives.

        An image is given up at the second look after its deadline: where the callbacks were held up, what it waits for
        may lie in the middleware, and is taken between the two.
        """
        for waiting in self._images:
            if now >= waiting.deadline:
                waiting.expired = waiting.overdue
                waiting.overdue = True
        self.advance()

    def advance(self) -> None:
        """Delivers the images that are complete. Call it when there are new poses."""
        while self._images:
            waiting = self._images[0]
            try:
                build = self._assemble(waiting, waiting.expired or len(self._images) > self.options.queue)
            except DroppedFrame as drop:
                self._drops.add(drop.reason, str(drop))
            else:
                if build is None:
                    return
                self._deliver(build)
            self._images.popleft()
            self._last_stamp_ns = waiting.stamp_ns

    def missing(self) -> str:
        """What the oldest waiting image lacks, in words; empty when none waits."""
        if not self._images:
            return ""
        waiting, needs_depth = self._images[0], self.options.depth == "required"
        try:
            pose = self._poses.at(waiting.stamp_ns, waiting.message.header.frame_id, expired=False)
        except DroppedFrame as drop:
            return str(drop)
        lacking = [
            what
            for what, there in (
                (f"{self._base}/camera_info", len(self._calibrations) > 0),
                ("poses", pose is not None),
                (f"{self._base}/depth", not needs_depth or self._depth_at(waiting.stamp_ns) is not None),
            )
            if not there
        ]
        return " and ".join(lacking)

    def _assemble(self, waiting: _WaitingImage, expired: bool) -> Callable[[], Frame] | None:
        """What builds the frame, or None while it is worth waiting.

        Raises:
            DroppedFrame: the image cannot be used.
        """
        stamp_ns, image = waiting.stamp_ns, waiting.message
        calibration = self._calibration_at(stamp_ns, expired)
        if calibration is None and expired:
            raise DroppedFrame(DropReason.NO_CAMERA_INFO, f"nothing on {self._base}/camera_info")
        T_world_camera = self._poses.at(stamp_ns, image.header.frame_id, expired)
        depth = self._depth_at(stamp_ns)
        depth_awaited = depth is None and self._depth_expected()
        if calibration is None or T_world_camera is None or (depth_awaited and not expired):
            return None
        self._infos_in_step = self._infos_in_step + 1 if calibration[0] == stamp_ns else 0
        lens, calibrated_frame = calibration[1].lens, calibration[1].frame
        if isinstance(lens, ConversionError):
            raise DroppedFrame(DropReason.BAD_CAMERA_INFO, str(lens))
        if depth_awaited:
            if self.options.depth == "required":
                within = f"within {self.options.slop:g} s of the image"
                detail = f"nothing on {self._base}/depth {within} (depth.use is 'required')"
                raise DroppedFrame(DropReason.NO_DEPTH, detail)
            self.frames_without_depth += 1
        self.doubt = doubt_of_axes(T_world_camera)
        if calibrated_frame and calibrated_frame != image.header.frame_id:
            self.doubt = f"its camera_info is of frame '{calibrated_frame}', its images of '{image.header.frame_id}'"
        return partial(self._builder.build, stamp_ns, image, lens, depth, T_world_camera)

    def _calibration_at(self, stamp_ns: int, expired: bool) -> tuple[int, _Calibration] | None:
        """A camera publishes one CameraInfo with every image, or one for ever: a calibration holds from its stamp on.
        Where images had their own until now, it is waited for, since the calibration may just have changed."""
        before, after = self._calibrations.before(stamp_ns), self._calibrations.after(stamp_ns)
        may_come = self._infos_in_step >= _IN_STEP and after is None and not expired
        if before is not None and (before[0] == stamp_ns or not may_come):
            return before
        return after

    def _depth_at(self, stamp_ns: int) -> Image | CompressedImage | None:
        nearest = self._depths.nearest(stamp_ns)
        if nearest is None or abs(nearest[0] - stamp_ns) > self.options.slop * 1e9:
            return None
        return nearest[1]

    def _depth_expected(self) -> bool:
        if self.options.depth == "auto":
            return len(self._depths) > 0 or self._depth_published()
        return self.options.depth == "required"

    def _begin_again(self) -> None:
        """Of a recording that is played once more. The queues notice for themselves."""
        for _ in self._images:
            self._drops.add(DropReason.STALE, "time jumped back while the image waited")
        self._images.clear()
        self._last_stamp_ns = None
        self._poses.begin_again()
