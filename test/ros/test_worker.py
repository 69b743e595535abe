"""The worker with a map that only takes notes: no ROS, no training."""

from __future__ import annotations

import math
import threading
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from lerf_ros.query.options import QueryOptions
from lerf_ros.query.targets import Answer, QueryError
from lerf_ros.ros import worker as w
from lerf_ros.ros.autosave import AutoSave, SavePlan
from lerf_ros.ros.drops import DropCounter, DroppedFrame, DropReason
from lerf_ros.ros.pace import Limits

TIMEOUT = 10.0


class FakeMap:
    """Counts what the worker does; `gate` holds up the unit of work in progress."""

    encoder = None
    pyramid_progress = 0.5
    encoding = False

    def __init__(self):
        config = SimpleNamespace(keyframe=SimpleNamespace(capacity=9), scene=SimpleNamespace(units="m"))
        self.mapper = SimpleNamespace(
            steps=0, keyframes=0, config=config, outside_share=0.0, surface_age=0.0, steps_since_news=0
        )
        self.mapper.is_refining = self.mapper.lacks_baseline = False
        self.mapper.version = self.mapper.keyframes_version = 0
        self.mapper.store = None
        self.saved = []
        self.frames = []
        self.threads = set()
        self.gate = threading.Event()
        self.gate.set()
        self.in_step = threading.Event()
        self.failure = None
        self.settled = 0

    def surface(self, max_points, max_age=0.0):
        return SimpleNamespace(state=lambda steps, keyframes: (max_points, steps, keyframes))

    def ingest(self, frame):
        self.threads.add(threading.current_thread())
        if frame == "of another size":
            raise ValueError("the image has another size")
        self.frames.append(frame)
        self.mapper.keyframes += 1
        self.mapper.steps_since_news = 0
        return SimpleNamespace(prequential=None)

    def save(self, path):
        if path == "full":
            raise OSError("the disk is full")
        self.saved.append(self.mapper.steps)

    def settle(self):
        self.settled += 1

    def advance(self, may_step=True):
        self.threads.add(threading.current_thread())
        self.in_step.set()
        self.gate.wait(TIMEOUT)
        if self.failure is not None:
            raise self.failure
        if not may_step:
            return None
        self.mapper.steps += 1
        self.mapper.version += 1
        self.mapper.steps_since_news += 1
        return SimpleNamespace(loss=0.25, skipped=3)


@pytest.fixture
def rig(monkeypatch):
    """A started worker; `asked` holds the texts of every pass over the surface."""
    fake, drops, asked, taken = FakeMap(), DropCounter(), [], threading.Semaphore(0)

    def find_targets(surface, encoder, texts, options):
        asked.append(list(texts))
        if "" in texts:
            raise QueryError("the text is empty")
        return [Answer(text, (), 0.1) for text in texts]

    monkeypatch.setattr(w, "find_targets", find_targets)
    monkeypatch.setattr(w.gc, "collect", lambda: None)  # takes a second where a whole test suite is loaded
    worker = w.MapWorker(lambda: fake, drops, on_frame=taken.release, max_points=7)
    worker.start().result(TIMEOUT)
    yield SimpleNamespace(worker=worker, fake=fake, drops=drops, asked=asked, taken=taken)
    fake.gate.set()
    assert worker.stop(TIMEOUT)


def hold_in_step(rig):
    """Brings the worker into a training step and keeps it there."""
    rig.fake.gate.clear()
    rig.worker.resume()
    rig.worker.offer(lambda: "first")
    assert rig.fake.in_step.wait(TIMEOUT)


def test_frames_are_taken_and_trained_on_in_one_thread_of_its_own(rig):
    rig.worker.resume()
    rig.worker.offer(lambda: "a")
    assert rig.taken.acquire(timeout=TIMEOUT)
    assert rig.worker.statistics.frames_taken == 1 and rig.worker.statistics.keyframes == 1
    assert rig.fake.in_step.wait(TIMEOUT)
    rig.worker.request(lambda online: online.threads.add(threading.current_thread())).result(TIMEOUT)
    assert len(rig.fake.threads) == 1 and threading.current_thread() not in rig.fake.threads
    rig.worker.request(lambda online: None).result(TIMEOUT)  # the step has been read
    assert (rig.worker.statistics.loss, rig.worker.statistics.steps_skipped) == (0.25, 3)


