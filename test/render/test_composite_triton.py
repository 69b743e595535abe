"""The Triton kernels of compositing against the torch reference in float64 (see test/kernels.py)."""

import pytest
import torch

from lerf_ros.render.composite import composite_torch
from test.kernels import DEVICE, needs_cuda, needs_kernels, starts_interpreter

NEAR, FAR, OPAQUE = 0.1, 6.0, 6e4
RAYS = 9
OUTPUTS = "rgb", "depth", "sight", "distortion"
SAMPLES = [1, 12, 32, 48, 64]


def rays(samples, seed=0):
    """Densities (float32) of many kinds, one kind a ray; every third ray without measured depth."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape):
        return torch.rand(*shape, generator=generator)

    sigmas = 8 * rand(RAYS, samples) ** 3
    sigmas[1] = 0  # an empty ray, measured
    sigmas[2] = 0  # and one not measured
    sigmas[3, samples // 2] = OPAQUE
    sigmas[4] = OPAQUE
    sigmas[5] = torch.where(rand(samples) < 0.7, 0.0, sigmas[5])  # empty space between
    sigmas[6] *= 1e-5  # next to empty
    sigmas[7, -1] = OPAQUE
    lengths = 0.02 + rand(RAYS, samples)
    t_edges = torch.cat([torch.zeros(RAYS, 1), lengths.cumsum(dim=1)], dim=1)
    t_edges = NEAR + (FAR - NEAR) * t_edges / t_edges[:, -1:]
    t_measured = NEAR + (FAR - NEAR) * rand(RAYS)
    t_measured[2::3] = torch.nan
    t_sigma = 0.03 + 0.1 * rand(RAYS)
    return tuple(x.to(DEVICE) for x in (sigmas, rand(RAYS, samples, 3), t_edges, t_measured, t_sigma))


def gradients_of(result, weights, sigmas, colours):
    loss = sum((getattr(result, name) * weight.to(result.rgb)).sum() for name, weight in weights.items())
    return torch.autograd.grad(loss, (sigmas, colours), materialize_grads=True)


def both(inputs, weights):
    """Results and gradients of the kernels in float32, and of the reference in float64."""
    from lerf_ros.render.composite_triton import composite_triton

    found = []
    for function, dtype in ((composite_triton, torch.float32), (composite_torch, torch.float64)):
        sigmas, colours, *of_rays = (x.to(dtype) for x in inputs)
        sigmas, colours = sigmas.requires_grad_(), colours.requires_grad_()
        result = function(sigmas, colours, *of_rays, FAR)
        found.append((result, gradients_of(result, weights, sigmas, colours)))
    return found


def output_weights(names, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(RAYS, *((3,) if name == "rgb" else ()), generator=generator) for name in names}


def assert_close(found, expected, atol):
    torch.testing.assert_close(found.double(), expected, atol=atol, rtol=1e-5)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 16


@needs_kernels
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("measured", [True, False], ids=["some measured", "none measured"])
def test_agrees_with_the_reference(samples, measured):
    sigmas, colours, t_edges, t_measured, t_sigma = rays(samples)
    if not measured:
        t_measured = torch.full_like(t_measured, torch.nan)
    (found, gradients), (expected, exact) = both(
        (sigmas, colours, t_edges, t_measured, t_sigma), output_weights(OUTPUTS)
    )
    assert not found.weights.requires_grad
    for name in ("weights", *OUTPUTS):
        assert_close(getattr(found, name), getattr(expected, name), atol=2e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert_close(gradients[1], exact[1], atol=2e-6)
    # Of densities: relative to each ray's largest. The expected depth is divided by the opacity, and with it what
    # float32 rounds: an almost empty ray of one sample, whose depth cannot change, has nothing but that.
    rounded = 0.1 / expected.weights.sum(dim=1, keepdim=True).clamp_min(1e-6)
    largest = exact[0].abs().amax(dim=1, keepdim=True).clamp_min(1.0).maximum(rounded)
    assert_close(gradients[0] / largest, exact[0] / largest, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("name", OUTPUTS)
def test_each_output_alone_has_its_gradient(name):
    """The others' gradients are absent, not zeros; and that of the logarithm of an opaque density stays right."""
    inputs = rays(48, seed=2)
    (_, gradients), (_, exact) = both(inputs, output_weights([name]))
    sigmas = inputs[0].double()
    solid = (sigmas.sum(dim=1) > 1)[:, None]
    assert_close(gradients[0] * sigmas * solid, exact[0] * sigmas * solid, atol=2e-5)
    assert_close(gradients[1], exact[1], atol=2e-6)


