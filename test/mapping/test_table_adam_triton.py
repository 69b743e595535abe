"""The Triton kernel of the tables' Adam against the torch reference (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.captured import Captured
from lerf_ros.mapping.table_adam import AdamConstants, TableAdam, TableState, update_torch
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

CONSTANTS = AdamConstants(0.9, 0.99, 1e-15)


def state_of(count):
    return TableState(*(torch.zeros(count, device=DEVICE) for _ in range(4)))


def draw(count, share, generator):
    """Gradients of whole entries of two features, now and then of one alone."""
    touched = (torch.rand(-(-count // 2), generator=generator) < share).repeat_interleave(2)[:count]
    touched &= torch.rand(count, generator=generator) < 0.9
    return (torch.randn(count, generator=generator) * touched).to(DEVICE)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 8


@needs_kernels
@pytest.mark.parametrize("count", [1, 3, 1024, 2048, 4991])
@pytest.mark.parametrize("share", [0.05, 1.0])
def test_agrees_with_the_reference(count, share):
    from lerf_ros.mapping.table_adam_triton import update_triton

    generator = torch.Generator().manual_seed(count)
    found, expected = state_of(count), state_of(count)
    rate, betas = torch.tensor(0.02, device=DEVICE), torch.tensor([0.9, 0.99], dtype=torch.float64, device=DEVICE)
    powers, run = torch.ones_like(betas), torch.zeros((), device=DEVICE)
    for _ in range(4):
        powers *= betas
        grad = draw(count, share, generator)
        before = [x.clone() for x in (found.table, found.m, found.v)]
        for state, update in ((found, update_triton), (expected, update_torch)):
            state.grad.copy_(grad)
            update(state, rate, powers, run, CONSTANTS)
            assert not state.grad.any()
        for now, then in zip((found.table, found.m, found.v), before):
            assert torch.equal(now[grad == 0], then[grad == 0])
        for name in ("table", "m", "v"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-7, rtol=1e-5)


@needs_kernels
def test_a_skipped_step_clears_gradients_alone():
    from lerf_ros.mapping.table_adam_triton import update_triton

    state = state_of(3000)
    state.table.fill_(0.5)
    state.grad.copy_(draw(3000, 0.3, torch.Generator().manual_seed(0)))
    state.grad[1::5] = torch.nan
    state.grad[2::5] = torch.inf
    before_any_step = torch.ones(2, dtype=torch.float64, device=DEVICE)  # 1 - b^0 = 0
    rate, skip = torch.tensor(0.02, device=DEVICE), torch.ones((), device=DEVICE)
    update_triton(state, rate, before_any_step, skip, CONSTANTS)
    assert (state.table == 0.5).all()
    assert not state.m.any() and not state.v.any() and not state.grad.any()


@needs_cuda
def test_replayed_steps_are_those_of_the_reference():
    """With rates and skips that change on the device."""

    def trained(run, update):
        table = torch.nn.Parameter(torch.linspace(-1, 1, 5000, device="cuda"))
        rate, skip = torch.tensor(0.0, device="cuda"), torch.zeros((), device="cuda")
        source = torch.zeros(5000, device="cuda")
        optimiser = TableAdam([{"params": [table], "lr": rate}], (0.9, 0.99), 1e-15)
        if update is not None:
            optimiser._update = update

        def work():
            table.grad.add_(source)
            optimiser.step(skip)
            return (table.grad.abs().sum(),)

        call, generator = run(work), torch.Generator().manual_seed(0)
        for step in range(12):
            source.copy_(draw(5000, 0.2, generator))
            rate.fill_(0.1 / (1 + step))
            skip.fill_(float(step in (0, 7)))
            assert float(call()[0]) == 0
        return table.detach()

    def captured(work):
        graph = Captured(work, torch.device("cuda"))
        return lambda: graph.run("same")

    replayed, eager = trained(captured, None), trained(lambda work: work, update_torch)
    torch.testing.assert_close(replayed, eager, atol=1e-6, rtol=1e-5)
