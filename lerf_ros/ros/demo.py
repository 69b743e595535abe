"""The demo: camera node and mapping node as separate processes, questions over the service, pictures of the answers."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ament_index_python.packages import get_package_prefix

from lerf_ros.evaluation.demo_report import is_as_promised, outcome_table, report_heldout, summary, write_pictures
from lerf_ros.evaluation.localization import judge
from lerf_ros.features.encoder import load_encoder
from lerf_ros.geometry.units import METRES, NOT_METRES
from lerf_ros.mapping.config import PRESETS
from lerf_ros.mapping.online import OnlineMapper
from lerf_ros.msg import Status
from lerf_ros.query.targets import Answer
from lerf_ros.ros.answer_words import is_answer, young_map_notes
from lerf_ros.ros.client import ClientError, LerfClient
from lerf_ros.ros.messages import answer_from_response
from lerf_ros.world.room import Room
from lerf_ros.world.source import HELD_OUT_EVERY, FrameSource, open_source
from lerf_ros.world.truth import TruthQuery

DEFAULT_SEED = 2026
_ANSWERS_WITHIN = 300.0  # s, of all questions together: each of them looks closely at several places
QUERIES_OF_A_RECORDING = tuple(map(TruthQuery, ("a chair", "a bottle", "a mug", "a table", "a book", "a bin")))
MINI_CLIP_IN_THE_WILD = (
    "The built-in mini CLIP has only ever seen generated rooms: in a recording it may find little, or the wrong thing."
)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when answers were as promised, see `is_as_promised` (a recording has no truth: when it was mapped); 1 when they
    were not, or a process failed; 2 when it could not begin."""
    options = _options(arguments)
    say = _Speaker()
    _prepare_environment()
    try:
        source = open_source(options.source, options.world_scale)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    room = source if isinstance(source, Room) else None
    holdout = 0 if room else HELD_OUT_EVERY
    queries = [*room.present_queries(), *room.absent_queries()] if room else QUERIES_OF_A_RECORDING
    out = Path(options.out).resolve()
    here = Path.cwd().resolve()
    if out in (here, *here.parents, Path.home()) or (out / ".git").exists():
        print(f"--out {options.out} would be emptied: name a folder of its own", file=sys.stderr)
        return 2
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)

    say(f"{source.name}: {len(source)} frames. To watch: ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']} rviz2")
    for remark in remarks(source, holdout, options.depth == "on"):
        print(remark)
    try:
        answers = _map_and_ask(options, source.units, holdout, [query.text for query in queries], out, say)
    except (ClientError, DemoError) as error:
        print(f"{error}\nThe logs of both nodes are in {out}", file=sys.stderr)
        return 1
    outcomes = [judge(query, answer) for query, answer in zip(queries, answers, strict=True)]
    print(f"\n{outcome_table(outcomes, truth=room is not None, units=source.units)}\n")

    say("drawing pictures from the saved map")
    online = OnlineMapper(PRESETS["cpu"], load_encoder(), "cpu")  # the map brings its own settings
    online.load(out / "map")
    write_pictures(online, outcomes, out, truth=room is not None)
    if room is None:
        say(f"rendering the {len(range(0, len(source), HELD_OUT_EVERY))} views that were kept back")
        print(MINI_CLIP_IN_THE_WILD)
        print(report_heldout(online, source, out))
        say(f"done; pictures are in {out}")
        return 0
    say(f"done; pictures are in {out}")
    print(summary(outcomes))
    return 0 if is_as_promised(outcomes) else 1


class DemoError(RuntimeError):
    """A process ended before its work was done."""


def remarks(source: FrameSource, holdout: int, with_depth: bool) -> list[str]:
    """Sentences about what the map is made of: frames kept back, whether depth is used, and what lengths mean.

    Args:
        holdout: every n-th frame is not mapped; 0: all are.
        with_depth: whether depth is used where the source has it.
    """
    found = []
    if holdout:
        kept_back = len(range(0, len(source), holdout))
        found.append(
            f"{kept_back} of the {len(source)} frames are kept back: the map's renderings are compared with them."
        )
    if not with_depth:
        found.append("Depth is off: the room is mapped from colours alone, and its surfaces are less accurate.")
    elif source[0].depth_z is None:
        found.append("There is no depth: the scene is mapped from colours alone, and its surfaces are less accurate.")
    if source.units != METRES:
        found.append(f"{NOT_METRES[0].upper()}{NOT_METRES[1:]}.")
    return found


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    data = os.environ.get("DATA", "")
    seed = os.environ.get("LERF_SEED") or str(DEFAULT_SEED)
    parser.add_argument("--source", default=data or f"room:{seed}", help="'room:SEED' or the folder of a recording")
    parser.add_argument("--world-scale", type=float, help="metres per unit of a nerfstudio folder, where it is known")
    parser.add_argument(
        "--depth",
        type=_switch,
        default=os.environ.get("DEPTH") or "on",
        metavar="{on,off}",
        help="off: the camera publishes no depth, and colours alone are mapped; default: DEPTH, or on",
    )
    parser.add_argument("--seconds", type=float, default=170.0, help="of mapping, from the first keyframe on")
    parser.add_argument("--out", default="demo_out", help="folder for pictures, the map and logs; it is emptied first")
    return parser.parse_args(arguments)


