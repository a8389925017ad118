"""Which records does a cut keep? Fractions, thresholds and token budgets, exact to the record."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np

HALF = Decimal("0.5")


@dataclass(frozen=True)
class Cut:
    """The part of a distribution that is kept.

    `keep` is how the user chose it: bottom, middle, top, range or scores. The cut lies between two quantiles,
    low ≤ quantile < high; with keep = scores between two scores, least ≤ score ≤ most. `tokens` is a budget.
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
        """The first rank that is kept, and the rank after the last, of k = ⌊f·n + ½⌋ records out of n."""
        # In decimal arithmetic. Binary floats would lose a record: 0.29 · 50 + ½ is 15, not
        # 14.999999999999998.
        if self.keep == "range":
            return _nearest(self.low * n), _nearest(self.high * n)
        k = _nearest((self.high - self.low) * n)
        first = {"middle": (n - k) // 2, "top": n - k}.get(self.keep, 0)
        return first, first + k

    def places(
        self, scores: np.ndarray, ranks: np.ndarray, quantiles: np.ndarray, n: np.ndarray | None
    ) -> np.ndarray:
        """The position of ranked records: -1 below the cut, 0 inside, 1 above; int8 (records).

        `n` is the number of records that each rank is among, which differs between groups. It is None for a
        ranking by tokens, where the quantile decides.
        """
        if self.keep == "scores":
            # `_places` excludes its upper bound, and this cut includes it: hence the next float.
            return _places(scores, self.least, np.nextafter(self.most, np.inf))
        if n is None:
            return _places(quantiles, float(self.low), self.upper())
        bounds = {size: self.ranks(size) for size in np.unique(n).tolist()}
        # Bounds for each record are slow: only for groups of several sizes.
        if len(bounds) > 1:
            bounds_of = np.array([bounds[size] for size in n.tolist()])
            return _places(ranks, bounds_of[:, 0], bounds_of[:, 1])
        low, high = next(iter(bounds.values()), (0, 0))
        return _places(ranks, low, high)

    def upper(self) -> float:
        """The end of the cut. A record of 0 tokens at the top has quantile 1, and the whole keeps it."""
        return float(self.high) if self.high < 1 else np.inf

    def holds(self, quantiles: np.ndarray) -> np.ndarray:
        """Whether each quantile lies inside; bool (records)."""
        inside: np.ndarray = _places(quantiles, float(self.low), self.upper()) == 0
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
    """Choose records by value.

    Returns a mask of the records inside the cut, bool (records), and the indices of the `eligible` records in
    the order of their values. `by` is records or tokens. With `within`, a group number for each record, the
    cut is made in each group.
    """
    order = np.flatnonzero(eligible)
    # Stable: equal values keep the order of the input.
    order = order[np.argsort(values[order], kind="stable")]
    mask = np.zeros(len(values), dtype=bool)
    for group in [order] if within is None else _groups(order, within):
        mask[group[_inside(values[group], tokens[group], cut, by)]] = True
    return mask, order


def _groups(order: np.ndarray, within: np.ndarray) -> Iterator[np.ndarray]:
    """The indices of each group, in the given order."""
    by_group = order[np.argsort(within[order], kind="stable")]
    yield from np.split(by_group, np.flatnonzero(np.diff(within[by_group])) + 1)


def _inside(values: np.ndarray, tokens: np.ndarray, cut: Cut, by: str) -> np.ndarray | slice:
    """The index of the kept ones among records that are in the order of their values."""
    if cut.keep == "scores":
        return (values >= cut.least) & (values <= cut.most)
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(tokens)))
    return slice(*interval(cut, len(values), lambda place: int(before[place]), by))


def interval(cut: Cut, n: int, tokens_before: Callable[[int], int], by: str) -> tuple[int, int]:
    """The first place inside the cut, and the first behind it, of `n` records in the order of their values.

    `tokens_before` sums the tokens of the records before a place, from 0 to `n`; it is asked for a few dozen
    places. A cut between two scores has no such places.
    """
    if cut.tokens is not None:
        return _budget(cut, n, tokens_before)
    if by == "records":
        return cut.ranks(n)
    total = float(max(2 * tokens_before(n), 1))

    def quantile(place: int) -> float:
        # In the middle of the record's own tokens: (tokens below it + ½ of its own) / all. It never falls.
        return float(tokens_before(place) + tokens_before(place + 1)) / total

    low, high = (bisect_left(range(n), bound, key=quantile) for bound in (float(cut.low), cut.upper()))
    return low, max(low, high)


def _budget(cut: Cut, n: int, tokens_before: Callable[[int], int]) -> tuple[int, int]:
    """The places that a budget takes: from the bottom, the top, or the median outwards.

    The record that would exceed the budget ends the cut, even if a shorter one would still fit.
    """

    def first(k: int) -> int:
        # Of the k records that a fraction of this size keeps, so that both keep the same records.
        return {"middle": (n - k) // 2, "top": n - k}.get(cut.keep, 0)

    def spent(k: int) -> int:
        return tokens_before(first(k) + k) - tokens_before(first(k))

    assert cut.tokens is not None
    k = bisect_right(range(n + 1), cut.tokens, key=spent) - 1
    return first(k), first(k) + k


def gumbel(bits: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise, float64 (n), from 64 random bits for each record, uint64 (n).

    The k records with the largest log weight + noise are a sample without replacement in proportion to the
    weights (Kool et al. 2019).
    """
    # 52 bits and a half: a double holds these exactly, and neither 0 nor 1 occurs, whose logarithms fail.
    uniform = ((bits >> np.uint64(12)).astype(float) + 0.5) / 2.0**52
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
