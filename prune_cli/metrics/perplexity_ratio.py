"""Perplexity of the model divided by that of a second one (`--against`).

ScalingFilter (Li et al. 2024) keeps the high end, with a small model and a large second one. Both share a
tokenizer.
"""

import math
from statistics import geometric_mean as over_models

import numpy as np
from numpy.typing import NDArray

__all__ = ["over_models", "perplexity_ratio"]

EASY = None


def perplexity_ratio(nll: NDArray[np.float32], against_nll: NDArray[np.float32]) -> float:
    """exp((Σ nll of the model − Σ nll of the second) / T)."""
    return math.exp(nll.mean(dtype=np.float64) - against_nll.mean(dtype=np.float64))
