"""~/corrected_poses: what a SLAM system says, after a loop closure, about where images were taken."""

from __future__ import annotations

import threading

import numpy as np
from nav_msgs.msg import Path
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lerf_ros.mapping.corrections import Trajectory
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.ros.conversions import ConversionError, matrix_from_pose, stamp_to_ns
from lerf_ros.ros.declarations import Settings
from lerf_ros.ros.parameters import camera_mount, pose_options, qos_profile
from lerf_ros.ros.worker import MapWorker

_REPEAT = 10.0  # s, between warnings


class PoseCorrections:
    """Moves keyframes to the corrected poses of a Path. Open from the beginning.

    Each of its poses has a stamp of its own, by which keyframes find theirs. (A PoseArray has one stamp for all, and
    says of no pose when it was: it cannot be used.) Everything but keeping the newest message happens in the worker.

    The poses move `pose.child_frame`, on which the camera sits as the parameters say; without one, the camera's optical
    frame. Extrinsics from TF, or different ones of several cameras, are not known here.

    Args:
        worker: that of an active node.
    """

    def __init__(self, node: Node, settings: Settings, worker: MapWorker, group: CallbackGroup) -> None:
        self._node, self._worker = node, worker
        self._options, self._slop = pose_options(settings), settings["sync.slop"]
        self._mount = camera_mount(settings)
        self._mount_known = settings["pose.extrinsics"] != "tf" and not any(settings["cameras"])
        self._lock = threading.Lock()
        self._waiting: Path | None = None
        self._subscription = node.create_subscription(
            Path, "~/corrected_poses", self._on_path, qos_profile(settings, "corrected_poses"), callback_group=group
        )

    def close(self) -> None:
        self._node.destroy_subscription(self._subscription)

    def _on_path(self, message: Path) -> None:
        with self._lock:
            asked, self._waiting = self._waiting is not None, message
        if not asked:
            self._worker.request(self._apply)

    def _apply(self, online: OnlineMapper) -> None:
        """In the worker's thread: the newest path."""
        with self._lock:
            message, self._waiting = self._waiting, None
        assert message is not None
        log = self._node.get_logger()
        try:
            correction = online.correct(self._trajectory(message))
        except ConversionError as error:
            log.warning(f"~/corrected_poses is not used: {error}", throttle_duration_sec=_REPEAT)
            return
        if correction.keyframes and not correction.matched:
            log.warning(
                f"none of {correction.keyframes} keyframes has a stamp within ~/corrected_poses ({len(message.poses)} "
                f"poses; between two that are at most sync.pose_gap = {self._options.gap:g} s apart): each of "
                "its poses needs the stamp of an image",
                throttle_duration_sec=_REPEAT,
            )
        if correction.moved:
            units = online.mapper.config.scene.units
            log.info(
                f"{correction.moved} of {correction.keyframes} keyframes are moved, by {correction.translation:.3f} "
                f"{units} and {np.degrees(correction.rotation):.1f} deg at most; ~/corrected_poses says nothing about "
                f"{correction.keyframes - correction.matched}"
            )

    def _trajectory(self, message: Path) -> Trajectory:
        """Raises ConversionError."""
        if not self._mount_known:
            raise ConversionError(
                "with extrinsics from TF, or several cameras, it is not known where a camera was on the frame that is "
                "posed: set pose.extrinsics: parameters, with pose.xyz and pose.quaternion"
            )
        frame, options = message.header.frame_id.lstrip("/"), self._options
        if frame and frame != options.map_frame:
            raise ConversionError(
                f"its poses are in frame '{frame}', the map is in '{options.map_frame}': publish them in the map frame"
            )
        stamps = np.array([stamp_to_ns(each.header.stamp) for each in message.poses], np.int64)
        if len(stamps) > 1 and stamps[0] == stamps[-1]:
            raise ConversionError("its poses have one stamp for all: each needs that of its own image")
        poses = [self._mount.T_world_camera(matrix_from_pose(each.pose)) for each in message.poses]
        return Trajectory(stamps, np.array(poses).reshape(-1, 4, 4), options.gap, self._slop)
