"""Bits per byte of the model less those of a second one (`--against`), whatever their tokenizers."""

import math

EASY = None


def excess_bits_per_byte(
    nll_sum: float,
    n_bytes: int | None,
    against_nll_sum: float,
    against_n_bytes: int | None,
) -> float | None:
    """(Σ nll / n_bytes of the model − the same of the second) / ln 2. None if a tokenizer cannot tell the
    bytes.
    """
    if not n_bytes or not against_n_bytes:
        return None
    return (nll_sum / n_bytes - against_nll_sum / against_n_bytes) / math.log(2)
