"""The fused losses on language against the plain ones (see test/kernels.py)."""

import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField
from lerf_ros.mapping.decoding import LanguageFeatures
from lerf_ros.mapping.losses import dino_loss, language_loss, language_losses
from lerf_ros.mapping.mapper import Mapper
from test.kernels import DEVICE, INTERPRETED, needs_cuda, needs_kernels, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 16


def inputs_of(rays, embed, dims=0, without=0.3):
    """Outputs, targets (some of them zeros), and dino, dense, known or None."""
    rng = torch.Generator().manual_seed(rays)
    outputs = 3 * torch.randn(rays, embed, generator=rng)
    targets = normalize(torch.randn(rays, embed, generator=rng), dim=-1)
    targets[torch.rand(rays, generator=rng) < without] = 0.0
    if not dims:
        return outputs.to(DEVICE), targets.to(DEVICE), None, None, None
    dense = normalize(torch.randn(rays, dims, generator=rng) + 1, dim=-1)
    dino = dense + 0.1 * torch.randn(rays, dims, generator=rng)
    known = torch.rand(rays, generator=rng) >= without
    return tuple(x.to(DEVICE) for x in (outputs, targets, dino, dense, known))


def plain(outputs, targets, dino, dense, known):
    language = language_loss(normalize(outputs.float(), dim=-1), targets)
    return language, language.new_zeros(()) if dino is None else dino_loss(dino.float(), dense, known)


def fused(*inputs):
    from lerf_ros.mapping.losses_triton import LanguageLosses

    return LanguageLosses.apply(*inputs)


def gradients(losses_of, outputs, targets, dino, dense, known, weights=(0.7, -1.3)):
    """Both losses, and the gradients of their weighted sum."""
    leaves = [x.clone().requires_grad_() for x in (outputs, dino) if x is not None]
    losses = losses_of(leaves[0], targets, *leaves[1:] or [None], dense, known)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return [*losses, *torch.autograd.grad(total, leaves)]


def assert_agrees(inputs, tolerance=1e-5):
    found, expected = gradients(fused, *inputs), gradients(plain, *inputs)
    for value, wanted in zip(found, expected, strict=True):
        assert value.dtype == wanted.dtype
        scale = float(wanted.detach().float().abs().max())
        torch.testing.assert_close(value, wanted, rtol=tolerance, atol=tolerance * scale)
    return found


@needs_kernels
@pytest.mark.parametrize(
    ("rays", "embed", "dims"), [(70, 64, 0), (70, 512, 384), (5, 144, 48), (2100, 16, 16), (33, 20, 200)]
)
def test_agrees_with_the_plain_losses(rays, embed, dims):
    losses = assert_agrees(inputs_of(rays, embed, dims))[:2]
    assert (float(losses[1]) > 0) == (dims > 0)


@needs_kernels
def test_rays_without_any_target_cost_nothing_and_give_no_gradient():
    found = gradients(fused, *inputs_of(20, 32, 16, without=1.1))
    assert all((value == 0).all() for value in found)


@needs_kernels
def test_where_all_rays_see_the_same_the_loss_stays_bounded():
    outputs, targets, dino, dense, known = inputs_of(40, 16, 16)
    dense = dense[:1].expand_as(dense).contiguous()
    assert_agrees((outputs, targets, dino, dense, known), tolerance=1e-4)


