"""A training step never asks the device for a value and has no shape that depends on data: what a CUDA graph needs, for
every way to decode, scale and propose, checked operation by operation on a CPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lerf_ros.mapping.mapper import Mapper

NETWORKS = {
    "sampling.proposal": "networks",
    "proposal.bins": [24, 12],
    "proposal.log2_table": 10,
}
WAITING = {  # results are numbers on the host, have shapes that depend on data, or carry numbers from the host over
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "_unique2",
    "unique_dim",
    "is_nonzero",
    "equal",
    "lift_fresh",
}


class Recorder(TorchDispatchMode):
    """Names of the operations, with the shapes of what they return, and those of them that wait."""

    def __init__(self):
        super().__init__()
        self.operations, self.waits = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for arg in args
            if isinstance(arg, (list, tuple))
            for index in arg
        )
        if name in WAITING or by_mask:
            self.waits.append(name)
        self.operations.append((name, tuple(result.shape) if isinstance(result, torch.Tensor) else None))
        return result


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"language.decoding": "sampled"},
        {"language.decoding": "per_sample", "language.scale": "normalised"},
        {"language.scale": "none"},
        NETWORKS,
    ],
    ids=["default", "sampled", "per sample", "no scale", "networks"],
)
@pytest.mark.parametrize("depth", [True, False], ids=["depth", "no depth"])
def test_a_step_is_the_same_operations_every_time(box, settings, depth):
    mapper = Mapper(box.config.override(settings), box.camera, 6, "cpu", seed=0)
    for frame in box.walk(4, depth):
        mapper.add_frame(frame)
    store = mapper.store
    for slot in range(len(store)):
        store.embeds[slot, :, slot] = 1.0
        store.finish_level(slot, store.generations[slot], 0)
    mapper.step()  # creates the optimiser's state
    recorders = []
    for _ in range(2):
        with Recorder() as recorder:
            mapper._trainer._work()
        recorders.append(recorder)
        mapper.step()
    first, second = recorders
    assert first.waits == []
    assert len(first.operations) > 200
    assert first.operations == second.operations
