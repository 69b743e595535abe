from __future__ import annotations

import json

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lerf_ros.features import encoder as encoder_module
from lerf_ros.features.encoder import Encoder, EncoderError, RelevancyCalibration, load_encoder

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An open_clip architecture of our own, with random weights in a file, as a user on a robot would pass it."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "tiny-for-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder / "tiny-for-test.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-for-test")
    save_file(model.state_dict(), folder / "tiny.safetensors")
    return folder / "tiny.safetensors", model


def test_a_local_file_is_loaded_and_encodes_as_open_clip_itself_does(weights):
    path, model = weights
    encoder = load_encoder("tiny-for-test", str(path))
    assert (encoder.name, encoder.embed_dim, encoder.image_size) == ("tiny-for-test", 16, 32)
    crops = torch.rand(3, 3, 32, 32)
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    model.eval()
    with torch.no_grad():
        images = model.encode_image((crops - mean) / std, normalize=True)
        texts = model.encode_text(open_clip.tokenize(["a red mug", "table"]), normalize=True)
    torch.testing.assert_close(encoder.encode_images(crops), images)
    torch.testing.assert_close(encoder.encode_texts(["a red mug", " table "]), texts)
    assert encoder.unknown_words("zyzzyva") == []
    assert encoder.calibration == RelevancyCalibration(10.0, ("object", "things", "stuff", "texture"))


def test_a_residual_network_encodes_as_it_did_with_its_normalisations():
    encoder = load_encoder("mini")
    model = open_clip.create_model("mini", str(encoder_module.MINI_CLIP / "mini.safetensors"))
    model.eval()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.model.modules())
    crops = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(t).view(3, 1, 1) for t in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    with torch.no_grad():
        expected = model.encode_image((crops - mean) / std, normalize=True)
    torch.testing.assert_close(encoder.encode_images(crops), expected, atol=1e-5, rtol=0)


def test_crops_of_any_size_are_resized(weights):
    encoder = load_encoder("tiny-for-test", str(weights[0]))
    plain = torch.full((1, 3, 32, 32), 0.3)
    for shape in ((24, 24), (240, 240), (100, 50)):
        torch.testing.assert_close(
            encoder.encode_images(plain[..., :1, :1].expand(1, 3, *shape)), encoder.encode_images(plain)
        )
    for wrong in (torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32), torch.zeros(1, 3, 0, 32)):
        with pytest.raises(ValueError, match="crops must be"):
            encoder.encode_images(wrong)


def test_texts_are_encoded_once_and_the_cache_is_bounded(weights, monkeypatch):
    encoder = load_encoder("tiny-for-test", str(weights[0]))
    asked: list[str] = []
    embed = Encoder._embed_texts
    monkeypatch.setattr(Encoder, "_embed_texts", lambda self, texts: asked.extend(texts) or embed(self, texts))
    monkeypatch.setattr(encoder_module, "_CACHED_TEXTS", 2)
    first = encoder.encode_texts(["mug", "bear", "mug"])
    assert asked == ["mug", "bear"]
    assert torch.equal(encoder.encode_texts(["bear", "mug"]), first[[1, 0]])
    assert asked == ["mug", "bear"]
    encoder.encode_texts(["lamp"])  # drops "bear", the one used longest ago
    torch.testing.assert_close(encoder.encode_texts(["mug", "bear"]), first[:2])
    assert asked == ["mug", "bear", "lamp", "bear"]
    assert len(encoder.encode_texts([])) == 0
    with pytest.raises(ValueError, match="empty"):
        encoder.encode_texts(["mug", "  "])


def test_an_unknown_model_name_gets_close_names():
    with pytest.raises(EncoderError, match="ViT-B-16"):
        load_encoder("ViT-B16", "openai")


def test_an_unknown_tag_and_a_missing_file_say_what_exists():
    with pytest.raises(EncoderError, match="laion2b_s34b_b88k"):
        load_encoder("ViT-B-16", "/nowhere/weights.safetensors")
    with pytest.raises(EncoderError, match="neither a weights file nor a pretrained tag"):
        load_encoder("ViT-B-16")


def test_without_a_network_the_error_names_the_file_to_fetch(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("network is unreachable")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", unreachable)
    with pytest.raises(
        EncoderError, match="huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/.*'pretrained'"
    ):
        load_encoder("ViT-B-16", "laion2b_s34b_b88k")


def test_a_damaged_or_foreign_file_is_refused(weights, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"not a weights file")
    save_file({"something": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    for name in ("damaged", "foreign"):
        with pytest.raises(EncoderError, match="damaged or not made for"):
            load_encoder("tiny-for-test", str(tmp_path / f"{name}.safetensors"))


def test_calibrations_are_read_and_checked(tmp_path):
    (tmp_path / "c.json").write_text('{"k": 20, "canonical_phrases": ["thing"], "found_threshold": 0.7}')
    assert RelevancyCalibration.from_file(tmp_path / "c.json") == RelevancyCalibration(20, ("thing",), 0.7)
    for wrong in ({"k": 0}, {"canonical_phrases": ()}, {"found_threshold": 1.0}):
        with pytest.raises(ValueError):
            RelevancyCalibration(**wrong)
