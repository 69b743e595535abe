"""Adam that leaves untouched elements alone: against torch's Adam where all are touched, against the equation element
by element where few are."""

import numpy as np
import pytest
import torch

from lerf_ros.mapping.table_adam import BACKENDS, TableAdam

BETAS, EPS = (0.9, 0.99), 1e-15
SIZES = (5000, 24)  # elements; neither fills whole blocks


@pytest.fixture(params=["torch", "numba"])
def backend(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


def tables_of(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).requires_grad_() for size in SIZES]


def optimiser_of(tables, backend, rates=(0.02, 0.3)):
    groups = [{"params": [table], "lr": torch.tensor(rate)} for table, rate in zip(tables, rates)]
    optimiser = TableAdam(groups, BETAS, EPS)
    optimiser._update = BACKENDS[backend]
    return optimiser


def gradients(steps, share, seed=1):
    """Of each step, of each table: normal in a share of the elements, zero elsewhere; with long stretches of zero."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        drawn = []
        for size in SIZES:
            touched = torch.rand(size, generator=generator) < share
            if share < 1:
                touched[size // 4 : size // 2] = False
            drawn.append(torch.randn(size, generator=generator) * touched)
        yield drawn


def fill(tables, drawn):
    for table, grad in zip(tables, drawn):
        table.grad.copy_(grad)


def by_the_equation(tables, steps, rates, skipped=()):
    """Parameters after the steps, one element at a time, float64."""
    results = []
    for number, table in enumerate(tables):
        p, t = table.detach().double().numpy().copy(), 0
        m, v = np.zeros_like(p), np.zeros_like(p)
        for step, drawn in enumerate(steps):
            if step in skipped:
                continue
            t += 1
            for i, g in enumerate(drawn[number].double().tolist()):
                if g != 0:
                    m[i] = 0.9 * m[i] + 0.1 * g
                    v[i] = 0.99 * v[i] + 0.01 * g**2
                    p[i] -= rates[number] * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.99**t)) + EPS)
        results.append(torch.from_numpy(p).float())
    return results


def test_with_a_gradient_everywhere_it_is_adam(backend):
    tables, expected = tables_of(), tables_of()
    optimiser = optimiser_of(tables, backend)
    groups = [{"params": [table], "lr": rate} for table, rate in zip(expected, (0.02, 0.3))]
    adam = torch.optim.Adam(groups, betas=BETAS, eps=EPS)
    for table in expected:
        table.grad = torch.zeros_like(table)
    for step, drawn in enumerate(gradients(12, share=1.0)):
        fill(tables, drawn)
        fill(expected, drawn)
        for groups, rate in zip(zip(optimiser.param_groups, adam.param_groups), (0.02, 0.3)):
            groups[0]["lr"].fill_(rate / (1 + step))  # rates change on the device
            groups[1]["lr"] = rate / (1 + step)
        optimiser.step(torch.zeros(()))
        adam.step()
    for found, reference in zip(tables, expected):
        torch.testing.assert_close(found, reference, atol=2e-6, rtol=2e-5)


def test_elements_with_a_gradient_follow_the_equation(backend):
    tables = tables_of()
    steps = list(gradients(10, share=0.2))
    expected = by_the_equation(tables, steps, (0.02, 0.3))
    optimiser = optimiser_of(tables, backend)
    for drawn in steps:
        fill(tables, drawn)
        optimiser.step(torch.zeros(()))
    for found, reference in zip(tables, expected):
        torch.testing.assert_close(found.detach(), reference, atol=2e-6, rtol=2e-5)


def test_elements_without_a_gradient_stay_as_they_are(backend):
    tables = tables_of()
    optimiser = optimiser_of(tables, backend)
    for drawn in gradients(6, share=0.3):
        states = [state for state, _ in optimiser._states]
        before = [tuple(x.clone() for x in (state.table, state.m, state.v)) for state in states]
        buffers = [table.grad.data_ptr() for table in tables]
        fill(tables, drawn)
        optimiser.step(torch.zeros(()))
        for state, kept, grad in zip(states, before, drawn):
            for now, then in zip((state.table, state.m, state.v), kept):
                assert torch.equal(now[grad == 0], then[grad == 0])
                assert (now[grad != 0] != then[grad != 0]).float().mean() > 0.99
            assert not state.grad.any()
        assert [table.grad.data_ptr() for table in tables] == buffers


def test_a_skipped_step_clears_gradients_and_counts_for_nothing(backend):
    tables = tables_of()
    steps = list(gradients(5, share=0.3))
    expected = by_the_equation(tables, steps, (0.02, 0.3), skipped=(0, 3))
    optimiser = optimiser_of(tables, backend)
    for number, drawn in enumerate(steps):
        fill(tables, drawn)
        if number in (0, 3):
            for table in tables:
                table.grad[::7] = torch.nan
        optimiser.step(torch.tensor(float(number in (0, 3))))
        assert not any(table.grad.any() for table in tables)
    for found, reference in zip(tables, expected):
        torch.testing.assert_close(found.detach(), reference, atol=2e-6, rtol=2e-5)
