"""The fused vision transformer against open_clip's own forward, and its Triton kernels (see test/kernels.py)."""

from __future__ import annotations

import copy
from functools import partial

import open_clip
import pytest
import torch
from open_clip.transformer import LayerNorm, LayerNormFp32, QuickGELU
from torch import nn

from lerf_ros.features import vision_transformer
from lerf_ros.features.encoder import Encoder, RelevancyCalibration, load_encoder
from lerf_ros.features.vision_transformer import (
    TORCH,
    FusedVisionTransformer,
    Passes,
    Tiling,
    add_norm_torch,
    is_supported,
    passes_on,
    patches_torch,
    quick_gelu_torch,
)
from test.kernels import CUDA, DEVICE, needs_cuda, needs_kernels, starts_interpreter

INTERPRETER_OPTIONS = ("-k", "kernel")  # the others need none

MEAN, STD = torch.tensor([0.4, 0.5, 0.6], device=DEVICE), torch.tensor([0.2, 0.3, 0.25], device=DEVICE)
STEP = {torch.float32: 1e-5, torch.bfloat16: 2**-7}  # between neighbours in bfloat16: the interpreter cuts off
VISION = {"image_size": 48, "layers": 3, "width": 48, "head_width": 12, "patch_size": 16}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
SUPPORTED = {
    "plain": {},
    "no ln_pre": {"no_ln_pre": True},
    "mean": {"pool_type": "avg"},
    "mean, norm after": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "token, norm after": {"final_ln_after_pool": True},
    "patch dropout": {"patch_dropout": 0.5},
    "one layer, odd heads": {"layers": 1, "width": 36, "mlp_ratio": 2.5},
    "tanh": {"act_kwargs": {"approximate": "tanh"}},
    "epsilon": {"norm_kwargs": {"eps": 1e-2}},
    "fixed positions": {"pos_embed_type": "sin_cos_2d"},
    "a rest of pixels": {"image_size": 53},
}
UNSUPPORTED = {
    "attentional pool": {"attentional_pool": True},
    "every token": {"output_tokens": True},
    "no pooling": {"pool_type": "none"},
    "layer scale": {"ls_init_value": 0.1},
    "custom block": {"block_type": "custom"},
    "norm of queries and keys": {"qk_norm": True},
    "norm without affine": {"norm_kwargs": {"elementwise_affine": False}},
    "residual network": {"layers": (1, 1, 1, 1), "image_size": 64},
}


def model_of(vision=(), text=(), quick_gelu=False, seed=0, dtype=None):
    """An open_clip model with random weights everywhere, in biases and norms too."""
    torch.manual_seed(seed)
    vision, text = {**VISION, **dict(vision)}, {**TEXT, **dict(text)}
    model = open_clip.CLIP(24, vision, text, quick_gelu=quick_gelu, cast_dtype=dtype).eval().requires_grad_(False)
    for parameter in model.visual.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(DEVICE)


def images_for(model, count=3):
    size = model.visual.image_size
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(count)).to(DEVICE)


