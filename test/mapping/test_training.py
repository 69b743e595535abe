"""A step whose loss or gradient is not finite changes nothing, and training goes on; without depth, samples explore."""

from contextlib import contextmanager

import pytest
import torch

from lerf_ros.mapping import losses
from lerf_ros.mapping.mapper import Mapper


@contextmanager
def bad_loss(mapper):
    exact = losses.colour_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "colour_loss", lambda rgb, truth: exact(rgb, truth) * torch.nan)
        yield


@contextmanager
def bad_gradient(mapper):
    """Of one network's first weights, with a finite loss."""
    weight = next(p for name, p in mapper.fields.named_parameters() if not name.endswith("table"))
    handle = weight.register_hook(lambda grad: grad.index_fill(0, torch.tensor(0), torch.inf))
    yield
    handle.remove()


@pytest.mark.parametrize("spoil", [bad_loss, bad_gradient])
def test_a_step_that_is_not_finite_is_skipped(box, spoil):
    mapper = Mapper(box.config, box.camera, 0, "cpu", seed=0)
    for frame in box.walk(4):
        mapper.add_frame(frame)
    for _ in range(3):
        stats = mapper.step()
    assert int(stats.skipped) == 0

    def everything():
        """Parameters, and the optimisers' moments and counts."""
        named = dict(mapper.fields.named_parameters())
        for i, state in enumerate(mapper._trainer._networks.state.values()):
            named |= {f"network {i} {name}": value for name, value in state.items()}
        for i, (state, _) in enumerate(mapper._trainer._tables._states):
            named |= {f"table {i} m": state.m, f"table {i} v": state.v}
        return {name: value.detach().clone() for name, value in named.items()}

    before = everything()
    with spoil(mapper):
        stats = mapper.step()
    assert int(stats.skipped) == 1 and stats.step == 4
    after = everything()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not mapper.fields.radiance.grid.table.grad.any()

    stats = mapper.step()
    assert int(stats.skipped) == 1 and stats.loss.isfinite()
    trained = everything()
    assert all(value.isfinite().all() and not torch.equal(value, before[name]) for name, value in trained.items())


@pytest.mark.parametrize("depth", [True, False])
def test_guided_rays_without_known_depth_explore(box, depth):
    mapper = Mapper(box.config, box.camera, 0, "cpu", seed=0)
    for frame in box.walk(3, depth):
        mapper.add_frame(frame)
    mapper.step()
    grid, asked = mapper.fields.proposal, []
    propose = grid.propose
    grid.propose = lambda *args: asked.append(args[4]) or propose(*args)
    mapper.step()
    assert asked == [mapper.config.sampling.explore, 0.0]  # guided rays, then the others
