"""Which rank and which quantile does each record get?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError
from ...settings.streams import Unit
from ..ranking_check import wrong_quantiles
from .order import Order


@dataclass(frozen=True)
class Sums:
    """Scored records and their tokens: of the whole, and before a place in the file; int64 (values) each."""

    n: np.ndarray
    tokens: np.ndarray
    n_before: np.ndarray
    tokens_before: np.ndarray


class Quantiles:
    """Ranks and quantiles of records that come in the order of the file.

    All numbers are held for each value of the `within` field, and for one value if there is none. Use
    `expect` for all records, then `start`, then `next` for all records in order.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self.n = np.zeros(1, np.int64)  # scored records
        self.tokens = np.zeros(1, np.int64)  # of scored records
        self.n_before = np.zeros(1, np.int64)
        self.tokens_before = np.zeros(1, np.int64)

    def expect(self, values: np.ndarray, tokens: np.ndarray) -> None:
        """Count scored records that will come: for each the number of its value, and its tokens."""
        if len(values):
            self._grow(int(values.max()) + 1)
        # np.add.at, because `n[values] += 1` would count equal values only once.
        np.add.at(self.n, values, 1)
        np.add.at(self.tokens, values, tokens)

    def add(self, values: np.ndarray, n: np.ndarray, tokens: np.ndarray) -> None:
        """Count scored records by counts of others: for each value its records, and their tokens."""
        if len(values):
            self._grow(int(values.max()) + 1)
        np.add.at(self.n, values, n[: len(values)])
        np.add.at(self.tokens, values, tokens[: len(values)])

    def _grow(self, values: int) -> None:
        new = values - len(self.n)
        if new > 0:
            # At least doubled, so that a million values cost twenty copies and not a million.
            zeros = np.zeros(max(new, len(self.n)), np.int64)
            self.n = np.concatenate((self.n, zeros))
            self.tokens = np.concatenate((self.tokens, zeros))

    def start(self, names: list[Any]) -> None:
        """All records are counted. Raises DataError if quantiles by tokens would be fractions of nothing.

        `names` are the values of the `within` field.
        """
        self.n_before = np.zeros_like(self.n)
        self.tokens_before = np.zeros_like(self.tokens)
        empty = np.flatnonzero((self.n > 0) & (self.tokens == 0))
        if self.order.by == Unit.tokens and len(empty):
            within = f" whose `{self.order.within}` is {names[empty[0]]}" if self.order.within else ""
            raise DataError(
                f"no scored record{within} has any tokens",
                remedy="rank --by records, or name the count with --tokens-field",
            )

    @classmethod
    def part(cls, order: Order, sums: "Sums") -> "Quantiles":
        """Those of consecutive records of the file: `next` goes on behind the records before."""
        quantiles = cls(order)
        quantiles.n = sums.n
        quantiles.tokens = sums.tokens
        # Copies: the counts go on from here, and the sums belong to whoever asks.
        quantiles.n_before = sums.n_before.copy()
        quantiles.tokens_before = sums.tokens_before.copy()
        return quantiles

    def next(self, values: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rank and quantile of each of the next records.

        By records the quantile is (rank + 1/2) / N, by tokens (tokens of lower records + half its own) / all
        tokens.
        """
        ranks = _sums_before(values, np.ones_like(tokens), self.n_before)
        if self.order.reverse:
            # The file begins with the highest score, and rank 0 is the lowest.
            ranks = self.n[values] - 1 - ranks
        if self.order.by == Unit.records:
            return ranks, (ranks + 0.5) / self.n[values]
        lower = _sums_before(values, tokens, self.tokens_before)
        if self.order.reverse:
            lower = self.tokens[values] - tokens - lower
        # Doubled above and below: the sums stay integers, and only the division rounds.
        quantiles = (2 * lower + tokens) / (2 * self.tokens[values])
        # Every quantile that is written is one that `slice` reads.
        assert not wrong_quantiles(quantiles, Unit.tokens).size
        return ranks, quantiles

    def check_complete(self) -> None:
        """Raise DataError unless as many records arrived as the trailers promise."""
        expected = self.n.sum()
        came = self.n_before.sum()
        if came != expected:
            fault = f"{expected} scored records were counted, {came} came"
            raise DataError(fault, remedy="rank without --merge")


def _sums_before(values: np.ndarray, amounts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """For each record the sum of the `amounts` of all earlier records of its value.

    `sums` holds the sums of the batches before, and is updated.
    """
    if len(sums) == 1:
        # No `within` field: a running sum, without the sort below, which costs more than all else here.
        before: np.ndarray = np.cumsum(amounts) - amounts + sums
        sums += amounts.sum()
        return before
    # Sorted by value, a running sum minus its value at the first record of the same value.
    order = np.argsort(values, kind="stable")
    running = np.cumsum(amounts[order]) - amounts[order]
    firsts = np.searchsorted(values[order], values[order])
    result: np.ndarray = np.empty_like(running)
    result[order] = running - running[firsts] + sums[values[order]]
    np.add.at(sums, values, amounts)
    return result
