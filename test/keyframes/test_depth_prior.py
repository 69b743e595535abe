"""The loader runs against tiny random models where transformers is installed, and everywhere against a stand-in for the
three classes of transformers that it calls."""

import importlib.util
import json
import socket
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lerf_ros.keyframes.depth_prior import EXAMPLE, DepthPriorError, NetworkInput, load_depth_prior

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is optional and not installed"
)
ABSENT = "nobody-at-all/no-such-depth-model"


@pytest.fixture(autouse=True)
def contacted(monkeypatch):
    """The hosts that were looked up. No test reaches a network."""
    hosts = []

    def refuse(host, *_, **__):
        hosts.append(host)
        raise socket.gaierror("there is no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return hosts


# The loader, with a stand-in for transformers


class StubModel(nn.Module):
    """Predicts the mean of the normalised channels at half the size, times a weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float16))

    def forward(self, pixels):
        return SimpleNamespace(predicted_depth=self.weight * F.avg_pool2d(pixels, 2).mean(dim=1))


class StubHub:
    """What `from_pretrained` reads: folders, a cache and a server; ``calls`` are (source, local_files_only, file)."""

    def __init__(self):
        self.calls, self.cache, self.server, self.missing_keys = [], {}, {}, []

    def read(self, file, source, local_files_only):
        self.calls.append((source, local_files_only, file))
        files = self.cache.get(source, {}) if local_files_only else self.server.get(source, {})
        if Path(source).is_dir():
            files = {path.name: json.loads(path.read_text()) for path in Path(source).iterdir()}
        if file not in files:
            raise OSError(f"{source} has no {file}, or there is no connection")
        return files[file]

    def config(self, source, local_files_only):
        return SimpleNamespace(**self.read("config.json", source, local_files_only))

    def processor(self, source, local_files_only):
        return SimpleNamespace(**self.read("preprocessor_config.json", source, local_files_only))

    def model(self, source, config, local_files_only, use_safetensors, output_loading_info):
        assert use_safetensors and output_loading_info
        model = StubModel(self.read("model.safetensors", source, local_files_only))
        return model, {"missing_keys": self.missing_keys}


@pytest.fixture
def hub(monkeypatch):
    hub = StubHub()
    stub = ModuleType("transformers")
    stub.AutoConfig = SimpleNamespace(from_pretrained=hub.config)
    stub.AutoImageProcessor = SimpleNamespace(from_pretrained=hub.processor)
    stub.AutoModelForDepthEstimation = SimpleNamespace(from_pretrained=hub.model)
    monkeypatch.setitem(sys.modules, "transformers", stub)
    return hub


def stub_files(**config):
    config = {"model_type": "depth_anything", "depth_estimation_type": "relative"} | config
    size = {"height": 28, "width": 28}
    shape = {"do_resize": True, "size": size, "keep_aspect_ratio": True, "ensure_multiple_of": 14}
    colours = {"do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.25, 0.125]}
    return {"config.json": config, "preprocessor_config.json": shape | colours, "model.safetensors": 2.0}


def stub_folder(path, **config):
    path.mkdir(exist_ok=True)
    for name, content in stub_files(**config).items():
        (path / name).write_text(json.dumps(content))
    return str(path)


def test_none_is_none_without_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert load_depth_prior("none") is None


def test_without_transformers_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for name in (EXAMPLE, stub_folder(tmp_path)):
        with pytest.raises(DepthPriorError, match="cannot be imported.*pip install transformers.*'none'"):
            load_depth_prior(name)


def test_a_folder_is_read_locally_and_predicts_at_the_size_of_the_image(hub, tmp_path):
    prior = load_depth_prior(stub_folder(tmp_path))
    assert {call[:2] for call in hub.calls} == {(str(tmp_path), True)}
    image = torch.rand(3, 28, 42)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.1, 0.2, 0.3], [0.5, 0.25, 0.125]))
    coarse = 2 * F.avg_pool2d((image - mean) / std, 2).mean(dim=0)  # 28 x 42 is a size of the network: not resized
    expected = F.interpolate(coarse[None, None], (28, 42), mode="bilinear")[0, 0]
    torch.testing.assert_close(prior.predict(image), expected)
    torch.testing.assert_close(prior.predict(image, (14, 21)), coarse)
    torch.testing.assert_close(prior.predict(image.half(), (14, 21)), coarse, atol=1e-2, rtol=1e-2)
    assert prior.predict(torch.rand(3, 33, 57)).shape == (33, 57)
    assert not prior.predict(image).requires_grad


def test_a_ramp_stays_where_it_is_at_every_size(hub, tmp_path):
    """Resizing to the network's input and back keeps pixels in place; half a pixel would be 0.06."""
    prior = load_depth_prior(stub_folder(tmp_path))
    ramp = (torch.arange(160) + 0.5) / 160
    predicted = prior.predict(ramp.expand(3, 112, 160), (56, 80))
    columns = (torch.arange(80) + 0.5) / 80
    slope, offset = 2 * (1 / 0.5 + 1 / 0.25 + 1 / 0.125) / 3, -2 * (0.1 / 0.5 + 0.2 / 0.25 + 0.3 / 0.125) / 3
    inner = slice(8, -8)  # pixels of the network's output are clamped at the borders
    expected = (slope * columns + offset).expand(56, -1)
    torch.testing.assert_close(predicted[:, inner], expected[:, inner], atol=0.005, rtol=0)


def test_folders_are_found_in_the_home_folder_and_the_current_one(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    stub_folder(tmp_path / "model")
    (tmp_path / "models").mkdir()
    stub_folder(tmp_path / "models" / "mine")
    for name in ("~/model", "model", "./model", "models/mine"):  # the last one reads like a name on the hub
        assert load_depth_prior(name).name == name
    assert all(only_local for _, only_local, _ in hub.calls)


@pytest.mark.parametrize(
    ("config", "is_depth"),
    [
        ({"depth_estimation_type": "relative"}, False),
        ({"depth_estimation_type": "metric"}, True),
        ({"model_type": "dpt", "add_projection": False}, False),
        ({"model_type": "dpt", "add_projection": True}, True),
        ({"model_type": "depth_pro"}, False),
        ({"model_type": "glpn"}, True),
        ({"model_type": "zoedepth"}, True),
    ],
)
def test_metric_depth_is_inverted(hub, tmp_path, config, is_depth):
    prior = load_depth_prior(stub_folder(tmp_path, **config))
    image = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1) + torch.tensor([0.5, 0.25, 0.125]).view(3, 1, 1) * 0.8
    predicted = prior.predict(image.expand(3, 28, 28))  # normalised colours are 0.8, and the network doubles them
    torch.testing.assert_close(predicted, torch.full((28, 28), 1 / 1.6 if is_depth else 1.6))


def test_depth_of_zero_or_less_is_very_near_and_not_infinite(hub, tmp_path):
    prior = load_depth_prior(stub_folder(tmp_path, model_type="zoedepth"))
    assert prior.predict(torch.zeros(3, 28, 28)).unique().tolist() == pytest.approx([1000.0])


@pytest.mark.parametrize("shape", [(28, 28), (1, 3, 28, 28), (4, 28, 28), (28, 28, 3), (3, 0, 28)])
def test_images_of_another_shape_are_refused(hub, tmp_path, shape):
    with pytest.raises(ValueError, match=r"must be \(3, H, W\)"):
        load_depth_prior(stub_folder(tmp_path)).predict(torch.zeros(shape))


@pytest.mark.parametrize(
    "name",
    ["", "None", "depth-anything", "./a/b", "../a/b", "/nowhere/model", "~/nowhere", "~no-such-user/model", "a/b/c"],
)
def test_a_name_that_is_neither_a_folder_nor_of_the_hub_never_goes_online(hub, contacted, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DepthPriorError, match=f"neither a folder nor a name.*'{EXAMPLE}'.*'none'"):
        load_depth_prior(name)
    assert not hub.calls and not contacted


def test_a_file_is_refused_with_the_advice_to_give_its_folder(hub, tmp_path, monkeypatch):
    stub_folder(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "model" / "model.safetensors"), "model/model.safetensors"):
        with pytest.raises(DepthPriorError, match="neither a folder .*give the folder that holds config.json"):
            load_depth_prior(name)
    assert not hub.calls


