"""How often the token that came is among the `--top-k` most likely."""

import numpy as np
from numpy.typing import NDArray

EASY = "high"


def top_k_accuracy(rank: NDArray[np.float32], top_k: int) -> float:
    """Share of tokens with fewer than `top_k` tokens strictly more likely than the one that came."""
    return float((rank < top_k).mean())
