"""Do the scores of a stream still lie as they did where a cut was measured?

The share inside the cut is compared with the one that was measured. Both are binomial: the thresholds are
those of a sample, too, so the variance is that of two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np

WINDOW = 1 << 17  # scored records that are judged together, so that a stream without end is judged at all
# Standard deviations: without drift one window in 16,000 lies outside.
DEVIATIONS = 4
# Records expected inside, and outside. With fewer the interval, that of a normal distribution, is too short.
ENOUGH = 10


@dataclass(frozen=True)
class ShareCheck:
    """The share of some records that is inside, and the interval in which it was expected."""

    first: int  # number of the first of these records, from 1
    records: int
    inside: int
    expected: float
    low: float
    high: float

    @property
    def share(self) -> float:
        """The share inside."""
        return self.inside / self.records if self.records else self.expected

    @property
    def is_outside(self) -> bool:
        """Whether the share is not in the interval."""
        return not self.low <= self.share <= self.high


def interval(expected: float, measured: int, records: int) -> tuple[float, float]:
    """The shares that are to be expected of so many `records`, where `expected` is that of `measured` ones.

    p ± 4 √(p (1 − p) (1/n + 1/N)); everything from 0 to 1 where the records are too few to say.
    """
    spread = expected * (1 - expected)
    if min(expected, 1 - expected) * min(records, measured) < ENOUGH:
        return 0.0, 1.0
    margin = DEVIATIONS * sqrt(spread * (1 / records + 1 / measured))
    return max(0.0, expected - margin), min(1.0, expected + margin)


class DriftWatch:
    """Counts records inside a cut: in windows, and in all."""

    def __init__(self, expected: float, measured: int) -> None:
        self.expected = expected
        self.measured = measured
        self.records = 0  # of all windows
        self.inside = 0
        self.pending = np.zeros(0, bool)  # of a window that is not full yet
        self.was_outside = False  # the last window

    def add(self, inside: np.ndarray) -> Iterator[ShareCheck]:
        """Count the next scored records, bool (n). A check for each window that leaves the interval.

        A window behind one that is outside, too, is none: a stream that has drifted says so once.
        """
        # Windows end where they do for every size of batches.
        self.pending = np.concatenate((self.pending, inside))
        while len(self.pending) >= WINDOW:
            window, self.pending = self.pending[:WINDOW], self.pending[WINDOW:]
            first = self.records + 1
            self.records += WINDOW
            self.inside += int(window.sum())
            check = self._check(first, WINDOW, int(window.sum()))
            if check.is_outside and not self.was_outside:
                yield check
            self.was_outside = check.is_outside

    def total(self) -> ShareCheck:
        """The check of all records so far."""
        return self._check(1, self.records + len(self.pending), self.inside + int(self.pending.sum()))

    def _check(self, first: int, records: int, inside: int) -> ShareCheck:
        low, high = interval(self.expected, self.measured, records)
        return ShareCheck(first, records, inside, expected=self.expected, low=low, high=high)