@needs_kernels
def test_what_is_not_known_is_not_read():
    outputs, targets, dino, dense, known = inputs_of(40, 16, 16)
    garbage = torch.where(known[:, None], dense, torch.nan)
    found = gradients(fused, outputs, targets, dino, garbage, known)
    for value, expected in zip(found, gradients(plain, outputs, targets, dino, dense, known), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@needs_kernels
def test_a_loss_that_nobody_wants_gives_no_gradient():
    outputs, targets, dino, dense, known = inputs_of(30, 32, 16)
    outputs, dino = outputs.requires_grad_(), dino.requires_grad_()
    language, dino_term = fused(outputs, targets, dino, dense, known)
    of_language = torch.autograd.grad(language, [outputs, dino], retain_graph=True)
    assert of_language[0].any() and not of_language[1].any()
    of_dino = torch.autograd.grad(dino_term, [outputs, dino])
    assert not of_dino[0].any() and of_dino[1].any()


@needs_kernels
def test_a_loss_of_what_is_not_a_number_is_none():
    outputs, targets, *dense = inputs_of(30, 32)
    outputs[7, 3] = torch.nan
    targets[7] = targets[targets.any(dim=1)][0]
    assert fused(outputs, targets, *dense)[0].isnan()


@needs_kernels
def test_half_precision_outputs_are_summed_in_float32():
    dtype = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter has no bfloat16
    outputs, targets, dino, dense, known = inputs_of(200, 128, 48)
    found = gradients(fused, outputs.to(dtype), targets, dino.to(dtype), dense, known)
    expected = gradients(plain, outputs.to(dtype).float(), targets, dino.to(dtype).float(), dense, known)
    assert [value.dtype for value in found] == [torch.float32] * 2 + [dtype] * 2
    for value, wanted, tolerance in zip(found, expected, (1e-5, 1e-5, 2**-8, 2**-8), strict=True):
        assert (value.float() - wanted).norm() <= tolerance * wanted.norm()


def language_of(scale="physical", dtype=torch.float32):
    """A field, and what its losses take: features of 90 rays, scales, targets, dense ones, and which are known."""
    torch.manual_seed(1)
    grid = HashGridConfig(levels=2, features=8, log2_table=8, min_resolution=4, max_resolution=16)
    field = LanguageField(grid, grid, 48, 64, 3, 32, "torch", scale_input=scale).to(DEVICE)
    _, targets, _, dense, known = inputs_of(90, 48, 32)
    features = torch.randn(90, field.feature_dim, device=DEVICE).to(dtype)
    return field, features, 0.1 + torch.rand(90, device=DEVICE), targets, dense, known


def language_gradients(field, features, scale, targets, dense, known):
    """Both losses, and the gradients of their sum: of the features and all weights that it depends on."""
    features = features.clone().requires_grad_()
    taken = LanguageFeatures(field, features, t=scale)
    losses = language_losses(taken, scale, targets, dense, known)
    networks = [
        p for name, p in field.named_parameters() if not name.endswith("table") and (dense is not None or name < "d")
    ]
    return [*losses, *torch.autograd.grad(losses[0] + losses[1], [features, *networks])]


@needs_kernels
@pytest.mark.parametrize("scale", ["physical", "normalised", "none"])
@pytest.mark.parametrize("with_dense", [True, False])
def test_heads_and_losses_together(scale, with_dense, monkeypatch):
    dtype = torch.float32 if INTERPRETED else torch.bfloat16
    field, *inputs = language_of(scale, dtype)
    inputs[-2:] = inputs[-2:] if with_dense else (None, None)
    found = []
    for kernels in (True, False):
        monkeypatch.setattr(LanguageField, "is_fused", kernels)
        found.append(language_gradients(field, *inputs))
    assert (float(found[0][1]) > 0) == with_dense
    for value, expected in zip(*found, strict=True):
        assert (value - expected).norm() <= (1e-4 if INTERPRETED else 0.1) * expected.norm()


@needs_cuda
def test_a_map_learns_with_the_kernels_as_without(box, monkeypatch):
    sizes = {"levels": 4, "features": 4}
    settings = {f"language.{grid}.{name}": n for grid in ("coarse_grid", "fine_grid") for name, n in sizes.items()}
    embeds, ends = torch.eye(16)[:2], []
    for kernels in (True, False):
        if not kernels:
            monkeypatch.setattr(LanguageField, "is_fused", False)
            monkeypatch.setattr("lerf_ros.mapping.decoding.runs_kernels", lambda device: False)
        mapper = Mapper(
            box.config.override(settings | {"language.hidden": 64, "dense.rows": 6}), box.camera, 16, DEVICE, 0, 16
        )
        for frame in box.walk(10):
            mapper.add_frame(frame)
        box.write_halves(mapper, embeds.to(DEVICE))
        for slot in range(10):
            rows, columns = mapper.store.dense.shape[1:3]
            cells = torch.arange(rows * columns * 16, device=DEVICE).view(rows, columns, 16) % (7 + slot)
            assert mapper.store.write_dense(slot, 1, normalize(cells.float(), dim=-1))
            mapper.store.finish_dense(slot, 1)
        assert mapper.fields.language.is_fused == kernels
        for _ in range(200):
            last = mapper.step()
        ends.append((float(last.language), float(last.dino), int(last.skipped)))
    assert ends[0][2] == ends[1][2] == 0
    assert ends[0][0] == pytest.approx(ends[1][0], abs=0.03) and ends[0][0] < 0.2
    assert ends[0][1] == pytest.approx(ends[1][1], rel=0.2)


@needs_cuda
def test_losses_can_be_captured_in_a_cuda_graph():
    inputs = inputs_of(500, 64, 48)
    expected = gradients(fused, *inputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = gradients(fused, *inputs)
    graph.replay()
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted)
