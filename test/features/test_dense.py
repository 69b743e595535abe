import json

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from lerf_ros.features.dense import CLIP_TOKENS, DINO, DenseGrid, load_dense
from lerf_ros.features.encoder import EncoderError, load_encoder

TINY_VIT = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def mini():
    return load_encoder("mini")


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A small timm model with random weights in a file, as a user without a network would pass DINO's."""
    torch.manual_seed(0)
    model = timm.create_model(TINY_VIT, num_classes=0)
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(model.state_dict(), path)
    return model.eval(), str(path)


def test_cells_tile_the_image_and_are_nearly_square():
    grid = DenseGrid.build(480, 640, 15)
    assert (grid.rows, grid.columns) == (15, 20)
    assert DenseGrid.build(376, 1241, 30).columns == 99
    with pytest.raises(ValueError, match="no grid"):
        DenseGrid.build(480, 640, 0)


def test_lookup_is_exact_on_a_bilinear_function_and_at_cell_centres_and_clamped_outside():
    grid = DenseGrid.build(48, 80, 6)  # cells of 8 px, centres at 3.5, 11.5, ...
    v, u = torch.meshgrid(8 * torch.arange(6) + 3.5, 8 * torch.arange(10) + 3.5, indexing="ij")

    def bilinear(u, v):
        return torch.stack([1 + 0.5 * u - 0.2 * v, 0.01 * u * v], dim=-1)

    buffer = torch.stack([bilinear(u, v), -bilinear(u, v)])
    uv = torch.tensor([[3.5, 3.5], [40.0, 20.0], [75.5, 43.5], [12.25, 30.0]])
    slots = torch.tensor([0, 1, 0, 1])
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])[:, None]
    torch.testing.assert_close(grid.interpolate(buffer, slots, uv), sign * bilinear(*uv.T))
    corners = torch.tensor([[0.0, 0.0], [79.0, 47.0], [0.0, 47.0]])
    torch.testing.assert_close(
        grid.interpolate(buffer, torch.zeros(3, dtype=torch.long), corners),
        bilinear(*corners.clamp(3.5).minimum(torch.tensor([75.5, 43.5])).T),
    )


def test_lookup_at_every_pixel_is_pytorchs_upsampling():
    torch.manual_seed(0)
    grid = DenseGrid.build(30, 45, 7)  # cells that are no whole number of pixels
    buffer = torch.randn(1, grid.rows, grid.columns, 3).half()
    v, u = torch.meshgrid(torch.arange(30), torch.arange(45), indexing="ij")
    uv = torch.stack([u, v], dim=-1).reshape(-1, 2).float()
    expected = F.interpolate(buffer.float().permute(0, 3, 1, 2), (30, 45), mode="bilinear")[0].permute(1, 2, 0)
    found = grid.interpolate(buffer, torch.zeros(len(uv), dtype=torch.long), uv)
    torch.testing.assert_close(found, expected.reshape(-1, 3), atol=1e-4, rtol=1e-4)


def test_clip_tokens_move_with_the_image(mini):
    dense = load_dense(CLIP_TOKENS, "", "cpu", mini)
    assert dense.name == CLIP_TOKENS and dense.dim == mini.embed_dim
    torch.manual_seed(0)
    wide = F.interpolate(torch.rand(1, 3, 24, 36), (384, 576), mode="bicubic").clamp(0, 1)
    grid = DenseGrid.build(384, 544, 12)  # cells of 32 px, the network's own
    here, there = (dense.encode(wide[..., shift : shift + 544], grid) for shift in (0, 32))
    assert here.shape == (1, 12, 17, dense.dim)
    torch.testing.assert_close(here.norm(dim=-1), torch.ones(1, 12, 17))
    inner = slice(4, -4)  # the padding at the borders reaches no further
    torch.testing.assert_close(here[:, inner, 5:-4], there[:, inner, 4:-5], atol=1e-3, rtol=0)
    assert (here[:, inner, 4:-5] - there[:, inner, 4:-5]).abs().max() > 0.05