def test_newest_frame_wins_and_the_others_are_counted(rig):
    hold_in_step(rig)
    for frame in ("b", "c", "d"):
        rig.worker.offer(lambda frame=frame: frame)
    assert rig.taken.acquire(timeout=TIMEOUT)  # the first
    rig.fake.gate.set()
    assert rig.taken.acquire(timeout=TIMEOUT)
    assert rig.fake.frames == ["first", "d"]
    assert rig.drops.count(DropReason.OVERRUN) == 2


def test_cameras_take_turns_and_only_replace_their_own_frames(rig):
    hold_in_step(rig)
    for frame, camera in (("front 1", "front"), ("rear 1", "rear"), ("front 2", "front"), ("rear 2", "rear")):
        rig.worker.offer(lambda frame=frame: frame, camera)
    assert rig.taken.acquire(timeout=TIMEOUT)
    rig.fake.gate.set()
    assert rig.taken.acquire(timeout=TIMEOUT) and rig.taken.acquire(timeout=TIMEOUT)
    assert rig.fake.frames == ["first", "front 2", "rear 2"]
    assert rig.drops.count(DropReason.OVERRUN) == 2


def test_a_frame_that_cannot_be_built_is_counted_with_its_reason(rig):
    def build():
        rig.fake.threads.add(threading.current_thread())
        raise DroppedFrame(DropReason.BAD_IMAGE, "no picture")

    rig.worker.resume()
    rig.worker.offer(build)
    assert rig.taken.acquire(timeout=TIMEOUT)
    assert rig.drops.snapshot() == [("bad_image: no picture", 1)]
    assert threading.current_thread() not in rig.fake.threads and rig.worker.error is None


def test_questions_that_wait_together_are_answered_together(rig):
    hold_in_step(rig)
    few, many = QueryOptions(max_targets=1), QueryOptions(max_targets=9)
    futures = [rig.worker.ask(text, few) for text in ("mug", "chair")] + [rig.worker.ask("bear", many)]
    rig.fake.gate.set()
    assert [future.result(TIMEOUT).text for future in futures] == ["mug", "chair", "bear"]
    assert futures[0].result(TIMEOUT).map_state == (7, 1, 1)  # surface points at most, steps, keyframes
    assert rig.asked == [["mug", "chair"], ["bear"]]


def test_a_bad_question_does_not_spoil_its_neighbours(rig):
    hold_in_step(rig)
    good, bad = rig.worker.ask("mug", QueryOptions()), rig.worker.ask("", QueryOptions())
    rig.fake.gate.set()
    assert good.result(TIMEOUT).text == "mug"
    with pytest.raises(QueryError, match="empty"):
        bad.result(TIMEOUT)
    assert rig.worker.error is None


def test_a_failing_request_goes_to_who_asked(rig):
    with pytest.raises(ZeroDivisionError):
        rig.worker.request(lambda online: 1 / 0).result(TIMEOUT)
    assert rig.worker.request(lambda online: "alive").result(TIMEOUT) == "alive"


def test_requests_are_answered_while_paused_and_nothing_is_trained(rig):
    rig.worker.resume()
    rig.worker.offer(lambda: "a")
    assert rig.fake.in_step.wait(TIMEOUT)
    rig.worker.pause()
    steps = rig.worker.request(lambda online: online.mapper.steps).result(TIMEOUT)
    rig.worker.offer(lambda: "b")
    assert rig.worker.request(lambda online: online.mapper.steps).result(TIMEOUT) == steps
    assert rig.fake.frames == ["a"]


def test_a_refused_frame_is_counted_and_reported_as_consumed(rig):
    rig.worker.resume()
    rig.worker.offer(lambda: "of another size")
    assert rig.taken.acquire(timeout=TIMEOUT)
    assert rig.drops.snapshot() == [("rejected: the image has another size", 1)]
    assert rig.worker.statistics.frames_taken == 0 and rig.worker.error is None


