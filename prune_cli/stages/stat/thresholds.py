"""At which scores do fractions of a stream begin?"""

from decimal import Decimal
from typing import Any

import numpy as np

from ...statistics.cuts import Cut
from ...statistics.quantile_grid import FRACTIONS


def first_ranks(n: int) -> dict[str, int]:
    """For each fraction the rank of the first of `n` records that `slice --range FRACTION:1` keeps.

    That range is empty for the fraction 1, so its rank is that of the last record.
    """
    if not n:
        return {}
    return {text: min(Cut("range", Decimal(text)).ranks(n)[0], n - 1) for text in FRACTIONS}


def thresholds(scores: np.ndarray, tokens: np.ndarray | None = None) -> dict[str, Any]:
    """The scores at which fractions of the records begin, or of their `tokens` if these are given.

    `scores` are in any order; NaN is no score.
    """
    order = scored_order(scores)
    ranks = first_ranks(len(order))
    if tokens is not None and ranks:
        ranks = _first_ranks_by_tokens(tokens[order])
    return {
        "records": len(order),
        "quantiles": {fraction: float(scores[order[rank]]) for fraction, rank in ranks.items()},
    }


def bounds_of(
    scores: np.ndarray, fractions: tuple[Decimal, Decimal], tokens: np.ndarray | None = None
) -> tuple[float | None, float | None]:
    """The scores at which two fractions of the records begin, or of their `tokens` if these are given.

    The fraction 0 has no bound below it: a later stream may have a lower score; and so at 1. `scores` are in
    any order; NaN is no score.
    """
    order = scored_order(scores)
    ranks = Cut("range", *fractions).ranks(len(order))
    if tokens is not None:
        middles = _middles(tokens[order])
        ranks = (
            int(np.searchsorted(middles, float(fractions[0]))),
            int(np.searchsorted(middles, float(fractions[1]))),
        )
    low, high = (scores[order[rank]].item() if rank < len(order) else None for rank in ranks)
    # Beyond the last record nothing is inside.
    above = float("inf") if low is None else low
    return (above if fractions[0] > 0 else None), (high if fractions[1] < 1 else None)


def scored_order(scores: np.ndarray) -> np.ndarray:
    """Indexes of the records that have a score, the lowest score first, equal scores in input order."""
    # NumPy sorts NaN last, so the scored records are a prefix.
    return np.argsort(scores, kind="stable")[: int((~np.isnan(scores)).sum())]


def _first_ranks_by_tokens(tokens: np.ndarray) -> dict[str, int]:
    """The same as `first_ranks` by tokens: a record lies where the middle of its tokens does."""
    middles = _middles(tokens)
    last = len(tokens) - 1
    return {text: min(int(np.searchsorted(middles, float(text))), last) for text in FRACTIONS}


def _middles(tokens: np.ndarray) -> np.ndarray:
    """The quantile of each record by tokens, of records in the order of their scores."""
    middles: np.ndarray = (2 * np.cumsum(tokens) - tokens) / max(2 * int(tokens.sum()), 1)
    return middles
