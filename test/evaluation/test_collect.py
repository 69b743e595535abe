import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lerf_ros.evaluation import collect as collect_module
from lerf_ros.evaluation import command, records
from lerf_ros.evaluation.ablations import VARIANTS
from lerf_ros.evaluation.collect import DONE, Job, Progress, Task, collect, pending, run_file
from lerf_ros.evaluation.pacing import Budget
from lerf_ros.evaluation.records import EXAM_VERSION, RoomResult, RunSettings
from lerf_ros.evaluation.variants import Variant
from lerf_ros.features.encoder import EncoderError

HASH = "0123"
SETTINGS = RunSettings("cpu", Budget(steps=10), "cpu", HASH)


@pytest.fixture
def variants(monkeypatch):
    for variant in (Variant("one"), Variant("two", {"sampling.samples": 8}), Variant("few", rooms=1)):
        monkeypatch.setitem(VARIANTS, variant.name, variant)


def result_of(seed: int, variant: str, settings: RunSettings = SETTINGS) -> RoomResult:
    """A made-up result: one question that is answered rightly in even rooms."""
    answer = {"relevancy": 0.9, "correct": seed % 2 == 0, "error": 0.01, "centre_error": 0.02, "hits": 1}
    answer |= {"position": [0.0, 0.0, 0.0], "landed": [1, "", 0.01], "in_ellipsoid": True, "views": [1, 2]}
    query = {"text": "a mug", "category": "object", "instance_ids": [1], "things": ["a red mug"], "part": None}
    query |= {"part_of_part": False, "rivals": [], "chance": None}
    figures = dict.fromkeys(("psnr", "depth_error", "memory_mb", "seconds", "steps", "keyframes"), 1.0)
    figures |= {"pyramid_progress": 1.0, "room_chance": 0.01, "fidelity": [[24, 0.9, 10, 0.5]]}
    return RoomResult(
        seed=seed,
        variant=variant,
        fingerprint=settings.fingerprint(VARIANTS[variant]),
        found_threshold=0.5,
        settings={"exam": EXAM_VERSION},
        machine={"device": "none", "torch": "0"},
        things={},
        queries=[query],
        methods={"field": {"seconds": 1.0, "answers": [answer]}},
        curve=[{"share": 1.0, "seconds": 9.0, "steps": 10, "keyframes": 3, "correct": {"field": [answer["correct"]]}}],
        figures=figures,
    )


def known(folder: Path) -> set[tuple[int, str, str]]:
    return {(r.seed, r.variant, r.fingerprint) for r in records.read(folder)}


def write_result(task: Task, job: Job, say) -> None:
    for name in task.variants:
        if task.seed == 7:
            raise KeyboardInterrupt
        records.append(job.results, result_of(task.seed, name, job.settings))
        say(DONE)