def test_a_failing_step_ends_the_worker_and_is_kept(rig):
    hold_in_step(rig)
    waiting = rig.worker.ask("mug", QueryOptions())
    rig.fake.failure = RuntimeError("out of memory")
    rig.fake.gate.set()
    with pytest.raises(w.WorkerStopped, match="out of memory"):
        waiting.result(TIMEOUT)
    assert isinstance(rig.worker.error, RuntimeError)
    with pytest.raises(w.WorkerStopped, match="out of memory"):
        rig.worker.ask("chair", QueryOptions()).result(TIMEOUT)


def test_stop_fails_what_still_waits(rig):
    hold_in_step(rig)
    waiting = rig.worker.request(lambda online: None)
    stopper = threading.Thread(target=rig.worker.stop, args=(TIMEOUT,))
    stopper.start()
    while not rig.worker._stopping:
        pass
    rig.fake.gate.set()
    stopper.join(TIMEOUT)
    with pytest.raises(w.WorkerStopped):
        waiting.result(TIMEOUT)
    with pytest.raises(w.WorkerStopped):
        rig.worker.ask("mug", QueryOptions()).result(TIMEOUT)


def test_what_goes_wrong_while_building_is_reported():
    def build():
        raise FileNotFoundError("no weights")

    worker = w.MapWorker(build, DropCounter())
    with pytest.raises(FileNotFoundError, match="no weights"):
        worker.start().result(TIMEOUT)
    assert isinstance(worker.error, FileNotFoundError)
    assert worker.stop(TIMEOUT)


SELDOM = Limits(max_rate=1e-4)  # a step every three hours


def wait_until(rig, condition):
    """Looks between two rounds of the worker."""
    while not condition():
        rig.worker.request(lambda online: None).result(TIMEOUT)


def test_a_rest_is_ended_by_whatever_comes(rig):
    rig.worker.limit(SELDOM)
    rig.worker.resume()
    rig.worker.offer(lambda: "a")
    assert rig.taken.acquire(timeout=TIMEOUT) and rig.fake.in_step.wait(TIMEOUT)
    assert rig.worker.request(lambda online: online.mapper.steps).result(TIMEOUT) == 1
    assert rig.worker.ask("mug", QueryOptions()).result(TIMEOUT).text == "mug"
    rig.worker.offer(lambda: "b")
    assert rig.taken.acquire(timeout=TIMEOUT)
    assert rig.worker.request(lambda online: online.mapper.steps).result(TIMEOUT) == 1
    rig.fake.in_step.clear()
    rig.worker.limit(Limits())
    assert rig.fake.in_step.wait(TIMEOUT)


def test_a_limited_share_counts_what_the_device_still_does(rig):
    hold_in_step(rig)
    rig.worker.limit(Limits(time_share=0.5))
    rig.fake.gate.set()
    rig.worker.request(lambda online: None).result(TIMEOUT)
    assert rig.fake.settled > 0


def test_training_ends_when_nothing_new_is_to_be_learnt_and_begins_again(rig):
    rig.worker.limit(Limits(idle_steps=3))
    rig.fake.encoding = True
    hold_in_step(rig)
    rig.fake.gate.set()
    wait_until(rig, lambda: rig.worker.statistics.steps >= 5)  # there are crops to encode
    assert not rig.worker.idle
    rig.fake.encoding = False
    wait_until(rig, lambda: rig.worker.idle)
    steps = rig.fake.mapper.steps
    for _ in range(3):
        assert rig.worker.request(lambda online: online.mapper.steps).result(TIMEOUT) == steps
    rig.worker.offer(lambda: "b")
    wait_until(rig, lambda: rig.worker.statistics.steps >= steps + 3 and rig.worker.idle)
    assert rig.fake.mapper.steps == steps + 3


def test_frames_that_come_faster_than_they_are_taken_leave_time_to_train(rig):
    """Each is followed by a step, although the next one is there already."""
    ingest = rig.fake.ingest

    def ingest_and_offer(frame):
        if len(rig.fake.frames) < 20:
            rig.worker.offer(lambda frame=frame: f"{frame}.")
        return ingest(frame)

    rig.fake.ingest = ingest_and_offer
    rig.worker.resume()
    rig.worker.offer(lambda: "a")
    for _ in range(20):
        assert rig.taken.acquire(timeout=TIMEOUT)
    frames, steps = rig.worker.request(lambda online: (len(online.frames), online.mapper.steps)).result(TIMEOUT)
    assert steps >= frames - 1


