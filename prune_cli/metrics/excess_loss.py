"""Mean loss of the model less that of a second one (`--against`), in nats: what only the second has learned.

RHO-1 (Lin et al. 2024), CoLoR-Filter (Brandfonbrener et al. 2024). Both models share a tokenizer.
"""

EASY = None


def excess_loss(nll_sum: float, against_nll_sum: float, n_scored: int) -> float:
    """(Σ nll of the model − Σ nll of the second) / T."""
    return nll_sum / n_scored - against_nll_sum / n_scored