def test_a_hub_name_is_taken_from_the_cache_without_asking_the_hub(hub):
    hub.cache[EXAMPLE] = stub_files()
    assert load_depth_prior(EXAMPLE).name == EXAMPLE
    assert {call[:2] for call in hub.calls} == {(EXAMPLE, True)}


def test_a_hub_name_that_is_not_or_not_completely_cached_is_downloaded(hub):
    hub.server[EXAMPLE] = stub_files()
    for hub.cache in ({}, {EXAMPLE: {"config.json": stub_files()["config.json"]}}):
        hub.calls.clear()
        assert load_depth_prior(EXAMPLE).name == EXAMPLE
        assert hub.calls[0] == (EXAMPLE, True, "config.json")
        assert hub.calls[-1] == (EXAMPLE, False, "model.safetensors")


def test_offline_the_error_says_how_to_bring_the_folder(hub):
    with pytest.raises(
        DepthPriorError,
        match=f"{ABSENT} could not be loaded .*no connection.*hf download {ABSENT} --local-dir.*'depth.prior'.*'none'",
    ):
        load_depth_prior(ABSENT)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert"},
        {"model_type": "dpt", "architectures": ["DPTForSemanticSegmentation"]},
        {"model_type": "chmv2", "architectures": ["CHMv2ForDepthEstimation"]},  # height above ground, from satellites
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_are_read(hub, tmp_path, config):
    with pytest.raises(DepthPriorError, match=f"of the type '{config['model_type']}' .*not a depth model.*{EXAMPLE}"):
        load_depth_prior(stub_folder(tmp_path, **config))
    hub.server[EXAMPLE] = hub.cache[EXAMPLE] = stub_files(**config)
    with pytest.raises(DepthPriorError, match="not a depth model"):
        load_depth_prior(EXAMPLE)
    assert not [call for call in hub.calls if call[2] == "model.safetensors"]


