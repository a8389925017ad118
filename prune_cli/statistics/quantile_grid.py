"""How scores are distributed: the score at each of 64 equal steps of the distribution, enough to draw it, and
the thresholds at which fractions of it begin.
"""

from typing import Literal

import numpy as np

STEPS = 64
# At which `stat` shows thresholds. Text, because it is what the JSON shows and what `slice --range` takes.
FRACTIONS = ("0", "0.01", "0.05", "0.1", "0.25", "0.3", "0.5", "0.7", "0.75", "0.9", "0.95", "0.99", "1")


class QuantileGrid:
    """Takes records in the order of their scores (with `reverse`, from the highest on), with the quantile of
    each.
    """

    def __init__(self, reverse: bool = False, *, by_tokens: bool = False) -> None:
        self.reverse = reverse
        self.scores: list[float] = []  # at the steps that have been reached
        self.last = np.nan
        self.first = np.nan
        # By records a range keeps ranks from ⌊f·N + ½⌋ on: those whose quantile, (rank + ½)/N, is above f. By
        # tokens it keeps quantiles from f on.
        self.side: Literal["left", "right"] = "left" if by_tokens else "right"
        self.begins: dict[str, float] = {}  # the lowest score so far of the range from each fraction on

    def add(self, scores: np.ndarray, quantiles: np.ndarray) -> None:
        """Add records that follow those before: (n) each."""
        if not len(scores):
            return
        if not self.scores:
            self.first = float(scores[0])
        self._add_thresholds(scores, quantiles)
        rising = 1 - quantiles if self.reverse else quantiles
        steps = np.arange(len(self.scores), STEPS) / STEPS
        reached = np.searchsorted(rising, steps)  # the first record at or above each step that is left
        self.scores += scores[reached[reached < len(scores)]].tolist()
        self.last = float(scores[-1])

    def _add_thresholds(self, scores: np.ndarray, quantiles: np.ndarray) -> None:
        rising = quantiles[::-1] if self.reverse else quantiles
        for fraction in FRACTIONS:
            index = int(np.searchsorted(rising, float(fraction), self.side))
            if index == len(scores):
                continue
            if self.reverse:
                # Scores fall: a later record is lower.
                self.begins[fraction] = float(scores[-1 - index])
            else:
                self.begins.setdefault(fraction, float(scores[index]))

    def thresholds(self) -> dict[str, float]:
        """The score at which the range from each fraction on begins; the highest score where it is empty."""
        highest = self.first if self.reverse else self.last
        return {fraction: self.begins.get(fraction, highest) for fraction in FRACTIONS} if self.scores else {}

    def extend(self, later: "QuantileGrid") -> None:
        """Add the records of another grid, which follow those of this one."""
        if not later.scores:
            return
        if not self.scores:
            self.first = later.first
        self.begins = self.begins | later.begins if self.reverse else later.begins | self.begins
        # It took its first record for the first at every step before: those that are reached stay.
        self.scores += later.scores[len(self.scores) :]
        self.last = later.last

    def value(self) -> list[float] | None:
        """The scores at the 65 ends of the 64 steps, rising, rounded to six digits; None if there are no
        records.
        """
        if not self.scores:
            return None
        grid = [*self.scores, *[self.last] * (STEPS + 1 - len(self.scores))]
        if self.reverse:
            grid.reverse()
        # Adding zero turns -0.0 into 0.0: which of the two comes first depends on the input.
        return [float(f"{score:.6g}") + 0.0 for score in grid]


def grid_of(scores: np.ndarray, order: np.ndarray) -> list[float] | None:
    """The same grid from all scores at once, by records; `order` has their indices in rising order."""
    return grid_at(scores[order[grid_places(len(order))]]) if len(order) else None


def grid_places(n: int) -> np.ndarray:
    """Where the scores of a grid are in the order of `n` scores, which are at least one: int64 (65)."""
    # Record i has quantile (i + ½)/n: the first at or above k/64 is ⌈k·n/64 − ½⌉.
    places = np.ceil(np.arange(STEPS + 1) * n / STEPS - 0.5).astype(int)
    result: np.ndarray = np.minimum(places, n - 1)
    return result


def grid_at(scores: np.ndarray) -> list[float] | None:
    """The grid of scores at these places."""
    grid = QuantileGrid()
    grid.add(scores, np.arange(STEPS + 1) / STEPS)
    return grid.value()
