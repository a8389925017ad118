"""How much of the record the model recites: the share of 32 tokens, generated greedily after its first 32, that are the true ones.

Marion et al. 2023, equation 7, after Biderman et al. 2023. The model must have been trained on the records. End-of-text is never
generated; a record of fewer than 64 tokens has no score.
"""

import numpy as np
from numpy.typing import NDArray

EASY = "high"


def memorization(
    tokens: NDArray[np.int_], n_prefix: int, continuation: NDArray[np.int_] | None
) -> float | None:
    """Share of positions at which the continuation and the record agree."""
    if continuation is None:
        return None
    first = n_prefix + 32
    return float((tokens[first : first + len(continuation)] == continuation).mean())
