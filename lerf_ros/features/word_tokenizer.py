"""Word-level tokenizer of the built-in mini CLIP: a few hundred words instead of CLIP's 49,408 sub-word pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

_WORD = re.compile(r"[a-z0-9]+")


class WordTokenizer:
    """Maps texts to token ids as open_clip's tokenizers do: start, words, end, then padding with zeros.

    The end token has the largest id, which is how open_clip's text tower (``pool_type="argmax"``) finds it. A word
    outside the vocabulary becomes the *unknown* token; mini CLIP was trained with that token as a text that fits no
    image, so such a text matches nothing instead of something arbitrary. :meth:`unknown_words` names the words.
    """

    PAD, START, UNKNOWN = 0, 1, 2
    _FIRST_WORD = 3

    def __init__(self, words: Sequence[str], context_length: int):
        """``words``: the vocabulary, lower case, in the order of the text tower's embedding table."""
        if len(set(words)) != len(words):
            raise ValueError("the vocabulary repeats a word")
        self.words = tuple(words)
        self.context_length = context_length
        self.end = self._FIRST_WORD + len(self.words)
        self._ids = {word: self._FIRST_WORD + i for i, word in enumerate(self.words)}

    @classmethod
    def from_file(cls, path: Path, context_length: int) -> WordTokenizer:
        """Reads a vocabulary file: one word a line."""
        return cls(path.read_text(encoding="utf-8").split(), context_length)

    @property
    def vocab_size(self) -> int:
        return self.end + 1

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Token ids (T, context_length) int64. ValueError when a text has more than ``context_length - 2`` words."""
        tokens = torch.full((len(texts), self.context_length), self.PAD, dtype=torch.int64)
        for row, text in zip(tokens, texts):
            ids = [self._ids.get(word, self.UNKNOWN) for word in self.split(text)]
            if len(ids) > self.context_length - 2:
                raise ValueError(f"'{text}' has {len(ids)} words; this encoder reads at most {self.context_length - 2}")
            row[: len(ids) + 2] = torch.tensor([self.START, *ids, self.end])
        return tokens

    def unknown_words(self, text: str) -> list[str]:
        """The words of ``text`` that are not in the vocabulary, in order, each once."""
        return [word for word in dict.fromkeys(self.split(text)) if word not in self._ids]

    def split(self, text: str) -> list[str]:
        """Lower-case words without punctuation; a plural whose singular is known becomes the singular."""
        return [self._singular(word) for word in _WORD.findall(text.lower().replace("'s ", " "))]

    def _singular(self, word: str) -> str:
        if word in self._ids:
            return word
        for ending in ("s", "es"):
            if word.endswith(ending) and word[: -len(ending)] in self._ids:
                return word[: -len(ending)]
        return word
