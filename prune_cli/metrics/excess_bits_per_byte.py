"""Bits per byte of the model less those of a second one (`--against`), whatever their tokenizers."""

import math

import numpy as np
from numpy.typing import NDArray

EASY = None


def excess_bits_per_byte(
    nll: NDArray[np.float32],
    n_bytes: int | None,
    against_nll: NDArray[np.float32],
    against_n_bytes: int | None,
) -> float | None:
    """(Σ nll / n_bytes of the model − the same of the second) / ln 2. None if a tokenizer cannot tell the
    bytes.
    """
    if not n_bytes or not against_n_bytes:
        return None
    nats_per_byte = nll.sum(dtype=np.float64) / n_bytes
    against_nats_per_byte = against_nll.sum(dtype=np.float64) / against_n_bytes
    return float(nats_per_byte - against_nats_per_byte) / math.log(2)
