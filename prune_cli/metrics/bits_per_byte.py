"""Bits that the model needs for a byte of the text: comparable across tokenizers."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Document, TokenStatistics

EASY = "low"


def bits_per_byte(document: "Document", tokens: "TokenStatistics") -> float | None:
    """Σ nll / (ln 2 · n_bytes); None where the tokenizer cannot tell the bytes, or the scored tokens stand for none."""
    return tokens.nll_sum / (math.log(2) * document.n_bytes) if document.n_bytes else None
