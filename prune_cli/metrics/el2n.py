"""Mean length of the error vector: the distance of the model's predictions from the actual tokens.

Marion et al. 2023, equation 6, after Paul et al. 2021. The root is taken per token, before the mean.
"""

import numpy as np
from numpy.typing import NDArray

EASY = "low"


def el2n(error_norm: NDArray[np.float32]) -> float:
    """Mean over tokens of ‖p − onehot(y)‖₂, between 0 and √2."""
    return float(error_norm.mean(dtype=np.float64))
