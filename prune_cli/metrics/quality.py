"""Probability of a label (`--label`) by a fastText classifier (`--classifier`).

DCLM (Li et al. 2024) keeps the high end of `__label__hq`. Lines are joined by spaces, since fastText reads
one. Blocks of token ids have no score.
"""

EASY = None


def quality(label_probability: float | None) -> float | None:
    """The probability that fastText returns, rounded to float32. None if it knows nothing in the text."""
    return label_probability
