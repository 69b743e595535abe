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

FEW_TEMPLATES = ("{}", "a {}", "the {}")  # of classes of which there are very many


class TextBank:
    """All classes with their phrasings; draws one phrasing of each for a training step.

    Attributes:
        names: the classes, the common ones first.
        common: how many of them are common: those are drawn more often.
    """

    def __init__(
        self, phrases: Mapping[str, Sequence[str]], context_length: int, rare: Mapping[str, Sequence[str]] | None = None
    ):
        """``phrases``, ``rare``: class name -> its ways to be said ("red mug": "red mug", "red cup")."""
        said_of = {**phrases, **(rare or {})}
        self.names, self.common = list(said_of), len(phrases)
        sentences = (*TEMPLATES, *CANONICAL_PHRASES, *(phrase for said in said_of.values() for phrase in said))
        words = sorted({word for sentence in sentences for word in WordTokenizer((), 0).split(sentence)})
        self.tokenizer = WordTokenizer(words, context_length)
        sayings = [
            [
                template.format(phrase)
                for phrase in said
                for template in (TEMPLATES if name in phrases else FEW_TEMPLATES)
            ]
            for name, said in said_of.items()
        ]
        self._tokens = torch.cat([self.tokenizer(texts) for texts in sayings])
        self._ways = torch.tensor([len(texts) for texts in sayings])
        self._first = self._ways.cumsum(0) - self._ways
        self.canonical = self.tokenizer(CANONICAL_PHRASES)

    def draw(self, common: int, rare: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """So many different classes of each sort, as indices into ``names``, and one way to say each (.., context)."""
        classes = torch.cat(
            [
                torch.randperm(self.common, generator=generator)[:common],
                self.common + torch.randperm(len(self.names) - self.common, generator=generator)[:rare],
            ]
        )
        way = (torch.rand(len(classes), generator=generator) * self._ways[classes]).long()
        return classes, self._tokens[self._first[classes] + way]

    def draw_unknown(self, count: int, generator: torch.Generator) -> Tensor:
        """Tokens (count, context_length) of texts with one word replaced by the unknown word: false of every crop."""
        tokens = self.draw(count, 0, generator)[1]
        words = tokens.argmax(dim=1) - 1  # between start and end
        place = 1 + (torch.rand(count, generator=generator) * words).long()
        tokens[torch.arange(count), place] = self.tokenizer.UNKNOWN
        return tokens
