"""exp of the mean negative log-likelihood per token.

Marion et al. 2023, equations 4 and 5. Over an ensemble it is the geometric mean: the perplexity at the mean
log-likelihood.
"""

import math
from statistics import geometric_mean as over_models

__all__ = ["over_models", "perplexity"]

EASY = "low"


def perplexity(nll_sum: float, n_scored: int) -> float:
    """exp(Σ nll / T)."""
    return math.exp(nll_sum / n_scored)
