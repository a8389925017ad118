"""Standard deviation of ln(prior) over the text's tokens; see `token_prior_mean`.

Seo et al. 2025. It is over T, not T − 1, and exact to about 1e-7.
"""

import math

EASY = None


def token_prior_std(log_prior_moments: tuple[float, float] | None) -> float | None:
    """The root of the mean square of ln(prior) − its mean. None for a text without tokens."""
    return None if log_prior_moments is None else math.sqrt(log_prior_moments[1])
