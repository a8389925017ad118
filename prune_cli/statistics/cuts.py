"""Which records a cut keeps: fractions, thresholds and token budgets, exact to the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np

HALF = Decimal("0.5")


@dataclass(frozen=True)
class Cut:
    """The part of a distribution that is kept; `keep` is how the user chose it: bottom, middle, top, range or
    scores.

    It lies between two fractions of the distribution, low ≤ quantile < high. With `tokens` it is a budget,
    and with keep = scores it lies between two scores, least ≤ score ≤ most.
    """

    keep: str
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(1)
    least: float = -np.inf
    most: float = np.inf
    tokens: int | None = None

    @property
    def divides_quantiles(self) -> bool:
        """Whether the cut lies between two fractions of the distribution."""
        return self.keep != "scores" and self.tokens is None

    def ranks(self, n: int) -> tuple[int, int]:
        """The first rank of n that is kept and the one after the last: k = ⌊f·n + ½⌋ records, in exact
        decimal arithmetic.

        Binary floats would lose a record: 0.29 · 50 + ½ is 15, and 14.999999999999998 with them.
        """
        if self.keep == "range":
            return _nearest(self.low * n), _nearest(self.high * n)
        k = _nearest((self.high - self.low) * n)
        first = {"middle": (n - k) // 2, "top": n - k}.get(self.keep, 0)
        return first, first + k

    def places(
        self, scores: np.ndarray, ranks: np.ndarray, quantiles: np.ndarray, n: np.ndarray | None
    ) -> np.ndarray:
        """Where ranked records lie: -1 below the cut, 0 inside, 1 above; int8 (records).

        `n` says how many records each rank counts among, which differs between groups; None for a ranking by
        tokens, where the quantile decides.
        """
        if self.keep == "scores":
            # `_places` leaves its upper end out, so it gets the next float.
            return _places(scores, self.least, np.nextafter(self.most, np.inf))
        if n is None:
            return _places(quantiles, float(self.low), self._upper())
        bounds = {size: self.ranks(size) for size in np.unique(n).tolist()}
        if len(bounds) > 1:  # slower, so only where groups of several sizes meet
            each = np.array([bounds[size] for size in n.tolist()])
            return _places(ranks, each[:, 0], each[:, 1])
        low, high = next(iter(bounds.values()), (0, 0))
        return _places(ranks, low, high)

    def _upper(self) -> float:
        """The end of the cut. A record of 0 tokens at the top has quantile 1, and the whole keeps it."""
        return float(self.high) if self.high < 1 else np.inf

    def holds(self, quantiles: np.ndarray) -> np.ndarray:
        """Whether each quantile lies inside; bool (records)."""
        inside: np.ndarray = _places(quantiles, float(self.low), self._upper()) == 0
        return inside


def _nearest(number: Decimal) -> int:
    """The nearest whole number; halves round up."""
    return int((number + HALF).to_integral_value(ROUND_FLOOR))


def _places(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    places: np.ndarray = (values >= high).astype(np.int8) - (values < low)
    return places


def fraction(keep: str, size: Decimal) -> Cut:
    """The cut that keeps a fraction of the distribution at its bottom, middle or top."""
    low = {"middle": HALF - size / 2, "top": 1 - size}.get(keep, Decimal(0))
    return Cut(keep, low, low + size)


def choose(
    values: np.ndarray,
    tokens: np.ndarray,
    eligible: np.ndarray,
    cut: Cut,
    by: str,
    within: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the records inside the cut, and the indices of the `eligible` records by value, equal ones by
    input order.

    With `within`, a group number for each record, the cut is made in each group for itself. `by` is records
    or tokens.
    """
    order = np.flatnonzero(eligible)
    order = order[
        np.argsort(values[order], kind="stable")
    ]  # stable: equal values keep the order of the input
    mask = np.zeros(len(values), dtype=bool)
    for group in [order] if within is None else _groups(order, within):
        mask[group[_inside(values[group], tokens[group], cut, by)]] = True
    return mask, order


def _groups(order: np.ndarray, within: np.ndarray) -> Iterator[np.ndarray]:
    """The part of the order that belongs to each group."""
    by_group = order[np.argsort(within[order], kind="stable")]
    yield from np.split(by_group, np.flatnonzero(np.diff(within[by_group])) + 1)


def _inside(values: np.ndarray, tokens: np.ndarray, cut: Cut, by: str) -> np.ndarray | slice:
    """An index of the records, which are in the order of their values, that are kept."""
    if cut.keep == "scores":
        return (values >= cut.least) & (values <= cut.most)
    if cut.tokens is not None:
        order = _budget_order(cut.keep, len(values))
        spent = np.cumsum(tokens[order])
        taken: np.ndarray = order[: int(np.searchsorted(spent, cut.tokens, side="right"))]
        return taken
    if by == "records":
        return slice(*cut.ranks(len(values)))
    # A record's quantile is in the middle of its own tokens: (tokens below it + ½ of its own) / all.
    quantiles = (2 * np.cumsum(tokens) - tokens) / max(2 * int(tokens.sum()), 1)
    return cut.holds(quantiles)


def _budget_order(keep: str, n: int) -> np.ndarray:
    """The order in which a budget takes records: from the bottom up, from the top down, or alternately down
    and up from the median.

    In the middle, the k-th record taken is the one that the middle k records have and the middle k − 1 have
    not, so that a budget keeps the same records as a fraction.
    """
    if keep == "top":
        return np.arange(n)[::-1]
    if keep != "middle":
        return np.arange(n)
    k = np.arange(1, n + 1)
    first = (n - k) // 2
    first_before = (n - k + 1) // 2
    return np.where(first < first_before, first, first + k - 1)


def gumbel(bits: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise from 64 random bits each, float64 (n).

    The k records with the highest log weight + noise are a sample without replacement in proportion to the
    weights (Kool et al. 2019).
    """
    uniform = ((bits >> np.uint64(12)).astype(float) + 0.5) / 2.0**52  # in (0, 1), both ends excluded
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
