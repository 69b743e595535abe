"""Against floaters: gradients as if all places were seen by as many pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def scaled_gradients(sigmas: Tensor, colours: Tensor, t: Tensor, distance: float) -> tuple[Tensor, Tensor]:
    """The same densities and colours, whose gradients are multiplied by ``min(1, (t / distance)^2)``.

    A place close to a camera is crossed by many of its rays and seen by few other cameras: fog there explains one image
    before it harms another (Philip and Deschaintre 2023, "Floaters No More", eq. 5).

    Args:
        sigmas: 1/m, (R, S).
        colours: (R, S, 3).
        t: m along the ray, (R, S).
        distance: m, from which on gradients are as they are.
    """
    return _Scaled.apply(sigmas, colours, (t / distance).square().clamp_max(1.0))


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sigmas: Tensor, colours: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(factor)
        return sigmas.view_as(sigmas), colours.view_as(colours)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_sigmas: Tensor, grad_colours: Tensor) -> tuple[Tensor, Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad_sigmas * factor.to(grad_sigmas), grad_colours * factor[..., None].to(grad_colours), None
