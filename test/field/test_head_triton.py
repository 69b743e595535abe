"""The fused heads of the language field against the plain ones (see test/kernels.py)."""

from unittest.mock import patch

import pytest
import torch

from lerf_ros.captured import Captured
from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField
from test.kernels import DEVICE, needs_cuda, needs_interpreter, starts_interpreter


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 7


def field_of(features=16, hidden=64, layers=2, embed=32, dino=0, scale="physical", precision="float32"):
    torch.manual_seed(features + hidden)
    grid = HashGridConfig(levels=features // 8, features=4, log2_table=8, min_resolution=4, max_resolution=32)
    field = LanguageField(grid, grid, embed, hidden, layers, dino, "torch", precision, scale).to(DEVICE)
    for name, parameter in field.named_parameters():
        if name.endswith("bias"):
            parameter.data += 0.2 * torch.randn_like(parameter)
    return field


def networks_of(field, with_dino):
    names = ("clip", "dino") if with_dino else ("clip",)
    return [parameter for name, parameter in field.named_parameters() if name.startswith(names)]


def inputs_of(field, points, with_dino):
    """Features, scales, and a cotangent for each head."""
    generator = torch.Generator().manual_seed(points)
    features = torch.randn(points, field.feature_dim, generator=generator)
    scale = 0.05 + 2 * torch.rand(points, generator=generator)
    dims = [field.clip_out.out_features] + [field._dino_dim] * with_dino
    cotangents = [torch.randn(points, dim, generator=generator).to(DEVICE) for dim in dims]
    return features.to(DEVICE), scale.to(DEVICE), cotangents


def plain(field, features, scale, cotangents, dtype=torch.float32):
    """Outputs of the heads (embeddings before they are normalised), and gradients of the features and all weights, by
    the field's own modules, whose products are of that type."""
    features = features.clone().requires_grad_()
    with torch.autocast(DEVICE, dtype, enabled=dtype != torch.float32):
        first = field.clip_from_features(features)
        if field.clip_from_scale is not None:
            first = first + field.clip_from_scale(field._scale_column(scale))
        outputs = [field.clip_out(field.clip_hidden(first)), field.dino_head and field.dino_head(features)][
            : len(cotangents)
        ]
    inputs = [features, *networks_of(field, len(cotangents) == 2)]
    return [*outputs, *torch.autograd.grad([output.float() for output in outputs], inputs, cotangents)]


def fused(field, features, scale, cotangents, dtype=torch.float32):
    features = features.to(dtype).requires_grad_()
    with_dino = len(cotangents) == 2
    with patch.object(LanguageField, "compute_dtype", dtype):
        outputs = field.decode(features, scale, with_dino)[: len(cotangents)]
    assert all(output.dtype == dtype for output in outputs)
    inputs = [features, *networks_of(field, with_dino)]
    return [*outputs, *torch.autograd.grad([output.float() for output in outputs], inputs, cotangents)]


def assert_close(found, expected, tolerance):
    """To a part of each quantity's own norm."""
    assert len(found) == len(expected)
    for value, wanted in zip(found, expected, strict=True):
        assert value.shape == wanted.shape
        assert (value.float() - wanted.float()).norm() <= tolerance * wanted.float().norm()


@needs_interpreter
@pytest.mark.parametrize(
    ("sizes", "points"),
    [
        ({}, 70),
        ({"features": 48, "layers": 4, "dino": 48}, 33),
        ({"layers": 1, "embed": 80, "scale": "normalised"}, 5),
        ({"layers": 3, "dino": 16, "scale": "none"}, 64),
        ({"features": 64, "hidden": 128, "layers": 2, "embed": 144, "dino": 144}, 40),
    ],
)
def test_agrees_with_the_plain_heads(sizes, points):
    field = field_of(**sizes)
    features, scale, cotangents = inputs_of(field, points, field.dino_head is not None)
    found = fused(field, features, scale, cotangents)
    assert_close(found, plain(field, features, scale, cotangents), 1e-5)


@needs_interpreter
def test_without_the_dino_head_its_weights_stay_out():
    field = field_of(dino=16)
    features, scale, cotangents = inputs_of(field, 20, with_dino=False)
    assert_close(fused(field, features, scale, cotangents), plain(field, features, scale, cotangents), 1e-5)


def assert_rounds_as_the_plain_heads_do(field, points, dtype):
    """Both differ from float32 by rounding; neither by more than twice as much as the other, and by chance: a few relus
    flip, which moves a gradient by up to one percent."""
    features, scale, cotangents = inputs_of(field, points, field.dino_head is not None)
    exact, rounded = (plain(field, features, scale, cotangents, kind) for kind in (torch.float32, dtype))
    for value, other, expected in zip(fused(field, features, scale, cotangents, dtype), rounded, exact, strict=True):
        errors = [float((got.float() - expected).norm() / expected.norm()) for got in (value, other)]
        assert errors[0] < 2 * errors[1] + 0.01, errors


@needs_interpreter
def test_float16_rounds_as_the_plain_heads_do():
    """The interpreter has no bfloat16."""
    assert_rounds_as_the_plain_heads_do(field_of(features=64, layers=4, dino=32), 400, torch.float16)


@needs_cuda
@pytest.mark.parametrize(
    "sizes",
    [
        {"features": 192, "hidden": 256, "layers": 4, "embed": 512},
        {"features": 192, "hidden": 256, "layers": 4, "embed": 512, "dino": 384},
        {"features": 64, "hidden": 256, "layers": 4, "embed": 128, "dino": 128, "scale": "normalised"},
        {"features": 32, "hidden": 128, "layers": 3, "embed": 1024, "scale": "none"},
    ],
    ids=str,
)
def test_bfloat16_rounds_as_the_plain_heads_do(sizes):
    assert_rounds_as_the_plain_heads_do(field_of(**sizes), 1999, torch.bfloat16)


@needs_cuda
def test_the_field_takes_the_fused_heads():
    field = field_of(features=64, hidden=256, embed=64, dino=32, precision="auto")
    assert field.is_fused
    assert not field_of(hidden=32, precision="auto").is_fused
    assert not field_of(embed=20, precision="auto").is_fused
    assert not field_of(precision="float32").is_fused
    features, scale, _ = inputs_of(field, 100, with_dino=True)
    outputs, dino = field.decode(features, scale, with_dino=True)
    embeds = torch.nn.functional.normalize(outputs.float(), dim=-1)
    torch.testing.assert_close(embeds, field.embed(features, scale), rtol=0.0, atol=0.02)
    torch.testing.assert_close(dino.float(), field.dino(features), rtol=0.05, atol=0.02)
    assert field.decode(features, scale, with_dino=False)[1] is None


@needs_cuda
def test_heads_can_be_captured_in_a_cuda_graph():
    field = field_of(features=64, hidden=256, layers=3, embed=64, dino=32)
    features, scale, cotangents = inputs_of(field, 300, with_dino=True)
    work = Captured(lambda: tuple(fused(field, features, scale, cotangents, torch.bfloat16)), torch.device("cuda"))
    expected = [value.detach().clone() for value in work.run(None)]
    for _ in range(4):
        found = work.run(None)
    assert_close(found, expected, 1e-3)