def test_a_killed_run_goes_on_where_it_was(tmp_path, variants):
    folder, names = tmp_path / "rooms", ["one", "two"]
    first = pending([5, 6, 7, 8], names, SETTINGS, known(folder))
    assert first == [Task(seed, ("one", "two")) for seed in (5, 6, 7, 8)]
    job = Job(SETTINGS, ("mini", ""), run_file(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        collect(first, job, write_result, io.StringIO())
    with job.results.open("a") as file:  # and in the middle of a line
        file.write(json.dumps(result_of(7, "one").__dict__)[:100])
    assert pending([5, 6, 7, 8], names, SETTINGS, known(folder)) == first[2:]
    # A second file of the next run; what it does is not done a third time.
    records.append(folder / "later.jsonl", result_of(7, "two"))
    assert pending([5, 6, 7, 8], names, SETTINGS, known(folder)) == [Task(7, ("one",)), first[3]]


def test_other_settings_are_measured_anew(tmp_path, variants):
    for seed in (5, 6):
        records.append(tmp_path / "a.jsonl", result_of(seed, "one"))
    assert pending([5, 6], ["one"], SETTINGS, known(tmp_path)) == []
    changes = (
        {"budget": Budget(steps=11)},
        {"overrides": {"sampling.samples": 9}},
        {"views": 3},
        {"device": "cuda"},
        {"encoder_hash": "4567"},
    )
    for change in changes:
        assert len(pending([5, 6], ["one"], replace(SETTINGS, **change), known(tmp_path))) == 2
    # Processes side by side change what a second is worth, not what a step is.
    assert pending([5, 6], ["one"], replace(SETTINGS, jobs=4), known(tmp_path)) == []
    timed = replace(SETTINGS, budget=Budget(seconds=5.0))
    variant = VARIANTS["one"]
    assert timed.fingerprint(variant) != replace(timed, jobs=4).fingerprint(variant)


def test_a_costly_variant_is_limited_to_the_first_rooms(variants):
    tasks = pending([5, 6], ["one", "few"], SETTINGS, set())
    assert tasks == [Task(5, ("one", "few")), Task(6, ("one",))]


def test_the_newest_settings_of_a_variant_are_reported(tmp_path, variants):
    for seed in (5, 6, 7):
        records.append(tmp_path / "1.jsonl", result_of(seed, "one"))
    longer = replace(SETTINGS, budget=Budget(steps=20))
    records.append(tmp_path / "2.jsonl", result_of(6, "one", longer))
    assert [r.seed for r in records.latest(records.read(tmp_path))] == [6]
    records.append(tmp_path / "3.jsonl", result_of(8, "default"))
    assert [r.variant for r in records.latest(records.read(tmp_path))] == ["default", "one"]


def test_a_failure_in_a_process_of_its_own_ends_the_run(tmp_path):
    job = Job(replace(SETTINGS, jobs=2), ("no such model", ""), run_file(tmp_path))
    with pytest.raises(EncoderError, match="no such model"):
        collect([Task(5, ("default",))], job, stream=io.StringIO())
    assert not job.results.exists()


def test_progress_says_how_far_it_is():
    stream = io.StringIO()
    progress = Progress(4, stream)
    progress.hear("mapping")  # too soon to say
    for _ in range(2):
        progress.hear(DONE)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2 and "##########          ] 2 of 4 maps, about" in lines[1]


def test_the_command_asks_what_is_missing_and_reports(tmp_path, variants, monkeypatch, capsys):
    done = []

    def instead(tasks, job):
        for task in tasks:
            done.append(task.seed)
            records.append(job.results, result_of(task.seed, "one", job.settings))

    monkeypatch.setattr(command, "collect", instead)
    monkeypatch.setattr(command.records, "encoder_hash", lambda encoder: HASH)
    monkeypatch.setenv("LERF_SEEDS", "4,6-7")
    arguments = ["--device", "cpu", "--preset", "cpu", "--steps", "10", "--variants", "one", "--out", str(tmp_path)]
    for _ in range(2):
        assert command.main(arguments) == 0
    assert done == [4, 6, 7]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["localization_accuracy_3d"]["value"] == pytest.approx(2 / 3)
    assert summary["localization_accuracy_2d"] == {"value": 0.5, "low": 0.5, "high": 0.5, "queries": 3}
    assert summary["parts_accuracy"]["queries"] == 0 and summary["parts_accuracy"]["value"] is None
    assert "localisation in 3D" in capsys.readouterr().out
    assert command.main(["--report-only", "--out", str(tmp_path)]) == 0
    assert command.main(["--report-only", "--out", str(tmp_path), "--against", str(tmp_path)]) == 0
    pair = json.loads((tmp_path / "summary.json").read_text())["paired"][f"one/field - one of {tmp_path.name}/field"]
    assert pair["rooms"] == 3 and pair["localization_accuracy_3d"]["value"] == 0.0  # with itself
    assert command.main(["--report-only", "--out", str(tmp_path / "nothing")]) == 1
    assert "no results" in capsys.readouterr().err
    for wrong in (["--variants", "none"], ["--set", "foo"]):
        with pytest.raises(SystemExit):
            command.main([*arguments, *wrong])
    assert "name=value" in capsys.readouterr().err


WORKER = """
import os, sys, time
from pathlib import Path
from lerf_ros.evaluation.collect import Job, Task, collect
from test_collect import SETTINGS
from dataclasses import replace

def work(task, job, say):
    (job.results.parent / f"pid{task.seed}").write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    job = Job(replace(SETTINGS, jobs=2), ("mini", ""), Path(sys.argv[1]))
    collect([Task(1, ("one",)), Task(2, ("one",))], job, work)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_a_run_that_was_ended(tmp_path, how):
    (tmp_path / "run.py").write_text(WORKER)
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    command_line = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "results.jsonl")]
    run = subprocess.Popen(command_line, env={**os.environ, "PYTHONPATH": path})
    try:
        pids = [int(wait_for(lambda n=n: (tmp_path / f"pid{n}").read_text())) for n in (1, 2)]
        run.send_signal(how)
        assert run.wait(60) != 0  # the work takes ten minutes
    finally:
        run.kill()
        run.wait()
    for pid in pids:
        assert wait_for(lambda pid=pid: "gone" if ended(pid) else "")


def wait_for(ask, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer := ask():
                return answer
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def ended(pid):
    """Whether a process that is no child of ours has ended; a zombie that nobody reaps has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_depth_and_colours_alone_are_compared_unless_variants_are_named(tmp_path, monkeypatch, capsys):
    def instead(tasks, job):
        for task in tasks:
            for name in task.variants:
                records.append(job.results, result_of(task.seed, name, job.settings))

    monkeypatch.setattr(command, "collect", instead)
    monkeypatch.setattr(command.records, "encoder_hash", lambda encoder: HASH)
    arguments = ["--device", "cpu", "--preset", "cpu", "--steps", "10", "--seeds", "4,6-7", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    said = capsys.readouterr().out
    assert "default/field (colour and depth) | no_depth/field (colours alone)" in said
    assert "| worst room, localisation in 3D |  | 0.0 % (room 7) | 0.0 % (room 7) |" in said
    assert "| rooms below 85 % |  | 1 of 3: 7 | 1 of 3: 7 |" in said
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["paired"]["default/field - no_depth/field"]["rooms"] == 3
    assert summary["methods"]["no_depth/field"]["room_accuracy"] == {"4": 1.0, "6": 1.0, "7": 0.0}
    for name in ("median_error_m", "existence_auroc"):
        assert name in summary["methods"]["no_depth/field"] and name in summary["methods"]["default/field"]


def test_kernels_are_compiled_once_for_each_variant_before_its_first_room(monkeypatch, tmp_path):
    calls = []

    def compile_kernels(config, encoder, device, depth):
        calls.append(("compiled", depth))

    def evaluate_room(exam, variant, *_):
        calls.append((exam.room.seed, variant.name))
        return result_of(exam.room.seed, variant.name)

    monkeypatch.setattr(collect_module, "_WARM", set())
    monkeypatch.setattr(collect_module, "warm_up", compile_kernels)
    monkeypatch.setattr(collect_module, "evaluate_room", evaluate_room)
    settings = replace(SETTINGS, width=64, height=48, frames=2, views=1)
    job = Job(settings, ("mini", ""), run_file(tmp_path))
    for seed in (5, 6):
        collect_module.evaluate(Task(seed, ("default", "no_depth")), job, lambda text: None)
    names = [call[0] for call in calls]
    assert names == ["compiled", 5, "compiled", 5, 6, 6] and [calls[0][1], calls[2][1]] == [True, False]