@needs_kernels
def test_takes_the_expanded_gradient_of_a_mean():
    from lerf_ros.render.composite_triton import composite_triton

    inputs = rays(12, seed=3)
    found = []
    for function in (composite_triton, composite_torch):
        sigmas = inputs[0].clone().requires_grad_()
        result = function(sigmas, *inputs[1:], FAR)
        (result.rgb.mean() + result.sight.sum() / 3 + 0.1 * result.distortion.mean()).backward()
        found.append(sigmas.grad)
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@needs_kernels
def test_finite_differences():
    """Central differences of the kernels' own values, where no density is near zero and no depth error changes its
    sign; float32 leaves about 1e-3."""
    from lerf_ros.render.composite_triton import composite_triton

    sigmas, colours, *of_rays = rays(6, seed=4)
    generator = torch.Generator().manual_seed(7)
    sigmas = 0.1 + torch.rand(sigmas.shape, generator=generator).to(DEVICE)
    weights, step = output_weights(OUTPUTS), 3e-3

    def loss(sigmas, colours):
        result = composite_triton(sigmas, colours, *of_rays, FAR)
        return sum((getattr(result, name) * weight.to(DEVICE)).double().sum() for name, weight in weights.items())

    for _ in range(3):
        directions = [torch.randn(x.shape, generator=generator).to(DEVICE) for x in (sigmas, colours)]
        inputs = [x.clone().requires_grad_() for x in (sigmas, colours)]
        gradients = torch.autograd.grad(loss(*inputs), inputs)
        slope = sum((g * d).double().sum() for g, d in zip(gradients, directions, strict=True))
        ahead, behind = (
            loss(*(x + sign * step * d for x, d in zip((sigmas, colours), directions, strict=True))) for sign in (1, -1)
        )
        torch.testing.assert_close((ahead - behind) / (2 * step), slope, atol=5e-3, rtol=5e-3)


@needs_kernels
def test_half_precision_comes_back_as_such():
    from lerf_ros.render.composite_triton import composite_triton

    sigmas, colours, *others = rays(12, seed=6)
    colours = colours.bfloat16().requires_grad_()
    result = composite_triton(sigmas, colours, *others, FAR)
    torch.testing.assert_close(result.rgb, composite_torch(sigmas, colours.float(), *others, FAR).rgb)
    result.rgb.sum().backward()
    assert result.rgb.dtype == torch.float32 and colours.grad.dtype == torch.bfloat16
    torch.testing.assert_close(colours.grad.float().sum(dim=1), torch.ones(RAYS, 3, device=DEVICE), atol=0.02, rtol=0)


@needs_kernels
def test_no_rays_and_shapes_that_do_not_fit():
    from lerf_ros.render.composite_triton import composite_triton

    inputs = rays(12)
    none = composite_triton(*(x[:0].requires_grad_() for x in inputs), FAR)
    none.rgb.sum().backward()
    assert none.weights.shape == (0, 12) and none.rgb.shape == (0, 3) and none.sight.shape == (0,)
    with pytest.raises(ValueError, match="do not fit"):
        composite_triton(inputs[0], inputs[1], inputs[2][:, :-1], *inputs[3:], FAR)


@needs_cuda
def test_can_be_captured_and_replayed():
    from lerf_ros.render.composite_triton import composite_triton

    sources = [rays(48, seed) for seed in range(4)]
    sigmas, colours, *of_rays = (x.clone() for x in sources[0])
    sigmas, colours = sigmas.requires_grad_(), colours.requires_grad_()
    weights = {name: weight.cuda() for name, weight in output_weights(OUTPUTS).items()}

    def work():
        result = composite_triton(sigmas, colours, *of_rays, FAR)
        return result, gradients_of(result, weights, sigmas, colours)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        replayed, gradients = work()
    for source in sources:
        with torch.no_grad():
            for kept, new in zip((sigmas, colours, *of_rays), source, strict=True):
                kept.copy_(new)
        graph.replay()
        expected, exact = work()
        for name in ("weights", *OUTPUTS):
            assert torch.equal(getattr(replayed, name), getattr(expected, name))
        assert all(map(torch.equal, gradients, exact))
