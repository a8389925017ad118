"""Bits that the model needs per byte of text: comparable across tokenizers."""

import math

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def bits_per_byte(nll: NDArray[np.float32], n_bytes: int | None) -> float | None:
    """Σ nll / (ln 2 · n_bytes). None if the tokenizer cannot tell the bytes, or the scored tokens stand for
    none.
    """
    if not n_bytes:
        return None
    return float(nll.sum(dtype=np.float64)) / (math.log(2) * n_bytes)
