"""Bits that the model needs for a byte of the text: comparable across tokenizers."""

import math

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def bits_per_byte(nll: NDArray[np.float32], n_bytes: int | None) -> float | None:
    """Σ nll / (ln 2 · n_bytes); None where the tokenizer cannot tell the bytes, or the scored tokens stand for none."""
    return float(nll.sum(dtype=np.float64)) / (math.log(2) * n_bytes) if n_bytes else None