def test_clip_tokens_are_in_the_encoders_space(mini):
    """The pooling of a map without contrast between its cells is its value and output projections, so the token of
    a plain image is its embedding (but for the positional embedding, and the borders)."""
    dense = load_dense("auto", "", "cpu", mini)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.9]])
    tokens = dense.encode(colours[:, :, None, None].expand(3, 3, 320, 320), DenseGrid.build(320, 320, 10))[:, 5, 5]
    own = tokens - tokens.mean(dim=0)
    embeds = mini.encode_images(colours[:, :, None, None].expand(3, 3, 64, 64))
    cosines = F.normalize(own, dim=1) @ F.normalize(embeds - embeds.mean(dim=0), dim=1).T
    assert (cosines.argmax(dim=1) == torch.arange(3)).all() and cosines.diag().min() > 0.5


def test_a_local_file_gives_the_keys_of_timms_last_layer_at_any_image_size(vit, mini):
    model, path = vit
    dense = load_dense(TINY_VIT, path, "cpu", mini)
    assert (dense.name, dense.dim) == (TINY_VIT, 192)
    torch.manual_seed(1)
    images = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():  # timm's blocks by hand
        x = model._pos_embed(model.patch_embed((images - mean) / std))
        for block in model.blocks[:-1]:
            x = block(x)
        weight, bias = model.blocks[-1].attn.qkv.weight[192:384], model.blocks[-1].attn.qkv.bias[192:384]
        keys = F.linear(model.blocks[-1].norm1(x), weight, bias)[:, 1:]
    found = dense.encode(images, DenseGrid.build(224, 224, 14))
    torch.testing.assert_close(found.flatten(1, 2), F.normalize(keys, dim=-1), atol=1e-5, rtol=1e-4)
    assert dense.encode(torch.rand(1, 3, 48, 64), DenseGrid.build(48, 64, 5)).shape == (1, 5, 7, 192)
    with pytest.raises(ValueError, match="this grid is for"):
        dense.encode(images, DenseGrid.build(48, 64, 5))


def test_none_is_none_and_an_unknown_name_gets_close_ones(mini):
    assert load_dense("none", "", "cpu", mini) is None
    with pytest.raises(EncoderError, match=DINO):
        load_dense("vit_small_patch8.dino", "", "cpu", mini)
    with pytest.raises(EncoderError, match=CLIP_TOKENS):
        load_dense("clip-token", "", "cpu", mini)


def test_a_file_that_is_missing_damaged_or_of_another_model_is_refused(vit, mini, tmp_path):
    with pytest.raises(EncoderError, match=r"no weights file .*nowhere"):
        load_dense(TINY_VIT, "/nowhere/dino.safetensors", "cpu", mini)
    (tmp_path / "damaged.safetensors").write_bytes(b"not a weights file")
    for model, path in ((TINY_VIT, str(tmp_path / "damaged.safetensors")), ("vit_small_patch16_224", vit[1])):
        with pytest.raises(EncoderError, match="damaged or not made for"):
            load_dense(model, path, "cpu", mini)


def test_models_that_are_no_plain_vision_transformers_are_refused(monkeypatch, mini):
    with pytest.raises(EncoderError, match=f"resnet18 takes no images of another size.*{DINO}"):
        load_dense("resnet18", "", "cpu", mini)
    create = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, **settings: create(name, **(settings | {"pretrained": False}))
    )
    with pytest.raises(EncoderError, match="not a plain vision transformer"):
        load_dense("swin_tiny_patch4_window7_224", "", "cpu", mini)


def test_without_a_network_the_error_names_the_file_to_fetch(monkeypatch, mini):
    def unreachable(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(
        EncoderError,
        match=f"huggingface.co/timm/{DINO}/resolve/main/model.safetensors.*'dense.pretrained'.*'{CLIP_TOKENS}'",
    ):
        load_dense("vit_small_patch8_224.dino", "", "cpu", mini)


def test_an_encoder_without_a_resnet_has_no_clip_tokens(monkeypatch, tmp_path):
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-vit-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-vit-clip.json")
    save_file(open_clip.create_model("tiny-vit-clip").state_dict(), tmp_path / "tiny.safetensors")
    encoder = load_encoder("tiny-vit-clip", str(tmp_path / "tiny.safetensors"))
    with pytest.raises(EncoderError, match="tiny-vit-clip has none"):
        load_dense(CLIP_TOKENS, "", "cpu", encoder)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, **(kwargs | {"pretrained": False})))
    dino = load_dense("auto", "", "cpu", encoder)
    assert (dino.name, dino.dim) == (DINO, 384)
