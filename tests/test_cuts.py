"""Cuts of texts, against the words that the tokenizers library makes of the pieces and of the whole."""

import random
from itertools import pairwise

import numpy as np
import pytest
from tokenizers import normalizers

from prune_cli.models.text.splitting import WORD_PATTERNS
from prune_cli.models.text.tokenizer import specification
from prune_cli.texts.tokens.cuts import cuts_of

from .small_tokenizers import learned_tokenizer, random_text

# Single characters, so that each meets each other soon.
CHARACTERS = [
    *"aB1.,'(/-< \t\n\réжß世가ーं。“—²Ⅷ½😀\0",
    "\u0301",
    "\u0338",
    "\u00a0",
    "\u3000",
    "\u200b",
    "\u0085",
]
CHARACTERS += ["\u11a8", "\u0b57", "\ufe0f", "'s", "'ll", "  ", "23"]


def random_characters(source: random.Random) -> str:
    return "".join(source.choices(CHARACTERS, k=source.choice([1, 2, 3, 4, 6, 12])))


@pytest.mark.parametrize("words", [None, *WORD_PATTERNS.values()], ids=["built in", *WORD_PATTERNS])
@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()], ids=["plain", "NFC"])
def test_pieces_have_the_words_of_the_whole(words, normalizer):
    one = learned_tokenizer(words, normalizer)
    cuts = cuts_of(specification(one))
    assert cuts is not None
    source = random.Random(0)

    def words_in(text: str) -> list[str]:
        normal = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in one.backend_tokenizer.pre_tokenizer.pre_tokenize_str(normal)]

    texts = [random_characters(source) for _ in range(3000)] + [random_text(source) for _ in range(100)]
    texts = [text for text in texts if text]
    encoded = [text.encode() for text in texts]
    bounds = np.cumsum([0, *map(len, encoded)])
    edges = cuts.edges(b"".join(encoded), bounds)
    for text, start, content in zip(texts, bounds.tolist(), encoded, strict=False):
        own = edges[(edges >= start) & (edges <= start + len(content))] - start
        # Whatever lies beside it, a text has the cuts that it has alone.
        assert own.tolist() == cuts.edges(content, np.array([0, len(content)])).tolist()
        pieces = [content[low:high].decode() for low, high in pairwise(own)]
        assert [word for piece in pieces for word in words_in(piece)] == words_in(text), text
