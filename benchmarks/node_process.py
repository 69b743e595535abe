"""What benchmarks over real ROS topics share: the node in a process of its own, and the options of how it is run and
of the generated room that it is shown."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ament_index_python.packages import get_package_prefix
from measuring import ROOT, provenance

from lerf_ros.mapping.config import PRESETS
from lerf_ros.ros.client import ClientError
from lerf_ros.world.room import Room

PREFIX = Path(get_package_prefix("lerf_ros"))  # of the installed package
_ENDS_WITHIN = 30.0  # s, the node after SIGINT


class BenchmarkError(RuntimeError):
    """Nothing can be measured; the text says why."""


class NodeProcess:
    """A node in a process of its own: `lerf`, or what another command starts.

    Args:
        log: file for what it prints.
        parameters: NAME:=VALUE.
        command: without ROS arguments; empty: that of `lerf`.
        remapped: FROM:=TO.
    """

    def __init__(
        self, log: Path, parameters: Sequence[str], command: Sequence[Path | str] = (), remapped: Sequence[str] = ()
    ) -> None:
        self._log = log
        command = command or [PREFIX / "lib/lerf_ros/lerf_node"]
        arguments = [argument for value in parameters for argument in ("-p", value)]
        arguments += [argument for rule in remapped for argument in ("-r", rule)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--ros-args", *arguments], stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """
        Raises:
            BenchmarkError: the node has ended.
        """
        if self._process.poll() is not None:
            raise self.failure("the node ended early")

    def failure(self, why: str) -> BenchmarkError:
        """An error with the node's exit status, if it has one, and its last words."""
        status = self._process.poll()
        ended = "" if status is None else f" (its exit status: {status})"
        words = self._log.read_text(errors="replace").splitlines()[-20:]
        return BenchmarkError("\n".join([f"{why}{ended}; its last words:", *words]))

    def end(self) -> None:
        """As Ctrl-C would.

        Raises:
            BenchmarkError: it does not end, or not as it should.
        """
        self.check()
        self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(_ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            raise self.failure(f"the node did not end within {_ENDS_WITHIN:g} s after SIGINT") from None
        if status:
            raise self.failure("the node did not end well after SIGINT")

    def kill(self) -> None:
        """Whatever state it is in."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


@contextmanager
def running_node(
    log: Path, parameters: Sequence[str], command: Sequence[Path | str] = (), remapped: Sequence[str] = ()
) -> Iterator[NodeProcess]:
    """A `NodeProcess`. Ends it by SIGINT and looks at its exit status; kills it where the body raised."""
    node = NodeProcess(log, parameters, command, remapped)
    try:
        yield node
        node.end()
    except ClientError as error:  # no answer: the node knows why
        raise node.failure(str(error)) from error
    finally:
        node.kill()


def prepare_environment(domain: int | None) -> None:
    """A domain of its own, this machine only, and a transport that does not lose images, as in the demo."""
    if domain is not None:
        os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    profile = PREFIX / "share/lerf_ros/config/fastdds.xml"
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(profile))


def parser_of(description: str | None, name: str, rate: float) -> argparse.ArgumentParser:
    """Options of all benchmarks that show a generated room to a node."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device(device))
    parser.add_argument("--preset", choices=sorted(PRESETS), default="base" if device == "cuda" else "cpu")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME:=VALUE", help="of the node, any other"
    )
    parser.add_argument("--room", type=int, default=4100, help="seed")
    parser.add_argument("--width", type=int, default=640, help="px, of the images; their height is 3/4 of it")
    parser.add_argument("--frames", type=int, default=80, help="of the walk")
    parser.add_argument("--rate", type=float, default=rate, help="Hz, of the camera")
    parser.add_argument("--domain", type=int, help="ROS_DOMAIN_ID; else that of the environment, or a random one")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "results" / f"{name}.json")
    return parser


def room_of(options: argparse.Namespace) -> Room:
    """What the camera walks through."""
    return Room(options.room, options.width, options.width * 3 // 4, options.frames)


def origin_of(options: argparse.Namespace, room: Room) -> dict[str, Any]:
    """Where figures come from, for their record."""
    origin = provenance(options.device)
    origin |= {"preset": options.preset, "parameters": options.parameter, "room": room.name, "rate_hz": options.rate}
    return origin | {"image": f"{room.camera.width}x{room.camera.height}"}