def _switch(text: str) -> str:
    """ "on" or "off". argparse applies a type, unlike `choices`, also to the default from the environment."""
    if text.lower() not in ("on", "off"):
        raise argparse.ArgumentTypeError(f"it is {text!r}, and can be on or off")
    return text.lower()


def _prepare_environment() -> None:
    """Own domain, this machine only, and a transport that does not lose images."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    profile = Path(get_package_prefix("lerf_ros")) / "share/lerf_ros/config/fastdds.xml"
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))


def _map_and_ask(
    options: argparse.Namespace, units: str, holdout: int, texts: Sequence[str], out: Path, say: _Speaker
) -> list[Answer]:
    """Maps and asks with both processes over real DDS; ends them again, whatever happens."""
    node_parameters = ["autostart:=true", f"map.path:={out / 'map'}", f"map.units:={units}"]
    camera_parameters = [f"source:={options.source}", f"holdout:={holdout}"]
    if options.world_scale is not None:
        camera_parameters.append(f"world_scale:={options.world_scale}")
    if options.depth == "off":
        camera_parameters.append("depth_encoding:=none")
    camera_parameters += ["pace:=consumed", "rate:=30.0", "once:=true"]
    topics = [f"~/{topic}:=/camera/{topic}" for topic in ("image", "camera_info", "depth", "pose")]
    with (
        LerfClient(timeout=_ANSWERS_WITHIN) as client,
        _process("lerf_node", node_parameters, topics, out) as node,
        _process("camera_node", camera_parameters, [], out) as camera,
    ):
        status = _follow_mapping(client, node, camera, options.seconds, say)
        say(f"mapped: {status.keyframes} keyframes, {status.steps} training steps; asking {len(texts)} questions")
        responses = client.query_all(texts, max_targets=1)
        saved = client.save_map()
        if not saved.success:
            raise DemoError(f"the map could not be saved: {saved.message}")
    for response in responses:
        if not is_answer(response):
            raise DemoError(f"a question could not be answered: {response.message}")
    for note in young_map_notes([response.message for response in responses]):
        say(note)
    return [answer_from_response(text, response) for text, response in zip(texts, responses, strict=True)]


def _follow_mapping(
    client: LerfClient, node: subprocess.Popen[bytes], camera: subprocess.Popen[bytes], seconds: float, say: _Speaker
) -> Status:
    """Shows progress until all frames were taken and `seconds` have passed since the first keyframe."""
    first_keyframe = None
    while True:
        if node.poll() is not None:
            raise DemoError(f"the mapping node ended early, with exit status {node.returncode}")
        if camera.poll():
            raise DemoError(f"the camera node failed, with exit status {camera.returncode}")
        status = client.wait_for_status()
        if status.state == "error":
            raise DemoError(status.message)
        if status.keyframes and first_keyframe is None:
            first_keyframe = time.monotonic()
        mapped = time.monotonic() - first_keyframe if first_keyframe else 0.0
        say.progress(_progress(status, mapped / seconds))
        if mapped >= seconds and camera.poll() is not None:
            return status


def _progress(status: Status, share: float) -> str:
    if not status.keyframes:
        return status.message
    return (
        f"{100 * min(share, 1):3.0f} %  frames {status.frames_received:3d}, keyframes {status.keyframes:3d}, "
        f"crops encoded {100 * status.pyramid_progress:3.0f} %, "
        f"steps {status.steps:5d} ({status.steps_per_second:.1f}/s)"
    )


class _Speaker:
    """Prints where the demo stands, with the seconds since it began: in place on a terminal, else every ten seconds."""

    def __init__(self) -> None:
        self._began = self._spoke = time.monotonic()
        self._in_place = False

    def __call__(self, text: str) -> None:
        if self._in_place:
            print()
            self._in_place = False
        print(f"[{time.monotonic() - self._began:4.0f} s] {text}", flush=True)
        self._spoke = time.monotonic()

    def progress(self, text: str) -> None:
        if sys.stdout.isatty():
            print(f"\r[{time.monotonic() - self._began:4.0f} s] {text:<100}", end="", flush=True)
            self._in_place = True
        elif time.monotonic() - self._spoke >= 10.0:
            self(text)


@contextlib.contextmanager
def _process(
    executable: str, parameters: Sequence[str], remappings: Sequence[str], out: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """One of this package's executables; SIGINT at the end, as Ctrl-C would."""
    path = Path(get_package_prefix("lerf_ros")) / "lib/lerf_ros" / executable
    arguments = [argument for value in parameters for argument in ("-p", value)]
    arguments += [argument for value in remappings for argument in ("-r", value)]
    with (out / f"{executable}.log").open("wb") as log:
        process = subprocess.Popen([path, "--ros-args", *arguments], stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
