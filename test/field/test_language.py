import pytest
import torch

from lerf_ros.field.encoding import HashGridConfig
from lerf_ros.field.language import LanguageField

COARSE = HashGridConfig(levels=3, features=4, log2_table=10, min_resolution=8, max_resolution=32)
FINE = HashGridConfig(levels=3, features=4, log2_table=10, min_resolution=32, max_resolution=128)


@pytest.fixture
def field():
    torch.manual_seed(0)
    module = LanguageField(COARSE, FINE, embed_dim=20, hidden=32, layers=4, dino_dim=6)
    for grid in (module.coarse, module.fine):
        torch.nn.init.normal_(grid.table)
    return module


def test_features_are_both_grids_side_by_side(field):
    x_unit = torch.rand(10, 3)
    features = field.features(x_unit)
    assert features.shape == (10, field.feature_dim) == (10, 24)
    torch.testing.assert_close(features[:, 12:], field.fine(x_unit))


def test_embeddings_are_unit_and_depend_on_the_ratio_of_scales(field):
    features = field.features(torch.rand(10, 3))
    small, large = (field.embed(features, torch.full((10,), s)) for s in (0.1, 1.0))
    torch.testing.assert_close(small.norm(dim=-1), torch.ones(10))
    assert (small - large).norm(dim=-1).min() > 1e-3
    # The head is a plain network of [features, log(scale / 0.3 m)].
    stacked = torch.cat([features, torch.full((10, 1), torch.log(torch.tensor(1.0 / 0.3)))], dim=-1)
    first = torch.cat([field.clip_from_features.weight, field.clip_from_scale.weight], dim=1)
    hidden = field.clip_hidden(stacked @ first.T + field.clip_from_features.bias)
    torch.testing.assert_close(torch.nn.functional.normalize(field.clip_out(hidden), dim=-1), large)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_folded_similarity_equals_the_direct_computation(field, chunk):
    features = field.features(torch.rand(50, 3))
    scales = torch.tensor([0.05, 0.3, 2.0])
    texts = torch.nn.functional.normalize(torch.randn(5, 20), dim=-1)
    direct = torch.stack([field.embed(features, s.expand(50)) @ texts.T for s in scales])
    folded = field.similarity(features, scales, texts, chunk=chunk)
    assert folded.shape == (3, 50, 5)
    torch.testing.assert_close(folded, direct, atol=1e-5, rtol=0)


def test_similarity_with_more_dimensions_than_hidden_units():
    torch.manual_seed(1)
    field = LanguageField(COARSE, FINE, embed_dim=512, hidden=64)
    features, texts = torch.randn(20, 24), torch.nn.functional.normalize(torch.randn(3, 512), dim=-1)
    direct = field.embed(features, torch.full((20,), 0.5)) @ texts.T
    torch.testing.assert_close(field.similarity(features, torch.tensor([0.5]), texts)[0], direct, atol=1e-5, rtol=0)


def test_the_dino_head_is_optional(field):
    features = field.features(torch.rand(10, 3))
    assert field.dino(features).shape == (10, 6)
    assert LanguageField(COARSE, FINE, embed_dim=8).dino(features) is None


def test_it_learns_what_a_place_looks_like_at_two_scales():
    """Two places, each with one embedding up close and another from afar."""
    torch.manual_seed(0)
    field = LanguageField(COARSE, FINE, embed_dim=8, hidden=32, layers=2)
    optimiser = torch.optim.Adam(field.parameters(), lr=5e-3)
    target = torch.eye(8)[:4].reshape(2, 2, 8)  # place, scale

    def batch(count):
        place, close = torch.randint(2, (count,)), torch.rand(count) < 0.5
        x_unit = 0.3 + 0.4 * place[:, None] + 0.05 * torch.rand(count, 3)
        return x_unit, torch.where(close, 0.1, 1.5), target[place, close.long()]

    for _ in range(150):
        x_unit, scale, truth = batch(256)
        loss = (1 - (field.embed(field.features(x_unit), scale) * truth).sum(dim=-1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x_unit, scale, truth = batch(200)
    assert (field.embed(field.features(x_unit), scale) * truth).sum(dim=-1).min() > 0.9


def test_impossible_heads_are_refused():
    with pytest.raises(ValueError, match="hidden layer"):
        LanguageField(COARSE, FINE, embed_dim=8, layers=0)


def test_a_point_with_several_features_has_their_weighted_embedding(field):
    features = field.features(torch.rand(60, 3)).view(20, 3, -1)
    weights = torch.rand(20, 3)
    scales, texts = torch.tensor([0.1, 0.8]), torch.nn.functional.normalize(torch.randn(5, 20), dim=-1)
    for row, s in enumerate(scales):
        embeds = field.embed(features.flatten(0, 1), s.expand(60)).view(20, 3, -1)
        blend = torch.nn.functional.normalize((weights[..., None] * embeds).sum(dim=1), dim=-1)
        folded = field.similarity(features, scales, texts, weights, chunk=7)
        torch.testing.assert_close(folded[row], blend @ texts.T, atol=1e-5, rtol=0)


def test_a_normalised_scale_is_taken_as_it_is():
    torch.manual_seed(2)
    field = LanguageField(COARSE, FINE, embed_dim=8, hidden=16, scale_input="normalised")
    features, scale = torch.randn(9, 24), torch.rand(9)
    stacked = torch.cat([features, scale[:, None]], dim=-1)
    first = torch.cat([field.clip_from_features.weight, field.clip_from_scale.weight], dim=1)
    out = field.clip_out(field.clip_hidden(stacked @ first.T + field.clip_from_features.bias))
    torch.testing.assert_close(field.embed(features, scale), torch.nn.functional.normalize(out, dim=-1))
    texts = torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    direct = torch.stack([field.embed(features, s.expand(9)) @ texts.T for s in scale[:3]])
    torch.testing.assert_close(field.similarity(features, scale[:3], texts), direct, atol=1e-5, rtol=0)


def test_without_scale_all_scales_are_one():
    torch.manual_seed(2)
    field = LanguageField(COARSE, FINE, embed_dim=8, hidden=16, scale_input="none")
    features, texts = torch.randn(9, 24), torch.nn.functional.normalize(torch.randn(4, 8), dim=-1)
    embeds = field.embed(features, torch.rand(9) + 0.1)
    assert torch.equal(embeds, field.embed(features, torch.ones(9)))
    similarity = field.similarity(features, torch.tensor([0.1, 0.5, 2.0]), texts)
    torch.testing.assert_close(similarity, (embeds @ texts.T).expand(3, -1, -1), atol=1e-5, rtol=0)
    assert not any("scale" in name for name, _ in field.named_parameters())
    with pytest.raises(ValueError, match="physical"):
        LanguageField(COARSE, FINE, embed_dim=8, scale_input="metric")
