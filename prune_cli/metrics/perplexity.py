"""exp of the mean negative log-likelihood per token.

Marion et al. 2023, equations 4 and 5. Over an ensemble it is the geometric mean: the perplexity at the mean
log-likelihood.
"""

import math
from statistics import geometric_mean as over_models

import numpy as np
from numpy.typing import NDArray

__all__ = ["over_models", "perplexity"]

EASY = "low"


def perplexity(nll: NDArray[np.float32]) -> float:
    """exp(Σ nll / T)."""
    return math.exp(nll.mean(dtype=np.float64))