def test_missing_weights_are_refused_but_for_the_unit_that_dpt_does_not_use(hub, tmp_path):
    hub.missing_keys = ["neck.fusion_stage.layers.0.residual_layer1.convolution1.weight"]
    folder = stub_folder(tmp_path, model_type="dpt", add_projection=False)
    assert load_depth_prior(folder)
    hub.missing_keys = [*hub.missing_keys, "head.head.0.weight"]
    with pytest.raises(DepthPriorError, match="incomplete: 1 are missing, such as head.head.0.weight"):
        load_depth_prior(folder)


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_config_is_refused(hub, tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DepthPriorError, match="holds no model of transformers, which needs config.json"):
        load_depth_prior(str(tmp_path))
    assert not hub.calls


def test_a_folder_that_would_look_up_its_backbone_on_the_hub_is_refused(hub, tmp_path):
    folder = stub_folder(tmp_path, backbone="facebook/dinov2-small")
    with pytest.raises(DepthPriorError, match="names its backbone 'facebook/dinov2-small' only.*save_pretrained"):
        load_depth_prior(folder)
    assert not hub.calls
    load_depth_prior(stub_folder(tmp_path, backbone="facebook/dinov2-small", backbone_config={"model_type": "dinov2"}))


def test_a_folder_that_lacks_a_file_is_refused(hub, tmp_path):
    folder = stub_folder(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(DepthPriorError, match="cannot be loaded .* config.json, preprocessor_config.json and model"):
        load_depth_prior(folder)


def test_sizes_of_networks():
    dpt = NetworkInput(384, 384, False, 32, (0.5,) * 3, (0.5,) * 3)
    assert dpt.size_for(480, 640) == (384, 384)
    depth_anything = NetworkInput(518, 518, True, 14, (0.5,) * 3, (0.5,) * 3)
    assert depth_anything.size_for(480, 640) == (518, 686)
    assert depth_anything.size_for(1080, 1920) == (518, 924)
    glpn = NetworkInput.from_processor(SimpleNamespace(do_resize=True, size_divisor=32))
    assert glpn.size_for(480, 650) == (480, 640) and glpn.size_for(20, 70) == (32, 64)
    assert glpn.mean == (0, 0, 0) and glpn.std == (1, 1, 1)


# The loader, with transformers


def tiny_model(kind):
    """(model, image processor) of transformers with few random weights."""
    import transformers as t

    torch.manual_seed(0)
    dinov2 = t.Dinov2Config(
        image_size=28, patch_size=14, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        out_features=["stage1", "stage2"], reshape_hidden_states=False, apply_layernorm=False,
    )  # fmt: skip
    neck = dict(neck_hidden_sizes=[4, 8], fusion_hidden_size=8, reassemble_factors=[2, 1])
    if kind.startswith("depth_anything"):
        scale = "metric" if kind.endswith("metric") else "relative"
        config = t.DepthAnythingConfig(
            backbone_config=dinov2, patch_size=14, reassemble_hidden_size=8, head_hidden_size=4,
            depth_estimation_type=scale, max_depth=20, **neck,
        )  # fmt: skip
        size = {"height": 56, "width": 56}
        processor = t.DPTImageProcessor(size=size, keep_aspect_ratio=True, ensure_multiple_of=14)
        return t.DepthAnythingForDepthEstimation(config), processor
    if kind in ("dpt", "dpt_segmentation"):
        config = t.DPTConfig(
            image_size=32, patch_size=16, hidden_size=8, num_hidden_layers=4, num_attention_heads=2, is_hybrid=False,
            intermediate_size=16, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 8, 8],
            fusion_hidden_size=8,
        )  # fmt: skip
        processor = t.DPTImageProcessor(size={"height": 64, "width": 64}, ensure_multiple_of=32)
        model = t.DPTForDepthEstimation if kind == "dpt" else t.DPTForSemanticSegmentation
        return model(config), processor
    assert kind == "glpn"
    config = t.GLPNConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[4, 8], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=8,
    )  # fmt: skip
    return t.GLPNForDepthEstimation(config), t.GLPNImageProcessor()


