from __future__ import annotations

import pytest

from lerf_ros.features.word_tokenizer import WordTokenizer

TOKENIZER = WordTokenizer(["a", "glass", "mug", "red", "the"], context_length=6)


def test_ids_are_start_words_end_and_padding():
    assert TOKENIZER(["a red mug", "Mug!"]).tolist() == [[1, 3, 6, 5, 8, 0], [1, 5, 8, 0, 0, 0]]
    assert TOKENIZER.vocab_size == 9
    assert TOKENIZER(["red"]).argmax().item() == 2  # the end token has the largest id, as open_clip's pooling needs


def test_case_punctuation_and_plurals_do_not_matter():
    assert TOKENIZER.split("  The RED-mugs, glass; glasses?") == ["the", "red", "mug", "glass", "glass"]


def test_unknown_words_are_named_and_get_the_unknown_token():
    assert TOKENIZER.unknown_words("a zebra, red zebras and a mug") == ["zebra", "zebras", "and"]
    assert TOKENIZER(["red zebra"]).tolist() == [[1, 6, 2, 8, 0, 0]]
    assert TOKENIZER.unknown_words("red mugs") == []


def test_texts_that_do_not_fit_are_refused_not_cut():
    with pytest.raises(ValueError, match="at most 4"):
        TOKENIZER(["the red mug the mug"])


def test_vocabulary_files(tmp_path):
    (tmp_path / "words.txt").write_text("mug\nred\n")
    assert WordTokenizer.from_file(tmp_path / "words.txt", 5).words == ("mug", "red")
    with pytest.raises(ValueError, match="repeats"):
        WordTokenizer(["mug", "mug"], 5)
