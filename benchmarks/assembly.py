"""Time of a frame from messages to arrays: matching, in the executor's thread, and building, in the mapper's.

    python benchmarks/assembly.py [--size 640x480] [--repeats 50] [--threads 1]

One row for each kind of image and depth that a camera can send. Matching takes camera_info, pose, depth and image from
their callbacks to the mailbox; the middleware is not in it. Building decodes, straightens and checks; frames that are
overtaken by a newer one are never built. Needs ROS 2.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from measuring import Timing, provenance, write_json
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lerf_ros.geometry.camera import Camera
from lerf_ros.mapping.frame import Frame
from lerf_ros.ros import conversions as c
from lerf_ros.ros.assembly import AssemblyOptions, FrameAssembler
from lerf_ros.ros.drops import DropCounter
from lerf_ros.ros.pose_sources import FixedMount, PoseOptions, PoseTopic

_PERIOD_NS = 33_333_333
_BENT = [-0.28, 0.09, 0.001, -0.0008, -0.012]


@dataclass(frozen=True)
class Case:
    """What a camera sends."""

    name: str
    image: Callable[[np.ndarray], Image | CompressedImage]
    depth: Callable[[np.ndarray], Image | CompressedImage] | None = None
    bent: bool = False


def raw(picture: np.ndarray, encoding: str) -> Image:
    message = Image(height=picture.shape[0], width=picture.shape[1], encoding=encoding, step=picture.strides[0])
    message.data.frombytes(np.ascontiguousarray(picture).tobytes())
    return message


def compressed(picture: np.ndarray, extension: str, described: str, header: bytes = b"") -> CompressedImage:
    message = CompressedImage(format=described)
    message.data.frombytes(header + cv2.imencode(extension, picture)[1].tobytes())
    return message


def rgb(picture: np.ndarray) -> Image:
    return raw(picture, "rgb8")


def bgr(picture: np.ndarray) -> Image:
    return raw(picture, "bgr8")


def bayer(picture: np.ndarray) -> Image:
    return raw(np.ascontiguousarray(picture[..., 1]), "bayer_rggb8")


def jpeg(picture: np.ndarray) -> CompressedImage:
    return compressed(picture[..., ::-1], ".jpg", "rgb8; jpeg compressed bgr8")


def millimetres(depth_z: np.ndarray) -> Image:
    return raw((1000 * depth_z).astype(np.uint16), "16UC1")


def metres(depth_z: np.ndarray) -> Image:
    return raw(depth_z, "32FC1")


def png(depth_z: np.ndarray) -> CompressedImage:
    return compressed((1000 * depth_z).astype(np.uint16), ".png", "16UC1; compressedDepth png", bytes(12))


CASES = (
    Case("rgb8", rgb),
    Case("bgr8", bgr),
    Case("bayer_rggb8", bayer),
    Case("JPEG", jpeg),
    Case("rgb8, depth 16UC1", rgb, millimetres),
    Case("rgb8, depth 32FC1", rgb, metres),
    Case("rgb8, compressedDepth PNG", rgb, png),
    Case("rgb8, distorted", rgb, bent=True),
    Case("rgb8, depth 16UC1, distorted", rgb, millimetres, bent=True),
    Case("JPEG, compressedDepth PNG, distorted", jpeg, png, bent=True),
)


@dataclass(frozen=True)
class Row:
    """Of one case, a frame."""

    name: str
    matching: Timing
    building: Timing


def measure_case(case: Case, width: int, height: int, repeats: int) -> Row:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 255, (height, width, 3), np.uint8), (0, 0), 3)
    depth_z = cv2.GaussianBlur(rng.uniform(0.5, 5.0, (height, width)).astype(np.float32), (0, 0), 3)
    camera = Camera(0.9 * width, 0.9 * width, width / 2 - 0.5, height / 2 - 0.5, width, height)
    image, depth = case.image(picture), case.depth(depth_z) if case.depth else None
    info = c.camera_info_message(camera, c.header(0, "camera"))
    if case.bent:
        info.d = _BENT
    delivered: list[Callable[[], Frame]] = []
    poses = PoseTopic(PoseOptions(), FixedMount(c.CameraMount()))
    options = AssemblyOptions(depth="required" if depth else "off")
    assembler = FrameAssembler(options, poses, DropCounter(), delivered.append)
    matching, building = [], []
    for i in range(repeats + 2):  # the first ones make tables
        stamped = c.header((i + 1) * _PERIOD_NS, "camera")
        for message in filter(None, (info, image, depth)):
            message.header = stamped
        match_ms = _milliseconds(partial(match, assembler, poses, info, _pose(i), depth, image))
        matching.append(match_ms)
        building.append(_milliseconds(delivered.pop()))
    return Row(case.name, Timing.of(matching[2:]), Timing.of(building[2:]))


def _pose(i: int) -> list[PoseStamped]:
    """The two around an image."""
    stamps = (i + 1) * _PERIOD_NS - 5_000_000, (i + 1) * _PERIOD_NS + 5_000_000
    return [c.pose_stamped_message(np.eye(4), c.header(stamp_ns, "map")) for stamp_ns in stamps]


def match(
    assembler: FrameAssembler,
    poses: PoseTopic,
    info: CameraInfo,
    posed: Sequence[PoseStamped],
    depth: Image | CompressedImage | None,
    image: Image | CompressedImage,
) -> None:
    assembler.add_camera_info(info)
    for message in posed:
        poses.add(message)
        assembler.advance()
    if depth is not None:
        assembler.add_depth(depth)
    assembler.add_image(image, 0.0)


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - begun)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480", help="WIDTHxHEIGHT of the images, pixels")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of OpenCV")
    parser.add_argument("--json", type=Path, help="file to write")
    asked = parser.parse_args(arguments)
    width, height = map(int, asked.size.split("x"))
    cv2.setNumThreads(asked.threads)
    rows = []
    print(f"{asked.size}, {asked.threads} threads; ms: median (10th .. 90th percentile)")
    print(f"{'':40}{'matching':>28}{'building':>32}")
    for case in CASES:
        rows.append(measure_case(case, width, height, asked.repeats))
        print(f"{case.name:40}{rows[-1].matching!s:>28}{rows[-1].building!s:>32}", flush=True)
    if asked.json:
        write_json(asked.json, "assembly", provenance(torch.device("cpu")), None, rows)


if __name__ == "__main__":
    main()