def saved(kind, folder):
    model, processor = tiny_model(kind)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


@needs_transformers
@pytest.mark.parametrize(
    ("kind", "size"),  # px, a size at which the network takes the image as it is
    [("depth_anything", (56, 84)), ("depth_anything_metric", (84, 56)), ("dpt", (64, 64)), ("glpn", (64, 96))],
)
def test_a_tiny_model_of_transformers_is_loaded_and_predicts_what_its_own_classes_do(tmp_path, contacted, kind, size):
    model, processor = saved(kind, tmp_path)
    prior = load_depth_prior(str(tmp_path))
    assert prior.name == str(tmp_path) and not contacted
    image = torch.rand(3, *size)
    inputs = processor(images=image, do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        predicted = model(**inputs).predicted_depth
    relative = 1 / predicted if kind in ("depth_anything_metric", "glpn") else predicted
    expected = F.interpolate(relative[:, None], size, mode="bilinear")[0, 0]
    found = prior.predict(image)
    assert found.shape == size and found.isfinite().all() and found.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3 * expected.std().item())
    assert prior.predict(image, (32, 48)).shape == (32, 48)


@needs_transformers
@pytest.mark.parametrize("size", [(480, 640), (376, 1241), (640, 480), (50, 40), (518, 518)])
def test_networks_are_given_the_size_that_transformers_gives_them(size):
    import transformers as t

    image = torch.zeros(3, *size)
    for processor in (
        t.DPTImageProcessor(size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14),
        t.DPTImageProcessor(),
        t.ZoeDepthImageProcessor(ensure_multiple_of=32, do_pad=False),
        t.GLPNImageProcessor(),
        t.DepthProImageProcessor(size={"height": 96, "width": 96}),
    ):
        given = processor(images=image, do_rescale=False, return_tensors="pt")["pixel_values"].shape[2:]
        assert NetworkInput.from_processor(processor).size_for(*size) == tuple(given), type(processor).__name__


@needs_transformers
def test_real_models_of_another_kind_and_damaged_files_are_refused(tmp_path):
    import transformers as t

    saved("dpt_segmentation", tmp_path / "segmentation")
    with pytest.raises(DepthPriorError, match="of the type 'dpt' .DPTForSemanticSegmentation. and not a depth model"):
        load_depth_prior(str(tmp_path / "segmentation"))
    t.BertConfig(architectures=["BertModel"]).save_pretrained(tmp_path / "bert")
    with pytest.raises(DepthPriorError, match="of the type 'bert'"):
        load_depth_prior(str(tmp_path / "bert"))
    saved("dpt", tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"not a weights file")
    with pytest.raises(DepthPriorError, match="cannot be loaded as a depth model"):
        load_depth_prior(str(tmp_path / "damaged"))
    (tmp_path / "damaged" / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(DepthPriorError, match="cannot be loaded as a depth model"):
        load_depth_prior(str(tmp_path / "damaged"))


@needs_transformers
def test_real_weights_that_lack_the_head_are_refused_and_those_of_midas_are_not(tmp_path):
    from safetensors.torch import load_file, save_file

    saved("dpt", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    midas = {name: value for name, value in weights.items() if "fusion_stage.layers.0.residual_layer1" not in name}
    save_file(midas, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert load_depth_prior(str(tmp_path))
    headless = {name: value for name, value in midas.items() if not name.startswith("head.")}
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DepthPriorError, match="incomplete: .* such as head.head.0.bias"):
        load_depth_prior(str(tmp_path))


@needs_transformers
def test_offline_the_error_of_the_real_hub_says_how_to_bring_the_folder(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # else it tries for 20 s
    with pytest.raises(DepthPriorError, match=f"{ABSENT} could not be loaded.*hf download {ABSENT} --local-dir"):
        load_depth_prior(ABSENT)
