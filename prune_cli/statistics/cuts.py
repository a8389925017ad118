"""Which records a cut keeps: shares, thresholds and budgets, exact to the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

import numpy as np

HALF = Decimal("0.5")


@dataclass(frozen=True)
class Cut:
    """The part of a distribution that is kept; `keep` is how the user put it: bottom, middle, top, range or scores.

    It lies between two shares, low ≤ share < high; or `tokens` is a budget; or, for `scores`, between two scores, both inclusive.
    """

    keep: str
    low: Decimal = Decimal(0)
    high: Decimal = Decimal(1)
    least: float = -np.inf
    most: float = np.inf
    tokens: int | None = None

    def ranks(self, n: int) -> tuple[int, int]:
        """First kept rank and the one after the last, of n: k = ⌊f·n + ½⌋ records, in exact decimal arithmetic."""
        if self.keep == "range":
            return _nearest(self.low * n), _nearest(self.high * n)
        k = _nearest((self.high - self.low) * n)
        first = {"middle": (n - k) // 2, "top": n - k}.get(self.keep, 0)
        return first, first + k

    def places(
        self, scores: np.ndarray, ranks: np.ndarray, quantiles: np.ndarray, n: np.ndarray | None
    ) -> np.ndarray:
        """Where ranked records lie: -1 below the cut, 0 inside, 1 above. `n` are the numbers of which `ranks` are ranks, if by records."""
        if self.keep == "scores":
            return _places(scores, self.least, np.nextafter(self.most, np.inf))
        if n is None:
            return _places(quantiles, float(self.low), float(self.high))
        bounds = {size: self.ranks(size) for size in np.unique(n).tolist()}
        if len(bounds) > 1:
            each = np.array([bounds[size] for size in n.tolist()])
            return _places(ranks, each[:, 0], each[:, 1])
        return _places(ranks, *next(iter(bounds.values()), (0, 0)))


def _nearest(number: Decimal) -> int:
    return int((number + HALF).to_integral_value(ROUND_FLOOR))


def _places(values: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    places: np.ndarray = (values >= high).astype(np.int8) - (values < low)
    return places


def fraction(keep: str, share: Decimal) -> Cut:
    """A share of the distribution by where it lies: bottom, middle or top."""
    low = {"middle": HALF - share / 2, "top": 1 - share}.get(keep, Decimal(0))
    return Cut(keep, low, low + share)


def choose(
    values: np.ndarray,
    tokens: np.ndarray,
    eligible: np.ndarray,
    cut: Cut,
    by: str,
    within: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the records inside the cut, and the eligible records' places in the order of their values, then of the input.

    With `within`, a number for each record, the cut is made among the records of each number, and the order is by that number first.
    """
    order = np.flatnonzero(eligible)
    order = order[np.argsort(values[order], kind="stable")]
    mask = np.zeros(len(values), dtype=bool)
    for part in [order] if within is None else _parts(order, within):
        mask[part[_inside(values[part], tokens[part], cut, by)]] = True
    return mask, order


def _parts(order: np.ndarray, within: np.ndarray) -> Iterator[np.ndarray]:
    """The order of each number's records."""
    by_number = order[np.argsort(within[order], kind="stable")]
    yield from np.split(by_number, np.flatnonzero(np.diff(within[by_number])) + 1)


def _inside(values: np.ndarray, tokens: np.ndarray, cut: Cut, by: str) -> np.ndarray | slice:
    """Which of the records, in the order of their values, are kept."""
    if cut.keep == "scores":
        return (values >= cut.least) & (values <= cut.most)
    if cut.tokens is not None:
        filled = _filled(cut.keep, len(values))
        spent = np.cumsum(tokens[filled])
        taken: np.ndarray = filled[: int(np.searchsorted(spent, cut.tokens, side="right"))]
        return taken
    if by == "records":
        return slice(*cut.ranks(len(values)))
    quantiles = (2 * np.cumsum(tokens) - tokens) / max(2 * int(tokens.sum()), 1)
    inside: np.ndarray = (quantiles >= float(cut.low)) & (quantiles < float(cut.high))
    return inside


def _filled(keep: str, n: int) -> np.ndarray:
    """In which order a budget takes the records: up, down, or alternately down and up from the median.

    The middle grows as a share of it does, by the record that the middle k records have and the middle k-1 have not.
    """
    if keep != "middle":
        return np.arange(n)[:: -1 if keep == "top" else 1]
    k = np.arange(1, n + 1)
    first, first_before = (n - k) // 2, (n - k + 1) // 2
    return np.where(first < first_before, first, first + k - 1)


def gumbel(bits: np.ndarray) -> np.ndarray:
    """Standard Gumbel noise from 64 random bits each: the k highest sums of log weight and noise are k records drawn without
    replacement in proportion to their weights (Kool et al. 2019)."""
    uniform = ((bits >> np.uint64(12)).astype(float) + 0.5) / 2.0**52
    noise: np.ndarray = -np.log(-np.log(uniform))
    return noise
