"""Fraction of 32 tokens, generated greedily after the record's first 32, that are the record's own.

Marion et al. 2023, equation 7, after Biderman et al. 2023. The model must have been trained on the records.
EOS is never generated. A record of fewer than 64 tokens has no score.
"""

import numpy as np
from numpy.typing import NDArray

PROMPT = 32  # tokens; the model is given as many by stages/score/

EASY = "high"


def memorization(
    tokens: NDArray[np.int_], n_prefix: int, continuation: NDArray[np.int_] | None
) -> float | None:
    """Fraction of positions at which the continuation and the record agree."""
    if continuation is None:
        return None
    first = n_prefix + PROMPT
    actual = tokens[first : first + len(continuation)]
    return float((actual == continuation).mean())