def normalised(images):
    return (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch):
    """In float32, of which cuDNN would keep 10 bits: open_clip's own forward convolves patches."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def fused_of(model, passes=None):
    return FusedVisionTransformer(model.visual, MEAN, STD, passes)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("name", SUPPORTED)
def test_encodes_as_open_clip_does(name, quick_gelu):
    if quick_gelu and name == "tanh":
        pytest.skip("QuickGELU has no options")
    model = model_of(SUPPORTED[name], quick_gelu=quick_gelu)
    assert is_supported(model)
    images = images_for(model)
    expected = model.encode_image(normalised(images))
    torch.testing.assert_close(fused_of(model)(images), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_any_number_of_images_in_any_layout(count, pool):
    model = model_of({"pool_type": pool})
    fused, images = fused_of(model), images_for(model, count)
    before, expected = images.clone(), model.encode_image(normalised(images))
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(fused(images.contiguous(memory_format=layout)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fused(images.mT.contiguous().mT), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(images, before)


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_in_bfloat16_it_is_no_further_from_float32_than_open_clip(quick_gelu):
    model = model_of({"layers": 6}, quick_gelu=quick_gelu, dtype=torch.bfloat16)
    images = images_for(model, 16)
    exact = model.encode_image(normalised(images))
    open_clip.model.convert_weights_to_lp(model, torch.bfloat16)
    assert model.visual.ln_post.weight.dtype == torch.float32
    own = model.encode_image(normalised(images).bfloat16())
    fused = fused_of(model)(images)
    assert fused.dtype == own.dtype == torch.bfloat16
    far_own, far_fused = (float((x.float() - exact).square().mean().sqrt()) for x in (own, fused))
    assert far_fused < 1.2 * far_own < 0.1 * float(exact.square().mean().sqrt())


@pytest.mark.parametrize("pool", ["tok", "avg"])
def test_gelu_within_the_product_is_gelu(pool, monkeypatch):
    """The branch of bfloat16 on GPUs; on CPUs torch computes the exact form there."""
    model = model_of({"pool_type": pool})
    fused, images = fused_of(model), images_for(model)
    monkeypatch.setattr(fused, "_gelu_in_product", True)
    torch.testing.assert_close(
        fused(images), model.encode_image(normalised(images)), atol=2e-3 if CUDA else 1e-5, rtol=0
    )


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_falls_back_to_the_models_own_forward(name):
    model = model_of(UNSUPPORTED[name])
    assert not is_supported(model)
    if name in ("every token", "no pooling", "attentional pool"):
        return  # not one vector per image: no encoder
    encoder = encoder_of(model)
    assert encoder._fused is None
    assert encoder.encode_images(torch.rand(2, 3, 48, 48)).shape == (2, 24)


def encoder_of(model):
    def tokenizer(texts):
        return torch.ones(len(texts), TEXT["context_length"], dtype=torch.long)

    open_clip.factory.set_model_preprocess_cfg(model, {"mean": MEAN.tolist(), "std": STD.tolist()})
    return Encoder("tiny", model, tokenizer, RelevancyCalibration())


def test_an_altered_model_is_left_alone():
    class Other(open_clip.CLIP):
        pass

    model = model_of()
    assert is_supported(model)
    altered = copy.deepcopy(model)
    altered.__class__ = Other
    assert not is_supported(altered)
    for path, module in (
        ("ln_post", nn.LayerNorm(48)),
        ("transformer.resblocks.1.mlp.gelu", nn.ReLU()),
        ("transformer.resblocks.2.mlp.c_fc", nn.Identity()),
        ("transformer.resblocks.0.attn", nn.MultiheadAttention(48, 4, batch_first=True, add_zero_attn=True)),
        ("transformer.resblocks.0.attn", nn.MultiheadAttention(48, 4, batch_first=True, bias=False)),
        ("transformer", nn.Identity()),
    ):
        altered = copy.deepcopy(model)
        altered.visual.set_submodule(path, module)
        assert not is_supported(altered), path
    assert not is_supported(nn.Identity())


def test_an_encoder_uses_it():
    model = model_of(SUPPORTED["plain"])
    crops = torch.rand(4, 3, 48, 48)
    encoder = encoder_of(model)
    assert isinstance(encoder._fused, FusedVisionTransformer)
    found = encoder.encode_images(crops)
    encoder._fused = None
    torch.testing.assert_close(found, encoder.encode_images(crops), atol=1e-5, rtol=0)


def test_the_mini_encoder_does_not():
    encoder = load_encoder("mini")
    assert encoder._fused is None
    crops = torch.rand(4, 3, encoder.image_size, encoder.image_size, generator=torch.Generator().manual_seed(0))
    scaled = ((crops - encoder._mean) / encoder._std).contiguous(memory_format=torch.channels_last)
    expected = nn.functional.normalize(encoder.model.encode_image(scaled), dim=-1)
    assert torch.equal(encoder.encode_images(crops), expected)


def test_a_cpu_has_torch_passes():
    assert passes_on(torch.device("cpu")) is TORCH


@needs_cuda
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_on_a_gpu_in_bfloat16_no_further_from_float32_than_open_clip(quick_gelu):
    """With head widths, and so a memory layout, that flash attention takes."""
    model = model_of({"width": 256, "head_width": 64, "layers": 6}, quick_gelu=quick_gelu, dtype=torch.bfloat16)
    images = images_for(model, 64)
    exact = model.encode_image(normalised(images))
    open_clip.model.convert_weights_to_lp(model, torch.bfloat16)
    own, fused = model.encode_image(normalised(images).bfloat16()), fused_of(model)(images)
    far_own, far_fused = (float((x.float() - exact).square().mean().sqrt()) for x in (own, fused))
    assert far_fused < 1.2 * far_own


@starts_interpreter
def test_under_the_interpreter(passed_under_the_interpreter):
    assert passed_under_the_interpreter() >= 30


@pytest.fixture
def kernels():
    from lerf_ros.features import vision_transformer_triton

    return Passes(
        vision_transformer_triton.patches_triton,
        vision_transformer_triton.add_norm_triton,
        vision_transformer_triton.quick_gelu_triton,
    )


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns", "height", "width"), [(1, 1, 4, 4), (3, 2, 6, 5), (2, 5, 16, 8)])
def test_kernel_cuts_patches(kernels, rows, columns, height, width, dtype):
    tiling = Tiling(rows, columns, height, width, MEAN, STD)
    images = torch.rand(2, 3, rows * height + 1, columns * width + 3, generator=torch.Generator().manual_seed(0))
    weight = torch.eye(3 * height * width).view(-1, 3, height, width)
    seen = nn.functional.conv2d(normalised(images.to(DEVICE)), weight.to(DEVICE), stride=(height, width))
    expected = nn.functional.pad(seen.flatten(2).mT, (0, 0, 1, 0)).to(dtype)
    for patches in (kernels.patches, patches_torch):
        for layout in (torch.contiguous_format, torch.channels_last):
            found = patches(images.to(DEVICE, memory_format=layout), tiling, dtype)
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=STEP[dtype])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("period", [None, 1, 5, 20])
@pytest.mark.parametrize("width", [24, 64, 300])
def test_kernel_adds_and_normalises(kernels, width, period, dtype):
    generator = torch.Generator().manual_seed(width)
    draw = partial(torch.randn, generator=generator)
    x = (draw(20, width) + 3).to(DEVICE, dtype)
    addend = None if period is None else draw(period, width).to(DEVICE, dtype)
    norm = (LayerNormFp32 if dtype == torch.bfloat16 else LayerNorm)(width, eps=1e-3).requires_grad_(False).to(DEVICE)
    norm.weight.copy_(draw(width))
    norm.bias.copy_(draw(width))
    total = x.clone() if addend is None else x + addend.repeat(20 // period, 1)
    for add_norm in (kernels.add_norm, add_norm_torch):
        stream = x.clone()
        found = add_norm(stream, addend, norm)
        torch.testing.assert_close(stream, total, atol=1e-6, rtol=STEP[dtype])
        torch.testing.assert_close(found, norm(stream), atol=1e-5, rtol=STEP[dtype])


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3), (7, 400)])
def test_kernel_of_quick_gelu(kernels, shape, dtype):
    x = (4 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(DEVICE, dtype)
    expected = QuickGELU()(x.float())
    torch.testing.assert_close(quick_gelu_torch(x.float()), expected)
    torch.testing.assert_close(kernels.quick_gelu(x).float(), expected, atol=1e-6, rtol=STEP[dtype])


@needs_kernels
@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("name", ["plain", "mean, norm after"])
def test_kernels_make_the_same_transformer(kernels, name, quick_gelu):
    model = model_of({**SUPPORTED[name], "layers": 2}, quick_gelu=quick_gelu)
    images = images_for(model, 2)
    found = fused_of(model, kernels)(images)
    torch.testing.assert_close(found, model.encode_image(normalised(images)), atol=1e-5, rtol=1e-5)


@needs_kernels
def test_kernels_are_chosen_where_they_run(kernels, monkeypatch):
    monkeypatch.setattr(vision_transformer, "runs_kernels", lambda device: True)
    assert passes_on(torch.device(DEVICE)) == kernels
