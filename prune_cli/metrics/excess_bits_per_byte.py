"""How many more bits a byte the model needs than a second one (`--against`), whatever their tokenizers."""

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
    """Σ nll / n_bytes of the model less that of the second, over ln 2; None where a tokenizer cannot tell the bytes."""
    if not n_bytes or not against_n_bytes:
        return None
    excess = nll.sum(dtype=np.float64) / n_bytes - against_nll.sum(dtype=np.float64) / against_n_bytes
    return float(excess) / math.log(2)
