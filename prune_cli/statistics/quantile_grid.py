"""How scores are distributed: the score at each of 64 equal steps of the distribution, enough to draw it."""

import numpy as np

STEPS = 64


class QuantileGrid:
    """Takes records in the order of their scores (with `reverse`, from the highest on), with the quantile of
    each.
    """

    def __init__(self, reverse: bool = False) -> None:
        self.reverse = reverse
        self.scores: list[float] = []  # at the steps that have been reached
        self.last = np.nan

    def add(self, scores: np.ndarray, quantiles: np.ndarray) -> None:
        """Add records that follow those before: (n) each."""
        if not len(scores):
            return
        rising = 1 - quantiles if self.reverse else quantiles
        steps = np.arange(len(self.scores), STEPS) / STEPS
        reached = np.searchsorted(rising, steps)  # the first record at or above each step that is left
        self.scores += scores[reached[reached < len(scores)]].tolist()
        self.last = float(scores[-1])

    def extend(self, later: "QuantileGrid") -> None:
        """Add the records of another grid, which follow those of this one."""
        if not later.scores:
            return
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
        return [float(f"{score:.6g}") for score in grid]


def grid_of(scores: np.ndarray, order: np.ndarray) -> list[float] | None:
    """The same grid from all scores at once, by records; `order` has their indices in rising order."""
    n = len(order)
    if not n:
        return None
    # Record i has quantile (i + ½)/n: the first at or above k/64 is ⌈k·n/64 − ½⌉.
    steps = np.arange(STEPS + 1)
    indices = np.minimum(np.ceil(steps * n / STEPS - 0.5).astype(int), n - 1)
    grid = QuantileGrid()
    grid.add(scores[order[indices]], steps / STEPS)
    return grid.value()
