"""The pixel work: messages that belong together -> Frame."""

from __future__ import annotations

from sensor_msgs.msg import CompressedImage, Image

from lerf_ros.geometry.lens import Lens, Rectification
from lerf_ros.geometry.poses import Pose
from lerf_ros.mapping.frame import Frame
from lerf_ros.ros.conversions import metres_from_depth, rgb_from_image
from lerf_ros.ros.drops import DroppedFrame, DropReason
from lerf_ros.ros.encodings import ConversionError


class FrameBuilder:
    """Decodes the images of one camera and removes the distortion of its lens. The tables for that are kept until the
    calibration changes.

    Args:
        camera: its name; the stream of its frames.
        same_frame: depth must not carry another frame_id than the image.
    """

    def __init__(self, camera: str = "", same_frame: bool = True) -> None:
        self._camera = camera
        self._same_frame = same_frame
        self._rectification: Rectification | None = None

    def build(
        self,
        stamp_ns: int,
        image: Image | CompressedImage,
        lens: Lens,
        depth: Image | CompressedImage | None,
        T_world_camera: Pose,
    ) -> Frame:
        """The frame of an undistorted pinhole camera.

        Depth may have another resolution than the image when it has its aspect: such depth is registered, too.

        Raises:
            DroppedFrame: BAD_IMAGE, BAD_CAMERA_INFO, BAD_DEPTH, UNREGISTERED_DEPTH or REJECTED.
        """
        try:
            rgb = rgb_from_image(image)
        except ConversionError as error:
            raise DroppedFrame(DropReason.BAD_IMAGE, str(error)) from error
        height, width = rgb.shape[:2]
        if lens.size != (width, height):
            raise DroppedFrame(
                DropReason.BAD_CAMERA_INFO,
                f"camera_info is for {lens.size[0]}x{lens.size[1]}, the image is {width}x{height}: "
                "remap the camera_info that belongs to this image",
            )
        rectification = self._rectification_of(lens)
        depth_z = None
        if depth is not None:
            depth_frame, image_frame = depth.header.frame_id, image.header.frame_id
            if self._same_frame and depth_frame and image_frame and depth_frame != image_frame:
                raise DroppedFrame(
                    DropReason.UNREGISTERED_DEPTH,
                    f"depth is in frame '{depth_frame}', the image in '{image_frame}'; set up "
                    "registration (depth_image_proc/register), or depth.check_frame: false if it is registered",
                )
            try:
                depth_z = metres_from_depth(depth)
            except ConversionError as error:
                raise DroppedFrame(DropReason.BAD_DEPTH, str(error)) from error
            if depth_z.shape[1] * height != depth_z.shape[0] * width:
                raise DroppedFrame(
                    DropReason.UNREGISTERED_DEPTH,
                    f"{depth_z.shape[1]}x{depth_z.shape[0]} vs image {width}x{height}; "
                    "set up registration (depth_image_proc/register)",
                )
            depth_z = rectification.depth(depth_z)
        try:
            colours = rectification.colour(rgb)
            return Frame(stamp_ns, colours, depth_z, rectification.camera, T_world_camera, self._camera)
        except ValueError as error:
            raise DroppedFrame(DropReason.REJECTED, str(error)) from error

    def _rectification_of(self, lens: Lens) -> Rectification:
        if self._rectification is None or self._rectification.lens != lens:
            try:
                self._rectification = Rectification(lens)
            except ValueError as error:
                raise DroppedFrame(DropReason.BAD_CAMERA_INFO, f"CameraInfo: {error}") from error
        return self._rectification
