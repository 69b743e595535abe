"""Work of fixed shape: called on a CPU; captured, replayed and captured anew on CUDA."""

import gc

import pytest
import torch

from lerf_ros.mapping.captured import Captured, InFlight


def counting_work(device):
    total, scale = torch.zeros(1000, device=device), torch.ones((), device=device)

    def work():
        noise = torch.rand(1000, device=device)
        total.add_(noise * scale)
        return noise.mean(), total.mean()

    return work, total, scale


def check_runs(device):
    work, total, scale = counting_work(device)
    captured = Captured(work, device)
    sums = []
    for shape in ("a",) * 8 + ("b",) * 6:
        before = total.clone()
        mean, _ = captured.run(shape)
        sums.append(float(mean))
        assert torch.isclose((total - before).mean(), mean, atol=1e-5)  # ran exactly once
    assert len(set(sums)) == len(sums)  # every run draws its own random numbers
    scale.fill_(0.0)
    before = total.clone()
    captured.run("b")
    assert torch.equal(total, before)  # device scalars are read in every run


def test_runs_once_per_call():
    check_runs(torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_replays_on_cuda():
    check_runs(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_an_older_graph_that_is_garbage_does_not_break_a_capture():
    work, _, _ = counting_work(torch.device("cuda"))
    old = Captured(work, torch.device("cuda"))
    for _ in range(5):
        old.run("a")
    old.itself = old
    threshold = gc.get_threshold()
    del old
    gc.set_threshold(1)  # the collector would find it in the midst of the next capture
    try:
        check_runs(torch.device("cuda"))
    finally:
        gc.set_threshold(*threshold)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_captured_adam_takes_the_steps_of_an_eager_one():
    def trained(steps, run):
        weights = torch.nn.Parameter(torch.linspace(-1, 1, 64, device="cuda"))
        optimiser = torch.optim.Adam(
            [{"params": [weights], "lr": torch.tensor(0.1, device="cuda")}], fused=True, capturable=True
        )

        def work():
            optimiser.zero_grad(set_to_none=True)
            loss = (weights - 3).square().sum()
            loss.backward()
            optimiser.step()
            return (loss.detach(),)

        call = run(work)
        for step in range(steps):
            optimiser.param_groups[0]["lr"].fill_(0.1 / (1 + step))
            call()
        return weights.detach()

    def captured(work):
        run = Captured(work, torch.device("cuda")).run
        return lambda: run("same")

    eager, replayed = trained(20, lambda work: work), trained(20, captured)
    assert torch.allclose(eager, replayed, atol=1e-5)


def test_the_host_waits_for_the_last_but_two(monkeypatch):
    """Of work whose ends are noted, two pieces may be unfinished."""
    waited = []

    class Event:
        count = 0

        def __init__(self, blocking):
            assert blocking
            Event.count += 1
            self.number = Event.count

        def record(self, stream):
            pass

        def synchronize(self):
            waited.append(self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    in_flight = InFlight(torch.device("cuda"), 2)
    for number in range(1, 6):
        in_flight.add()
        assert waited == list(range(1, number - 1))


def test_on_a_cpu_nothing_is_in_flight():
    in_flight = InFlight(torch.device("cpu"), 0)
    in_flight.add()
