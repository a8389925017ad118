"""Perplexity of the model divided by that of a second one (`--against`).

ScalingFilter (Li et al. 2024) keeps the high end, with a small model and a large second one. Both share a
tokenizer.
"""

import math
from statistics import geometric_mean as over_models

__all__ = ["over_models", "perplexity_ratio"]

EASY = None


def perplexity_ratio(nll_sum: float, against_nll_sum: float, n_scored: int) -> float:
    """exp((Σ nll of the model − Σ nll of the second) / T)."""
    return math.exp(nll_sum / n_scored - against_nll_sum / n_scored)
