"""/diagnostics and ~/status of a node over real DDS, and what they are made of."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import torch

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from lerf_ros.ros import diagnostics as d  # noqa: E402
from lerf_ros.ros import words  # noqa: E402
from lerf_ros.ros.input_health import InputHealth, InputReport  # noqa: E402
from lerf_ros.ros.snapshot import Learning, Observer, Snapshot  # noqa: E402
from lerf_ros.ros.worker import WorkerStatistics  # noqa: E402

pytestmark = pytest.mark.ros
IMAGE = InputReport("image", "/camera/image", False, 40, 0, 29.5, 0.1, 0.02, math.nan, 1, (), "")
GOOD = Snapshot(
    state="active",
    message="mapping",
    failed=False,
    device="cpu",
    gpu=None,
    statistics=WorkerStatistics(frames_taken=3, keyframes=2),
    learning=Learning(12.0, 30.0, 0.5),
    health=InputHealth((IMAGE,)),
    drops=[("overrun: a newer frame came", 7)],
    mistyped=[],
    last_query="",
)


def tasks(snapshot: Snapshot, newly_dropped: int = 0) -> dict[str, DiagnosticStatus]:
    array = d.diagnostics("robot/lerf", Time(seconds=5), snapshot, newly_dropped)
    assert array.header.stamp.sec == 5
    assert all(status.hardware_id == "cpu" and status.name.startswith("robot/lerf: ") for status in array.status)
    return {status.name.removeprefix("robot/lerf: "): status for status in array.status}


def test_a_node_that_works_is_ok_in_every_respect():
    found = tasks(GOOD)
    assert list(found) == ["lifecycle", "image", "frames", "map", "memory", "parameters"]
    assert all(status.level == d.OK for status in found.values())
    assert found["image"].message == "29.5 Hz" and found["map"].message == "2 keyframes, 12.0 steps/s"
    values = {pair.key: pair.value for status in found.values() for pair in status.values}
    assert values["dropped: overrun"] == "7" and values["dropped: no_pose"] == "0"
    assert values["offset to the image (s)"] == "unknown" and values["delay (s)"] == "0.02"


@pytest.mark.parametrize(
    ("task", "level", "change"),
    [
        ("lifecycle", d.ERROR, {"failed": True}),
        ("image", d.ERROR, {"health": InputHealth((replace(IMAGE, problem="nobody publishes", publishers=0),))}),
        ("image", d.WARN, {"health": InputHealth((replace(IMAGE, lost=20),))}),
        ("image", d.STALE, {"health": InputHealth((replace(IMAGE, received=0),))}),
        ("image", d.OK, {"health": InputHealth((replace(IMAGE, problem="nobody", publishers=0, optional=True),))}),
        ("map", d.WARN, {"statistics": WorkerStatistics(outside_share=0.5)}),
        ("parameters", d.WARN, {"mistyped": ["parameter presett does not exist"]}),
    ],
)
def test_what_is_wrong_is_said_where_it_is(task, level, change):
    found = tasks(replace(GOOD, **change))
    assert found[task].level == level
    assert all(status.level == d.OK for name, status in found.items() if name != task)


def test_dropped_frames_are_an_error_as_long_as_none_was_taken():
    dropped = replace(GOOD, drops=[*GOOD.drops, ("no_pose: nothing on ~/pose", 4)])
    assert tasks(dropped)["frames"].level == d.OK  # long ago
    assert tasks(dropped, 2)["frames"].level == d.WARN
    assert tasks(replace(dropped, statistics=WorkerStatistics()), 2)["frames"].level == d.ERROR
    assert tasks(dropped, 2)["frames"].message == "2 frames dropped in the last second; no_pose: nothing on ~/pose"


def test_the_observer_tells_speed_and_age_from_the_counts():
    observer = Observer()
    first = observer.look(WorkerStatistics(), 100.0)
    assert first.steps_per_second == 0 and math.isnan(first.age) and math.isnan(first.unchanged)
    for second in range(1, 9):  # a keyframe after 1 s, then 5 steps/s
        learning = observer.look(WorkerStatistics(keyframes=1, steps=5 * second), 100.0 + second)
    assert learning == Learning(5.0, 7.0, 0.0)
    assert observer.look(WorkerStatistics(keyframes=1, steps=40), 111.0).unchanged == 3.0
    assert math.isnan(observer.look(WorkerStatistics(), 112.0).age)  # reset


class Diagnostics:
    """Listens to /diagnostics through the node of a client."""

    def __init__(self, client) -> None:
        self._client = client
        self._latest: DiagnosticArray | None = None
        client._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_array, 10)

    def _on_array(self, array: DiagnosticArray) -> None:
        self._latest = array

    def wait_for(self, task: str, condition) -> DiagnosticStatus:
        deadline = time.monotonic() + self._client.timeout
        while time.monotonic() < deadline:
            self._client._executor.spin_once(timeout_sec=0.1)
            for status in self._latest.status if self._latest else ():
                if status.name == f"lerf: {task}" and condition(status):
                    return status
        raise AssertionError(f"{task} did not come to that: {self._latest}")


def test_a_node_says_over_dds_what_is_wrong(lerf, set_parameters):
    client, heard = lerf.client, Diagnostics(lerf.client)
    assert heard.wait_for("lifecycle", lambda s: "lerf is unconfigured" in s.message).level == d.OK
    assert set_parameters(client, qos__image__reliability="reliable") == ""
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    client._node.create_publisher(Image, "/lerf/image", best_effort)
    client._node.create_publisher(CompressedImage, "/lerf/depth", 5)
    client._node.create_publisher(Image, "/camera/image", 5)
    for transition in ("configure", "activate"):
        assert client.change_state(transition)
    image = heard.wait_for("image", lambda s: "incompatible" in s.message)
    assert image.level == d.ERROR
    assert "publishers: 1, its reliability is BEST_EFFORT, ours RELIABLE: incompatible" in image.message
    pose = heard.wait_for("pose", lambda s: s.level == d.ERROR)
    assert pose.message.startswith("nobody publishes /lerf/pose: start the camera")
    depth = heard.wait_for("depth", lambda s: s.level == d.ERROR)
    assert "its type is sensor_msgs/msg/CompressedImage, ours sensor_msgs/msg/Image" in depth.message
    status = client.wait_for_status(lambda status: "incompatible" in status.message)
    assert status.message.startswith("nobody publishes /lerf/camera_info, /lerf/pose: start the camera")
    assert {each.name: each.publishers for each in status.inputs} == {
        "camera_info": 0,
        "pose": 0,
        "image": 1,
        "depth": 1,
    }
    assert client.query("a chair").message == f"no keyframe yet: {status.message}"
    lerf.kill_worker()
    dead = heard.wait_for("lifecycle", lambda s: s.level == d.ERROR)
    assert "the mapper has failed (out of memory)" in dead.message


def test_frames_and_drops_are_counted_over_dds(lerf):
    client, heard = lerf.client, Diagnostics(lerf.client)
    for transition in ("configure", "activate"):
        assert client.change_state(transition)
    lerf.frame(without=["pose"])
    heard.wait_for("frames", lambda s: s.level == d.ERROR and "no_pose" in s.message)
    lerf.frame()
    status = client.wait_for_status(lambda status: status.frames_received == 1 and status.map_age > 0)
    assert status.keyframes == 1 and {each.name: each.received for each in status.inputs}["image"] == 2
    assert {each.name: each.offset for each in status.inputs}["depth"] == 0.0
    heard.wait_for("frames", lambda s: s.level == d.OK and s.message == "1 frames taken")
    values = {pair.key: pair.value for pair in heard.wait_for("frames", lambda s: True).values}
    assert values["dropped: no_pose"] == "1" and values["taken"] == "1"


@pytest.mark.parametrize(
    ("state", "error", "failure", "said"),
    [
        ("active", None, "", ""),
        ("unconfigured", None, "", "lerf is unconfigured: ros2 lifecycle set /robot/lerf configure, then activate"),
        ("unconfigured", None, "no", "no: ros2 lifecycle set /robot/lerf configure, then activate"),
        ("inactive", None, "", "lerf is inactive: ros2 lifecycle set /robot/lerf activate"),
        (
            "inactive",
            OSError("x"),
            "",
            "the mapper has failed (x): ros2 lifecycle set /robot/lerf cleanup, then configure",
        ),
        ("configuring", None, "", "lerf is configuring: wait"),
        ("finalized", None, "", "lerf has been shut down: start it anew"),
    ],
)
def test_a_refusal_names_the_next_step(state, error, failure, said):
    assert words.refusal("/robot/lerf", state, error, failure) == said


def test_what_is_waited_for_and_what_could_be_better():
    none, some = WorkerStatistics(), WorkerStatistics(frames_taken=1)
    good = InputHealth((IMAGE,))
    broken = InputHealth((replace(IMAGE, problem="no message on /camera/image for 9 s"),))
    depth = replace(IMAGE, name="depth", optional=True, problem="its type is Mist")
    drops = [("no_pose: nothing on ~/pose", 3)]
    assert words.waits_for(None, none, []) == "" and words.progress(None, none, False).startswith("answering")
    assert words.waits_for(good, none, []) == "no frame yet"
    assert words.waits_for(good, none, drops) == "every frame is dropped; no_pose: nothing on ~/pose"
    assert words.waits_for(replace(good, missing="~/pose"), none, drops).endswith("nothing that fits them on ~/pose")
    assert words.waits_for(good, some, drops) == "" and words.progress(good, some, False) == "mapping"
    assert words.waits_for(broken, some, []) == "no message on /camera/image for 9 s"  # the camera was unplugged
    assert words.progress(InputHealth((IMAGE, depth)), some, False) == "mapping, but its type is Mist"
    silent = replace(depth, topic="/camera/depth", publishers=0, received=0)
    alone = "mapping; nobody publishes /camera/depth: colours alone are mapped"
    assert words.progress(InputHealth((IMAGE, silent)), some, False) == alone
    assert words.progress(InputHealth((IMAGE, replace(silent, received=5))), some, False) == "mapping"
    assert "not metres" in words.progress(good, replace(some, units="scene units"), False)
    refined = replace(some, keyframes=9, refined_keyframes=8)
    assert words.progress(good, refined, False) == "mapping; poses of 8 of 9 keyframes are refined"
    assert words.waits_for(InputHealth((IMAGE, depth)), some, []) == ""
    assert "9 messages of /camera/image were lost" in words.progress(
        InputHealth((replace(IMAGE, lost=9),)), some, False
    )
    assert words.progress(replace(good, frames_without_depth=2), some, True) == (
        "idle: nothing new to be learnt; 2 frames came without their depth"
    )
    assert "outside the mapped volume" in words.progress(good, WorkerStatistics(outside_share=0.5), False)


def test_memory_is_that_of_the_gpu_that_the_map_is_on(monkeypatch):
    used = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: {used: (4e8, 1e10)}[gpu])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda gpu: {used: 7e9}[gpu])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: {used: 6e9}[gpu])
    memory = d.diagnostics("lerf", Time(), replace(GOOD, device="a GPU", gpu=used), 0).status[-2]
    assert memory.name == "lerf: memory" and memory.hardware_id == "a GPU" and memory.level == d.WARN
    assert memory.message == "7000 MB reserved on the GPU, 400 MB free"
