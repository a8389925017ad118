"""How surprised the model is by a token, as a geometric mean: exp of the mean negative log-likelihood.

Marion et al. 2023, equations 4 and 5.
"""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Document, TokenStatistics

EASY = "low"


def perplexity(document: "Document", tokens: "TokenStatistics") -> float:
    """exp(Σ nll / n_scored), of at least one scored token."""
    return math.exp(tokens.nll_sum / document.n_scored)
