"""Mean squared length of the error vector: the Brier score of the predictions, sometimes called EL2N."""

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def brier(error_norm: NDArray[np.float32]) -> float:
    """Mean over tokens of ‖p − onehot(y)‖₂², between 0 and 2 (Brier 1950)."""
    return float(np.square(error_norm, dtype=np.float64).mean())
