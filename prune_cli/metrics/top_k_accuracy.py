"""Fraction of tokens that are among the model's `--top-k` most likely ones."""

import numpy as np
from numpy.typing import NDArray

EASY = "high"


def top_k_accuracy(rank: NDArray[np.float32], top_k: int) -> float:
    """Fraction of tokens with fewer than `top_k` tokens strictly more likely: a tie counts for the token that
    came.
    """
    return float((rank < top_k).mean())
