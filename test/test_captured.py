"""Work of fixed shape: called on a CPU; captured, replayed and captured anew on CUDA."""

import gc
from functools import partial

import pytest
import torch

from lerf_ros.captured import Aside, Captured, CapturedBatches, CapturedCalls, InFlight, SideBySide

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"))]


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


def check_batches(device):
    lengths = []

    def network(inputs):
        lengths.append(len(inputs))
        return torch.stack([inputs.sum(dim=(1, 2)), inputs.square().sum(dim=(1, 2))], dim=1)

    batches = CapturedBatches(network, most=64)
    batches.rehearse((3, 5), device)
    rehearsed = len(lengths)
    for length in (1, 16, 17, 64, 65, 150, 3):
        inputs = torch.rand(length, 3, 5, generator=torch.Generator().manual_seed(length)).to(device)
        kept = batches(inputs)
        batches(torch.rand_like(inputs))  # what was returned stays
        torch.testing.assert_close(kept, network(inputs))
    return lengths[:rehearsed], lengths[rehearsed:]


def test_batches_of_any_length():
    rehearsed, later = check_batches(torch.device("cpu"))
    assert set(rehearsed) == {16, 32, 64}
    assert later[:3] == [16, 16, 1]  # one is filled up to 16, twice; then the test itself
    assert later[12:16] == [64, 16, 64, 16]  # of 65


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_on_cuda():
    rehearsed, later = check_batches(torch.device("cuda"))
    assert set(rehearsed) == {16, 32, 64}
    assert later == [1, 16, 17, 64, 65, 150, 3]  # replays do not come by here: these are the test's own


@pytest.mark.parametrize("most", [3, 4], ids=["too few are kept", "all are kept"])
@pytest.mark.parametrize("device", DEVICES)
def test_calls_of_functions_and_of_what_they_return(device, most):
    """Of different inputs, factors and shapes, in turn; the second function reads what the first one has returned."""
    device = torch.device(device)
    calls = CapturedCalls(device, most)

    def scaled(factor, x):
        return factor * x, CapturedCalls(device)

    for turn in range(24):
        factor, length = (2.0, 4.0)[turn % 2], (5, 7)[turn // 2 % 2]
        x = torch.rand(length, generator=torch.Generator().manual_seed(turn))
        product, then = calls(factor, partial(scaled, factor), x)
        total = then("sum", lambda y, product=product: (product + y).sum(), x)
        torch.testing.assert_close(product.cpu(), factor * x)
        torch.testing.assert_close(total.cpu(), (factor + 1) * x.sum())


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


@pytest.mark.parametrize("device", DEVICES)
def test_two_side_by_side_see_what_was_before_and_are_seen_by_what_comes(device):
    device = torch.device(device)
    source, total = torch.zeros(2**20, device=device), torch.zeros((), device=device)
    both = SideBySide(device)

    def work():
        source.add_(1)
        once, twice = both.run(lambda: source.sum(), lambda: 2 * source.sum())
        total.copy_(once + twice)
        return (total,)

    captured = Captured(work, device)
    for run in range(1, 8):
        assert float(captured.run(None)[0]) == 3 * 2**20 * run


@pytest.mark.parametrize("device", DEVICES)
def test_work_aside_comes_after_what_was_asked_before(device):
    device = torch.device(device)
    aside, source = Aside(device), torch.zeros(2**20, device=device)
    assert not aside.is_busy
    for run in range(1, 4):
        source.add_(1)
        total = aside.begin(lambda: source.sum(), (source,))
        aside.wait()
        assert not aside.is_busy and float(total) == 2**20 * run
