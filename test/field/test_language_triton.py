"""The Triton kernels around the products of a sweep over scales against the torch reference (see test/kernels.py)."""

import pytest
import torch
from torch.nn.functional import normalize

from lerf_ros.field.language import LanguageField, cosines_torch, first_layer_torch
from test.field.test_language import COARSE, FINE
from test.kernels import CUDA, DEVICE, needs_cuda, needs_kernels, starts_interpreter


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 8


@needs_kernels
@pytest.mark.parametrize("per_point", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_first_layer_agrees(per_point, dtype):
    from lerf_ros.field.language_triton import first_layer_triton

    projected, weight = drawn(70, 24), drawn(24, seed=1)
    told = drawn(5, 90, seed=2)[:, 10:80] if per_point else drawn(5, 1, seed=2)
    found, expected = (each(projected, told, weight, dtype) for each in (first_layer_triton, first_layer_torch))
    assert found.dtype == dtype and found.shape == (5, 70, 24)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert torch.equal(found == 0, expected == 0) and (found == 0).any()


@needs_kernels
@pytest.mark.parametrize(("width", "texts"), [(64, 5), (256, 17), (40, 1)])
def test_cosines_agree_and_leave_other_points_alone(width, texts):
    from lerf_ros.field.language_triton import cosines_triton

    hidden = drawn(3, 50, width).relu().to(torch.bfloat16 if CUDA else torch.float32)  # which alone is interpreted
    hidden[0, 0] = 0.0
    W = drawn(30, width, seed=1) / width**0.5
    folded, gram = (normalize(drawn(texts, 30, seed=2), dim=1) @ W).T, W.T @ W
    found, expected = (torch.full((3, 120, texts), 9.0, device=DEVICE) for _ in range(2))
    cosines_triton(hidden, gram, folded, found, 60)
    cosines_torch(hidden, gram, folded, expected, 60)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert (found[:, :60] == 9.0).all() and (found[:, 110:] == 9.0).all() and found[:, 60:110].abs().max() <= 1.01


@needs_kernels
def test_nothing_at_all():
    from lerf_ros.field.language_triton import first_layer_triton

    assert first_layer_triton(drawn(0, 24), drawn(5, 1), drawn(24), torch.float32).shape == (5, 0, 24)


@needs_cuda
@pytest.mark.parametrize("per_point", [False, True])
def test_a_gpu_answers_as_float32_does_but_for_bfloat16(per_point):
    torch.manual_seed(0)
    field = LanguageField(COARSE, FINE, embed_dim=20, hidden=64, layers=4).cuda()
    exact = LanguageField(COARSE, FINE, embed_dim=20, hidden=64, layers=4, precision="float32").cuda()
    exact.load_state_dict(field.state_dict())
    features, texts = drawn(700, 24), normalize(drawn(3, 20, seed=1), dim=1)
    scales = drawn(4, 700 if per_point else 1, seed=3).abs() + 0.05
    found, expected = (each.similarity(features, scales, texts, chunk=999) for each in (field, exact))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
