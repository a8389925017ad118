"""How far do two scores agree? Their rank correlation, and how much of what cuts by each keep is the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import product
from math import sqrt

import numpy as np

from .cuts import Cut, fraction

# The cuts that Marion et al. 2023 compare.
PARTS = ("bottom", "middle", "top")
SIZES = ("0.1", "0.3", "0.5", "0.7")


@dataclass(frozen=True)
class Overlap:
    """What two cuts keep, in records or in tokens."""

    first: int
    second: int
    both: int

    @property
    def jaccard(self) -> float | None:
        """What both keep, as a share of what at least one keeps; None if that is nothing."""
        either = self.first + self.second - self.both
        return self.both / either if either else None

    @property
    def share(self) -> float | None:
        """The share of what the first keeps that the second keeps, too; None if the first keeps nothing."""
        return self.both / self.first if self.first else None


def spearman(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's rank correlation of two scores, (n) each, without NaN; None if all of one are equal.

    Equal scores share the mean of their ranks, so this is Pearson's correlation of the ranks. It takes 32
    bytes of memory a record.
    """
    if len(first) < 2:
        return None
    ranks = [_mean_ranks(scores) - (len(scores) - 1) / 2 for scores in (first, second)]
    squares = [float(np.dot(each, each)) for each in ranks]
    if not all(squares):
        return None
    # Rounding may lead a little beyond 1.
    correlation = float(np.dot(ranks[0], ranks[1])) / sqrt(squares[0] * squares[1])
    return max(-1.0, min(1.0, correlation))


def _mean_ranks(scores: np.ndarray) -> np.ndarray:
    """The rank of each score from 0, float64 (n); that of equal scores is the mean of theirs."""
    order = np.argsort(scores)
    in_order = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], in_order[1:] != in_order[:-1])))
    sizes = np.diff(np.append(starts, len(scores)))
    ranks = np.empty(len(scores))
    ranks[order] = np.repeat(starts + (sizes - 1) / 2, sizes)
    return ranks


class ScorePlaces:
    """Where records stand by one score: their ranks, and with `tokens` their quantiles by tokens.

    Equal scores are in input order, as where `slice` cuts. 16 bytes of memory a record.
    """

    def __init__(self, scores: np.ndarray, tokens: np.ndarray | None) -> None:
        self.n = len(scores)
        order = np.argsort(scores, kind="stable")
        self.ranks = np.empty(self.n, np.int64)
        self.ranks[order] = np.arange(self.n)
        self.quantiles: np.ndarray | None = None
        if tokens is not None:
            in_order = tokens[order]
            middles = (2 * np.cumsum(in_order) - in_order) / (2 * int(tokens.sum()))
            self.quantiles = np.empty(self.n)
            self.quantiles[order] = middles

    def inside(self, cut: Cut, unit: str) -> np.ndarray:
        """Whether each record is inside the cut, by records or by tokens; bool (n)."""
        if unit == "tokens":
            assert self.quantiles is not None
            return cut.holds(self.quantiles)
        low, high = cut.ranks(self.n)
        return (self.ranks >= low) & (self.ranks < high)


@dataclass(frozen=True)
class CutOverlaps:
    """The overlaps of one cut by each of two scores: in all records, and in each group of them."""

    unit: str
    part: str
    size: str
    whole: Overlap
    groups: Sequence[Overlap]


def overlaps(
    first: ScorePlaces, second: ScorePlaces, tokens: np.ndarray, groups: np.ndarray, count: int
) -> Iterator[CutOverlaps]:
    """The overlaps of all cuts by two scores.

    `tokens` are (n), `groups` numbers from 0 to `count` - 1, or -1 for none, (n). Cuts are of the whole, and
    are by tokens, too, if the places have quantiles.
    """
    units = ["records"] if first.quantiles is None else ["records", "tokens"]
    for unit, part, size in product(units, PARTS, SIZES):
        cut = fraction(part, Decimal(size))
        # Four kinds of records in each group: kept by none, by the second, by the first, by both.
        kinds = 2 * first.inside(cut, unit).astype(np.int8) + second.inside(cut, unit)
        places = 4 * (groups.astype(np.int64) + 1) + kinds
        # As floats these sums are exact below 2^53.
        weights = tokens if unit == "tokens" else None
        table = np.bincount(places, weights, 4 * (count + 1)).reshape(-1, 4)
        yield CutOverlaps(unit, part, size, _overlap(table.sum(0)), [_overlap(row) for row in table[1:]])


def _overlap(kinds: np.ndarray) -> Overlap:
    _, second, first, both = (int(amount) for amount in kinds)
    return Overlap(first=first + both, second=second + both, both=both)
