"""Probability of a label (`--label`) by a fastText classifier (`--classifier`).

DCLM (Li et al. 2024) keeps the high end of `__label__hq`. Lines are joined by spaces, since fastText reads
one. Blocks of token ids have no score.
"""

EASY = None


def quality(label_probability: float | None) -> float | None:
    """The probability of the label, in float32; texts/linear_classifier.py says how far it may be from
    fastText's. None if fastText knows nothing in the text.
    """
    return label_probability
