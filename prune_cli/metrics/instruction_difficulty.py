"""Perplexity of a text behind its prompt (`--prompt-field`, `--chat`), divided by its perplexity alone.

Instruction-following difficulty (IFD) of Superfiltering, Li et al. 2024, arXiv 2402.00530: at 1 and above the
prompt does not help, and they keep the highest scores below. Alone, a text stands behind BOS; without BOS its
first token is not scored.
"""

import math
from statistics import geometric_mean as over_models

import numpy as np
from numpy.typing import NDArray

__all__ = ["instruction_difficulty", "over_models"]

EASY = None


def instruction_difficulty(nll: NDArray[np.float32], unprompted_nll: NDArray[np.float32]) -> float | None:
    """exp(Σ nll / T − Σ nll without the prompt / T'); None for a single token that has no score alone."""
    if not len(unprompted_nll):
        return None
    return math.exp(nll.mean(dtype=np.float64) - unprompted_nll.mean(dtype=np.float64))
