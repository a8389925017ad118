"""How are scores compared as whole numbers? By keys: the bits of a double, changed to rise with it."""

import numpy as np

# The key of a record without a score: after that of +infinity, so that unscored records come last.
UNSCORED = (1 << 64) - 1
SIGN = np.uint64(1 << 63)


def ordered_keys(scores: np.ndarray) -> np.ndarray:
    """The keys of scores: uint64 (n), rising with the scores, equal for equal ones; UNSCORED for NaN."""
    # Adding zero turns -0.0 into 0.0, which is the same score.
    bits = np.ascontiguousarray(scores + 0.0).view(np.uint64)
    # Negative doubles have the sign bit set, and their order is that of the other bits reversed.
    keys: np.ndarray = np.where(bits & SIGN, ~bits, bits | SIGN)
    keys[np.isnan(scores)] = UNSCORED
    return keys


def scores_of(keys: np.ndarray) -> np.ndarray:
    """The scores of keys, NaN for UNSCORED: float64 (n)."""
    scores: np.ndarray = np.where(keys & SIGN, keys & ~SIGN, ~keys).view(np.float64)
    return np.where(keys == UNSCORED, np.nan, scores)
