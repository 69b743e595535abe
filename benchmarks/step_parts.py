"""Where a training step spends its time: its parts, each captured and timed by itself, and its kernels by kind.

Parts are what `Trainer` does, called piece by piece; what they leave of the whole step is the losses, the backward pass
and the optimiser. Kernels are those that the profiler sees in replays of the whole step.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from measuring import Machine, Timing, measure, synchronise
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from lerf_ros.mapping.mapper import Mapper
from lerf_ros.mapping.marching import march
from lerf_ros.mapping.rays import draw_batch

_SECTOR = 32  # bytes that a GPU moves at least
_ADAM = 7  # a parameter's value, gradient and two moments are read; all but the gradient are written
_KINDS = {  # the first pattern that a kernel's (or, on a CPU, an operator's) name matches; order matters
    "our kernels, forward": r"^_forward|_Encode$",
    "our kernels, backward": r"^_backward|_EncodeBackward",
    "optimiser": r"adam|multi_tensor|foreach",
    "matrix products": r"gemm|gemv|cutlass|cublas|nvjet|splitk|addmm|::mm|::bmm|::linear",
    "fills and copies": r"memset|memcpy|fill|copy|catarray|::cat|::zero",
    "gathers, scatters, sorts": r"index|scatter|gather|sort|topk|searchsorted|radix",
    "random numbers": r"distribution|philox|rand|uniform",
    "scans and reductions": r"scan|cum|reduce|::sum|norm|amax|amin",
    "elementwise": r"elementwise|aten::",
    "other": r"",
}


@dataclass(frozen=True)
class Part:
    """Of a kind of step; limits in ms, None where nothing large moves."""

    step: str
    name: str
    timing: Timing
    limit_ms: float | None


@dataclass(frozen=True)
class KernelKind:
    """Kernels of a kind in one step: time, share of all kernels, launches, and the longest of them by name."""

    step: str
    name: str
    ms: float
    share: float
    launches: float
    longest: str


def touched_bytes(module: nn.Module | None) -> int:
    """Memory sectors of a module's parameters that have gradients."""
    touched = 0
    for parameter in module.parameters() if module is not None else ():
        if parameter.grad is not None:
            sectors = parameter.grad.flatten().split(_SECTOR // 4 * 2**20)
            touched += sum(_sectors(part) for part in sectors)
    return _SECTOR * touched


def _sectors(grad: torch.Tensor) -> int:
    padded = nn.functional.pad(grad != 0, (0, -len(grad) % (_SECTOR // 4)))
    return int(padded.view(-1, _SECTOR // 4).any(dim=1).sum())


@contextmanager
def gradients_of_a_step(mapper: Mapper) -> Iterator[None]:
    """The gradients of one training step that is not taken: taking it clears those of the tables."""
    trainer = mapper._trainer
    assert trainer is not None
    with patch.object(trainer, "_update", lambda loss: None):
        trainer._work()
    yield
    for parameter in mapper.fields.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()


@dataclass(frozen=True)
class StepWork:
    """What a step has to do at least: bytes of the parameters that it touches, its language targets, and the matrix
    operations of the networks' forward passes (backward passes have twice as many)."""

    radiance_bytes: int
    language_bytes: int
    proposal_bytes: int
    target_bytes: int
    radiance_operations: int
    language_operations: int
    parameters: int

    @classmethod
    def of(cls, mapper: Mapper) -> StepWork:
        """Counted after a step."""
        config, fields, store = mapper.config, mapper.fields, mapper.store
        assert store is not None
        rays, language_rays = config.sampling.rays, _language_rays(mapper)
        decoded = language_rays * (config.language.samples if config.language.decoding == "per_sample" else 1)
        per_ray = fields.radiance.colour_from_direction
        with gradients_of_a_step(mapper):
            radiance, language, proposal = map(touched_bytes, (fields.radiance, fields.language, fields.proposal))
        return cls(
            radiance,
            language,
            proposal,
            language_rays * 8 * store.embed_dim * store.embeds.element_size(),  # 4 crops of 2 levels
            2 * ((_weights(fields.radiance) - _weights(per_ray)) * config.sampling.samples + _weights(per_ray)) * rays,
            2 * _weights(fields.language) * decoded,
            sum(parameter.numel() for parameter in fields.parameters()),
        )

    def limit_ms(self, machine: Machine) -> float:
        """Touched parameters are read, their gradients written and read again, and Adam takes a step of them alone."""
        touched = self.radiance_bytes + self.language_bytes + self.proposal_bytes
        operations = 3 * (self.radiance_operations + self.language_operations)
        return machine.limit_ms((1 + 2 + _ADAM) * touched + self.target_bytes, operations)

    def dense_adam_ms(self, machine: Machine) -> float:
        """What Adam over every parameter moves, touched or not."""
        return machine.limit_ms(_ADAM * 4 * self.parameters)


def measure_parts(step: str, mapper: Mapper, whole: Timing, machine: Machine, repeats: int) -> list[Part]:
    """Parts of the step of a map that has trained. Its parameters are of no use afterwards."""
    trainer, config, fields, store, bounds = mapper._trainer, mapper.config, mapper.fields, mapper.store, mapper.bounds
    assert trainer is not None and store is not None and bounds is not None
    work, rays = StepWork.of(mapper), config.sampling.rays
    guided = trainer._guided_rays()
    batch = draw_batch(store, rays, _language_rays(mapper), guided, config.replay, bounds)
    t_sigma = trainer._t_sigma(batch)
    t_edges, _ = trainer._edges(batch, t_sigma, guided)
    marched = march(fields.radiance, batch.rays, t_edges).march

    def timed(name: str, function: Callable[[], Any], limit_ms: float | None) -> Part:
        return Part(step, name, measure([function], mapper.device, repeats), limit_ms)

    touched = work.radiance_bytes + work.language_bytes + work.proposal_bytes
    parts = [
        timed(
            "ray draw, supervision gather",
            lambda: draw_batch(store, rays, _language_rays(mapper), guided, config.replay, bounds),
            None,
        ),
        timed("sampling, proposal", lambda: trainer._edges(batch, t_sigma, guided), None),
        timed(
            "density and colour, forward",
            lambda: march(fields.radiance, batch.rays, t_edges),
            machine.limit_ms(work.radiance_bytes, work.radiance_operations),
        ),
    ]
    if _language_rays(mapper):
        parts.append(
            timed(
                "language, forward",
                lambda: trainer._language_losses(batch, marched),
                machine.limit_ms(work.language_bytes + work.target_bytes, work.language_operations),
            )
        )
    rest = whole.median_ms - sum(part.timing.median_ms for part in parts)
    operations = 2 * (work.radiance_operations + work.language_operations)
    limit_ms = machine.limit_ms((2 + _ADAM) * touched, operations)
    backward = Part(step, "losses, backward, optimiser (the rest)", Timing.of([rest]), limit_ms)
    return [*parts, backward]


def kernel_kinds(step: str, mapper: Mapper, steps: int) -> list[KernelKind]:
    """Device time by kind of kernel, per step; on a CPU, host time by kind of operator."""
    cuda = mapper.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            mapper.step()
        synchronise(mapper.device)
    events: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
    for event in profiler.key_averages():
        if (event.device_type == DeviceType.CUDA) == cuda:
            ms = (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e3 / steps
            kind = next(k for k, pattern in _KINDS.items() if re.search(pattern, event.key, re.IGNORECASE))
            events[kind].append((ms, event.count, event.key))
    total = sum(ms for kernels in events.values() for ms, _, _ in kernels)
    kinds = []
    for kind, kernels in events.items():
        ms, launches = sum(k[0] for k in kernels), sum(k[1] for k in kernels) / steps
        kinds.append(KernelKind(step, kind, ms, ms / max(total, 1e-9), launches, max(kernels)[2][:60]))
    return sorted(kinds, key=lambda kind: -kind.ms)


def _language_rays(mapper: Mapper) -> int:
    return mapper._trainer._language_rays if mapper._trainer is not None else 0


def _weights(module: nn.Module | None) -> int:
    """Of all linear layers."""
    layers = module.modules() if module is not None else ()
    return sum(layer.weight.numel() for layer in layers if isinstance(layer, nn.Linear))
