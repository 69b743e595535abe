"""Answers <-> messages, keyframes -> messages. The only place that fills lerf_ros, PoseWithCovarianceStamped, Path,
PoseArray and MarkerArray."""

from __future__ import annotations

import math

import numpy as np
from geometry_msgs.msg import Point, PoseArray, PoseStamped, PoseWithCovariance, PoseWithCovarianceStamped, Vector3
from nav_msgs.msg import Path
from numpy.typing import NDArray
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from lerf_ros.geometry.camera import Camera
from lerf_ros.geometry.poses import pose_from_quaternion, quaternion_from_pose
from lerf_ros.geometry.units import METRES, NOT_METRES
from lerf_ros.mapping.keyframes import KeyframePoses
from lerf_ros.msg import Target as TargetMessage
from lerf_ros.query.targets import Answer, Target
from lerf_ros.ros.answer_words import answer_message
from lerf_ros.ros.conversions import header, pose_message
from lerf_ros.srv import Query

_BEST = ColorRGBA(r=0.1, g=0.9, b=0.3, a=0.35)
_OTHER = ColorRGBA(r=0.2, g=0.5, b=1.0, a=0.25)
_KEYFRAME = ColorRGBA(r=1.0, g=0.75, b=0.2, a=0.8)
_WHITE = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
_UNKNOWN_ANGLE_VARIANCE = math.pi**2 / 3  # rad^2, of an angle that is uniformly distributed over a full turn
_MIN_EDGE = 0.005  # m; RViz refuses markers without thickness
_ARROW_LENGTH = 0.25  # m
_TEXT_HEIGHT = 0.06  # m
_FRUSTUM_DEPTH, _FRUSTUM_LINE = 0.12, 0.004  # m
_MOST_FRUSTA = 500  # of more keyframes, every second one is shown, or every third ...
_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))  # between the camera and four corners


def target_message(target: Target, text: str, stamped: Header) -> TargetMessage:
    """One target of the query `text`, in the frame of the header."""
    x, y, z = (float(value) for value in target.size)
    return TargetMessage(
        text=str(text),
        pose=PoseStamped(header=stamped, pose=pose_message(target.position, target.quaternion_xyzw)),
        covariance=_row_major(target.covariance),
        size=Vector3(x=x, y=y, z=z),
        relevancy=float(target.relevancy),
        scale=float(target.scale),
        support=int(target.support),
    )


def fill_response(response: Query.Response, answer: Answer, stamped: Header, units: str = METRES) -> Query.Response:
    """Puts an answer into the response of ~/query; `seconds` is left to the caller.

    Args:
        units: of the map's lengths, see `geometry.units`.
    """
    response.units = str(units)
    response.found = bool(answer.found)
    response.targets = [target_message(target, answer.text, stamped) for target in answer.targets]
    response.unknown_words = [str(word) for word in answer.unknown_words]
    response.best_relevancy = float(answer.best_relevancy)
    response.success, response.message = answer_message(answer)
    if answer.found and units != METRES:
        response.message += f"; {NOT_METRES}"
    return response


def answer_from_response(text: str, response: Query.Response) -> Answer:
    """The answer to `text` that a response of ~/query carries: the inverse of `fill_response`."""
    targets = tuple(_target_from_message(message) for message in response.targets)
    return Answer(text, targets, float(response.best_relevancy), tuple(response.unknown_words))


def _target_from_message(message: TargetMessage) -> Target:
    p, q, size = message.pose.pose.position, message.pose.pose.orientation, message.size
    return Target(
        position=np.array([p.x, p.y, p.z]),
        quaternion_xyzw=np.array([q.x, q.y, q.z, q.w]),
        size=np.array([size.x, size.y, size.z]),
        relevancy=float(message.relevancy),
        scale=float(message.scale),
        support=int(message.support),
        covariance=np.array(message.covariance, np.float64).reshape(3, 3),
    )


def target_with_covariance(target: Target, stamped: Header) -> PoseWithCovarianceStamped:
    """Pose of a target with its (6, 6) covariance, row-major, in the order of REP 103: x, y, z (m), rotations about the
    fixed x, y, z axes of the frame of the header (rad).

    The map does not estimate how uncertain the orientation is. ROS has no common encoding of that (zero would claim a
    perfect orientation, a negative variance breaks filters), so each rotation has the variance of an angle that is
    uniformly distributed over a full turn, ``pi^2 / 3``, uncorrelated with everything else.
    """
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = target.covariance
    covariance[3:, 3:] = _UNKNOWN_ANGLE_VARIANCE * np.eye(3)
    pose = pose_message(target.position, target.quaternion_xyzw)
    with_covariance = PoseWithCovariance(pose=pose, covariance=_row_major(covariance))
    return PoseWithCovarianceStamped(header=stamped, pose=with_covariance)


