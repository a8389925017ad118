"""Bits that the model needs per byte of text: comparable across tokenizers."""

import math

EASY = "low"


def bits_per_byte(nll_sum: float, n_bytes: int | None) -> float | None:
    """Σ nll / (ln 2 · n_bytes). None if the tokenizer cannot tell the bytes, or the scored tokens stand for
    none.
    """
    if not n_bytes:
        return None
    return nll_sum / (math.log(2) * n_bytes)
