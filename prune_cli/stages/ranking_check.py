"""Are these records one ranking? The one definition, which the writer, the checks and the reader share.

A ranking gives each scored record a rank and a quantile. By records the quantile is (rank + 1/2) / N, inside
(0, 1); by tokens it is the middle of the record's tokens, which for a record of 0 tokens at an end is 0 or 1
itself. Along the file ranks only rise, or only fall, and so do quantiles; within the values of a field, for
each value on its own.
"""

from typing import Any, NamedTuple

import numpy as np

from ..errors import DataError
from ..records.decoder import Batch
from ..records.fields import MISSING
from ..settings.streams import Unit


class Fault(NamedTuple):
    """What is wrong, and with which record of the batch."""

    at: int
    text: str


def wrong_quantiles(quantiles: np.ndarray, unit: Unit | None) -> np.ndarray:
    """Indexes of quantiles that no ranking in that unit has; None stands for a unit that nobody knows."""
    has_ends = unit != Unit.records
    valid = ((quantiles > 0) & (quantiles < 1)) | (has_ends & ((quantiles == 0) | (quantiles == 1)))
    # "Not valid" rather than "outside", so that NaN is wrong, too.
    return np.flatnonzero(~valid)


def ranks_of(values: list[Any]) -> np.ndarray:
    """A column of ranks as int64, -1 for records without one. Other tools write ranks as floats (7.0)."""
    return np.array([-1 if value is None or value is MISSING else value for value in values], dtype=np.int64)


class RankCheck:
    """Checks batch after batch that a stream is one ranking.

    N is the number of ranked records, recovered from rank and quantile: a stream that lost its head has it
    still. `n` is N if the head says it; `reverse` is None if nothing says in which direction the ranks run.
    """

    def __init__(self, unit: Unit | None, n: int | None = None, reverse: bool | None = None) -> None:
        self.unit = unit
        # One entry a value of the `within` field: its N (0: not known yet), its last rank (-1: none yet) and
        # quantile.
        self.n = np.array([n or 0])
        self.last = np.array([-1])
        self.last_quantile = np.array([np.nan])
        # The sign of rank differences; 0 until the first difference shows it.
        self.step = {None: 0, False: 1, True: -1}[reverse]

    def first_fault(self, ranks: np.ndarray, quantiles: np.ndarray, codes: np.ndarray) -> Fault | None:
        """The first fault of a batch: ranks (-1 for none), quantiles, codes of `within` values, (n) each."""
        scored = np.flatnonzero(ranks >= 0)
        self._grow(int(codes.max(initial=0)) + 1)
        columns = (ranks[scored], quantiles[scored], codes[scored])
        fault = self._fault(*columns)
        return None if fault is None else Fault(int(scored[fault.at]), fault.text)

    def _fault(self, ranks: np.ndarray, quantiles: np.ndarray, codes: np.ndarray) -> Fault | None:
        wrong = wrong_quantiles(quantiles, self.unit)
        if wrong.size:
            return Fault(int(wrong[0]), "a rank without a quantile between 0 and 1")
        fault = self._fault_of_n(ranks, quantiles, codes) if self.unit == Unit.records else None
        return fault or self._fault_of_steps(ranks, quantiles, codes)

    def _grow(self, values: int) -> None:
        new = values - len(self.n)
        if new > 0:
            self.n = np.append(self.n, np.zeros(new, np.int64))
            self.last = np.append(self.last, np.full(new, -1))
            self.last_quantile = np.append(self.last_quantile, np.full(new, np.nan))

    def _fault_of_n(self, ranks: np.ndarray, quantiles: np.ndarray, codes: np.ndarray) -> Fault | None:
        # quantile = (rank + 1/2) / N. Doubles give N back exactly as long as it is below 2^52; the bound
        # keeps a quantile of 1e-300, which no ranking has, from overflowing the integers.
        n = np.rint(np.minimum((ranks + 0.5) / quantiles, 2.0**62)).astype(np.int64)
        new, firsts = np.unique(codes, return_index=True)
        self.n[new] = np.where(self.n[new], self.n[new], n[firsts])
        wrong = np.flatnonzero(n != self.n[codes])
        if not wrong.size:
            return None
        first = int(wrong[0])
        return Fault(first, f"rank and quantile belong to another N than {self.n[codes[first]]}")

    def _fault_of_steps(self, ranks: np.ndarray, quantiles: np.ndarray, codes: np.ndarray) -> Fault | None:
        # Sorted by value, so that the record before is the one before of the same value.
        order = np.argsort(codes, kind="stable")
        values = codes[order]
        before = _shifted(ranks[order], values, self.last)
        quantiles_before = _shifted(quantiles[order], values, self.last_quantile)
        steps = np.where(before < 0, self.step, np.sign(ranks[order] - before))
        self.step = self.step or int(next(iter(steps[before >= 0]), 0))
        # Records of 0 tokens share a quantile with their neighbours, so only the wrong direction is a fault.
        falls = np.sign(quantiles[order] - quantiles_before) == -self.step
        wrong = np.flatnonzero(((steps != self.step) | (falls & (self.step != 0))) & (before >= 0))
        # Of several records of a value the last one is assigned last, and stays.
        self.last[values] = ranks[order]
        self.last_quantile[values] = quantiles[order]
        if not wrong.size:
            return None
        return Fault(int(order[wrong].min()), "the ranks are out of order")


def _shifted(column: np.ndarray, values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """For each record the number of the record before of its value: `last` if an earlier batch has it."""
    is_first = np.concatenate(([True], values[1:] != values[:-1]))[: len(values)]
    shifted = np.concatenate(([0], column[:-1]))[: len(values)]
    before: np.ndarray = np.where(is_first, last[values], shifted)
    return before


def not_ranked(batch: Batch, index: int, fault: str) -> DataError:
    """The error for a record that cannot follow the ones before in one ranking."""
    return DataError(
        f"{fault}: the input is not one ranking",
        place=batch.place(index),
        remedy="rank all of it again: prune-cli rank (with --merge if it is several rankings)",
    )
