"""Mean of ln(prior) over the text's tokens; a token's prior is its share of a corpus (`--priors`).

Seo et al. 2025. `stat --token-counts` makes the file; a token that was never counted is taken as counted
once. It takes no model, and a hundredth of the time of a small one.
"""

EASY = None


def token_prior_mean(log_prior_moments: tuple[float, float] | None) -> float | None:
    """Σ ln(count(token) / total) / T. None for a text without tokens."""
    return None if log_prior_moments is None else log_prior_moments[0]