def test_a_map_is_saved_now_and_then_and_at_the_end():
    fake, said = FakeMap(), []
    saving = AutoSave(SavePlan("here", period=60.0, at_end=True), lambda what, well: said.append((what, well)))
    saving.begin(fake, 100.0)
    assert saving.rest(130.0) == 30.0
    saving.save(fake, 160.0)  # nothing new
    assert fake.saved == [] and saving.rest(160.0) == 60.0
    fake.ingest("a")
    fake.advance()
    saving.save(fake, 220.0)
    saving.save(fake, 280.0)
    assert fake.saved == [1] and said == [("the map of 1 keyframes is saved to here", True)]
    fake.advance()
    saving.end(fake, 281.0)
    assert fake.saved == [1, 2]


def test_a_map_that_cannot_be_saved_is_reported_and_tried_again():
    fake, said = FakeMap(), []
    saving = AutoSave(SavePlan("full", period=60.0), lambda what, well: said.append((what, well)))
    saving.begin(fake, 0.0)
    assert AutoSave(SavePlan("full"), print).rest(1e9) == math.inf
    fake.ingest("a")
    fake.advance()
    for now in (60.0, 120.0):
        saving.save(fake, now)
    assert said == [("the disk is full", False)] * 2
    saving.end(fake, 130.0)  # not wanted
    assert len(said) == 2


def test_a_worker_saves_when_it_is_time_and_when_it_ends():
    """Also while it rests; a map that came from the disk is not written there again."""
    fake, written = FakeMap(), threading.Semaphore(0)
    fake.mapper.keyframes = 1
    saving = AutoSave(SavePlan("here", period=1e-3, at_end=True), lambda what, well: written.release())
    worker = w.MapWorker(lambda: fake, DropCounter(), limits=SELDOM, autosave=saving)
    worker.start().result(TIMEOUT)
    worker.request(lambda online: None).result(TIMEOUT)
    assert fake.saved == []
    worker.resume()
    assert written.acquire(timeout=TIMEOUT) and fake.saved == [1]
    worker.request(lambda online: setattr(online.mapper, "version", 77)).result(TIMEOUT)
    assert written.acquire(timeout=TIMEOUT)
    worker.limit(Limits())
    assert fake.in_step.wait(TIMEOUT)
    worker.pause()
    assert worker.stop(TIMEOUT) and fake.saved[-1] == fake.mapper.steps


def test_while_questions_come_the_surface_is_kept_up(monkeypatch):
    """Made anew between two steps, before the next question would have to wait for it; not for ever, and not when that
    takes more than a tenth of the time."""
    clock, made = SimpleNamespace(now=100.0), []
    monkeypatch.setattr(w, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(w, "find_targets", lambda surface, encoder, texts, options: [Answer(t, (), 0.1) for t in texts])
    monkeypatch.setattr(w, "prepare", lambda surface, options: made.append(clock.now))
    fake = FakeMap()
    worker = w.MapWorker(lambda: fake, DropCounter(), max_age=1.0)

    def surface(max_points, max_age=0.0):
        clock.now += 0.02
        fake.mapper.surface_age = 0.0
        return FakeMap.surface(fake, max_points)

    fake.surface = surface
    worker._keep_up(fake)
    assert made == []  # nobody has asked
    worker._answer(fake, [w._Question("mug", QueryOptions(), Future())])
    for age, expected in ((0.5, 0), (0.8, 1), (0.8, 1), (0.8, 1)):
        fake.mapper.surface_age = age
        worker._keep_up(fake)
        assert len(made) == expected  # at once again, it would take more than a tenth of the time
    clock.now += 0.3
    worker._keep_up(fake)
    assert len(made) == 2
    clock.now += 6.0
    fake.mapper.surface_age = 9.0
    worker._keep_up(fake)
    assert len(made) == 2  # nobody asks any more
