"""What mini CLIP is told about crops: one class for each thing that can be true of a crop, said in many ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lerf_ros.features.word_tokenizer import WordTokenizer

CANONICAL_PHRASES = ("object", "things", "stuff", "texture")
TEMPLATES = (
    "{}", "a {}", "an {}", "the {}", "my {}", "one {}", "some {}", "a small {}", "a little {}", "a big {}",
    "a large {}", "a photo of a {}", "an image of the {}", "a close up of a {}", "this is a {}", "is there any {}",
    "there is a {} in the room",
    "find the {}", "where is the {}", "look for my {} please", "show me a {}", "bring me the {}", "go to the {}",
)  # fmt: skip


class TextBank:
    """All classes with their phrasings; draws one phrasing of each for a training step."""

    def __init__(self, phrases: Mapping[str, Sequence[str]], context_length: int):
        """``phrases``: class name -> its ways to be said ("red mug": "red mug", "red cup")."""
        self.names = list(phrases)
        sentences = (*TEMPLATES, *CANONICAL_PHRASES, *(phrase for said in phrases.values() for phrase in said))
        words = sorted({word for sentence in sentences for word in WordTokenizer((), 0).split(sentence)})
        self.tokenizer = WordTokenizer(words, context_length)
        ways = max(len(said) for said in phrases.values())
        self._tokens = torch.stack(
            [
                self.tokenizer([template.format(said[i % len(said)]) for i in range(ways) for template in TEMPLATES])
                for said in phrases.values()
            ]
        )
        self.canonical = self.tokenizer(CANONICAL_PHRASES)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` different classes (count,), as indices into ``names``, and one way to say each (count, context)."""
        classes = torch.randperm(len(self.names), generator=generator)[:count]
        return classes, self._tokens[classes, torch.randint(self._tokens.shape[1], (count,), generator=generator)]

    def draw_unknown(self, count: int, generator: torch.Generator) -> Tensor:
        """Tokens (count, context_length) of texts with one word replaced by the unknown word: false of every crop."""
        tokens = self.draw(count, generator)[1].clone()
        words = tokens.argmax(dim=1) - 1  # between start and end
        place = 1 + (torch.rand(count, generator=generator) * words).long()
        tokens[torch.arange(count), place] = self.tokenizer.UNKNOWN
        return tokens
