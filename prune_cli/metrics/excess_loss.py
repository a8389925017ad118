"""Mean loss of the model less that of a second one (`--against`), in nats: what only the second has learned.

RHO-1 (Lin et al. 2024), CoLoR-Filter (Brandfonbrener et al. 2024). Both models share a tokenizer.
"""

import numpy as np
from numpy.typing import NDArray

EASY = None


def excess_loss(nll: NDArray[np.float32], against_nll: NDArray[np.float32]) -> float:
    """(Σ nll of the model − Σ nll of the second) / T."""
    return float(nll.mean(dtype=np.float64) - against_nll.mean(dtype=np.float64))