def _row_major(matrix: NDArray[np.float64]) -> list[float]:
    return [float(value) for value in np.asarray(matrix).ravel(order="C")]


def pose_array(answer: Answer, stamped: Header) -> PoseArray:
    """All targets, best first; empty when nothing was found."""
    poses = [pose_message(target.position, target.quaternion_xyzw) for target in answer.targets]
    return PoseArray(header=stamped, poses=poses)


def marker_array(answer: Answer, stamped: Header) -> MarkerArray:
    """Box, approach arrow and label of every target; replaces those of the answer before."""
    markers = [Marker(header=stamped, action=Marker.DELETEALL)]
    for index, target in enumerate(answer.targets):
        markers += [
            _box(target, index, stamped),
            _arrow(target, index, stamped),
            _label(target, f"{answer.text} {target.relevancy:.2f}", index, stamped),
        ]
    return MarkerArray(markers=markers)


def _box(target: Target, index: int, stamped: Header) -> Marker:
    x, y, z = (max(float(edge), _MIN_EDGE) for edge in target.size)
    return Marker(
        header=stamped,
        ns="box",
        id=index,
        type=Marker.CUBE,
        action=Marker.ADD,
        pose=pose_message(target.position, target.quaternion_xyzw),
        scale=Vector3(x=x, y=y, z=z),
        color=_OTHER if index else _BEST,
    )


def _arrow(target: Target, index: int, stamped: Header) -> Marker:
    """Points at the target along -x of its pose, the direction of approach."""
    outward = pose_from_quaternion(target.position, target.quaternion_xyzw)[:3, 0]
    return Marker(
        header=stamped,
        ns="approach",
        id=index,
        type=Marker.ARROW,
        action=Marker.ADD,
        pose=pose_message((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
        points=_points(target.position + _ARROW_LENGTH * outward, target.position),
        scale=Vector3(x=0.015, y=0.03, z=0.05),  # m: shaft diameter, head diameter, head length
        color=ColorRGBA(r=1.0, g=0.6, b=0.0, a=1.0),
    )


def _label(target: Target, text: str, index: int, stamped: Header) -> Marker:
    above = (*target.position[:2], target.position[2] + 0.5 * float(max(target.size)) + _TEXT_HEIGHT)
    return Marker(
        header=stamped,
        ns="label",
        id=index,
        type=Marker.TEXT_VIEW_FACING,
        action=Marker.ADD,
        pose=pose_message(above, (0.0, 0.0, 0.0, 1.0)),
        scale=Vector3(x=0.0, y=0.0, z=_TEXT_HEIGHT),
        color=_WHITE,
        text=str(text),
    )


def _points(*positions: NDArray[np.float64]) -> list[Point]:
    return [Point(x=float(x), y=float(y), z=float(z)) for x, y, z in positions]


def keyframe_path(keyframes: KeyframePoses | None, stamped: Header) -> Path:
    """Poses of the keyframes, optical axes, each with its own stamp, in the order of these."""
    path = Path(header=stamped)
    if keyframes is not None:
        for stamp_ns, T_world_camera in zip(keyframes.stamps_ns, keyframes.T_world_camera, strict=True):
            pose = pose_message(*quaternion_from_pose(T_world_camera))
            path.poses.append(PoseStamped(header=header(int(stamp_ns), stamped.frame_id), pose=pose))
    return path


def frusta_markers(keyframes: KeyframePoses | None, stamped: Header) -> MarkerArray:
    """What the cameras of the keyframes see, as one list of lines; replaces the one before."""
    markers = [Marker(header=stamped, action=Marker.DELETEALL)]
    if keyframes is not None and len(keyframes.stamps_ns):
        corners = frusta(keyframes.T_world_camera[:: -(-len(keyframes.stamps_ns) // _MOST_FRUSTA)], keyframes.camera)
        markers.append(
            Marker(
                header=stamped,
                ns="keyframes",
                type=Marker.LINE_LIST,
                action=Marker.ADD,
                pose=pose_message((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)),
                points=_points(*corners[:, _EDGES].reshape(-1, 3)),
                scale=Vector3(x=_FRUSTUM_LINE, y=0.0, z=0.0),
                color=_KEYFRAME,
            )
        )
    return MarkerArray(markers=markers)


def frusta(T_world_camera: NDArray[np.float64], camera: Camera) -> NDArray[np.float64]:
    """(N, 5, 3) m: the centres of cameras (N, 4, 4), and where the corners of their images are in front of them."""
    u = np.array([-0.5, camera.width - 0.5, camera.width - 0.5, -0.5])
    v = np.array([-0.5, -0.5, camera.height - 0.5, camera.height - 0.5])
    rim = _FRUSTUM_DEPTH * np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(4)], axis=-1)
    x_camera = np.concatenate([np.zeros((1, 3)), rim])
    return x_camera @ T_world_camera[:, :3, :3].transpose(0, 2, 1) + T_world_camera[:, None, :3, 3]
