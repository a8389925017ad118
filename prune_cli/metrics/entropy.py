"""How undecided the model is before each token, whatever token comes: the mean entropy of its predictions, in nats."""

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def entropy(entropy: NDArray[np.float32]) -> float:
    """Mean over tokens of −Σ p log p."""
    return float(entropy.mean(dtype=np.float64))
