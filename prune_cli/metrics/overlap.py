"""Fraction of the text's sequences of 13 words (`--ngram`) that occur in a held-out set (`--held-out`).

Brown et al. 2020, appendix C: words are in lower case and without punctuation. A text of fewer words holds
none of the sequences, so its score is 0; `slice --max 0` keeps what shares nothing with the held-out set.
Blocks of token ids have no score.
"""

EASY = None


def overlap(n_ngrams: int, n_held_out_ngrams: int) -> float:
    """n_held_out_ngrams / n_ngrams, or 0."""
    return n_held_out_ngrams / n_ngrams if n_ngrams else 0.0
