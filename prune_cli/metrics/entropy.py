"""Mean entropy of the model's predictions, in nats: how undecided it is before each token."""

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def entropy(entropy: NDArray[np.float32]) -> float:
    """Mean over tokens of −Σ p log p."""
    return float(entropy.mean(dtype=np.float64))
