"""Values stay; gradients shrink towards the camera, as the square of the distance."""

import torch

from lerf_ros.render.gradient_scaling import scaled_gradients


def test_gradients_grow_with_the_square_of_the_distance_and_values_stay():
    generator = torch.Generator().manual_seed(0)
    sigmas, colours = torch.rand(4, 3, generator=generator), torch.rand(4, 3, 3, generator=generator)
    weights, t = torch.rand(4, 3, 3, generator=generator), torch.tensor([0.5, 1.0, 7.0]).expand(4, 3)

    def gradients(scaled):
        s, c = sigmas.clone().requires_grad_(), colours.clone().requires_grad_()
        used = scaled_gradients(s, c, t, 2.0) if scaled else (s, c)
        loss = (used[0][..., None] * weights * used[1]).sum()
        return loss.detach(), *torch.autograd.grad(loss, (s, c))

    (loss, *found), (plain, *full) = gradients(True), gradients(False)
    assert loss == plain
    factor = torch.tensor([1 / 16, 1 / 4, 1.0])
    torch.testing.assert_close(found[0], full[0] * factor)
    torch.testing.assert_close(found[1], full[1] * factor[:, None])


def test_types_are_kept():
    sigmas, colours = torch.rand(2, 3, requires_grad=True), torch.rand(2, 3, 3).bfloat16().requires_grad_()
    used = scaled_gradients(sigmas, colours, torch.ones(2, 3), 2.0)
    (used[0].sum() + used[1].float().sum()).backward()
    assert used[1].dtype == colours.grad.dtype == torch.bfloat16
    assert torch.equal(colours.grad, torch.full_like(colours, 0.25))
