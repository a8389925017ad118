"""The shape of a distribution: its scores at equal steps, enough to draw it."""

import numpy as np

STEPS = 64


class Shape:
    """Takes records in the order of their scores (`reverse`: from the highest on), with the quantile of each."""

    def __init__(self, reverse: bool = False) -> None:
        self.reverse, self.found, self.last = reverse, list[float](), np.nan

    def add(self, scores: np.ndarray, quantiles: np.ndarray) -> None:
        """Records that follow those before."""
        if len(scores):
            passed = np.searchsorted(
                1 - quantiles if self.reverse else quantiles, np.arange(len(self.found), STEPS) / STEPS
            )
            self.found += scores[passed[passed < len(scores)]].tolist()
            self.last = float(scores[-1])

    def value(self) -> list[float] | None:
        """The score at each 64th of the distribution, the ends included, rising; None of no records."""
        if not self.found:
            return None
        rising = [*self.found, *[self.last] * (STEPS + 1 - len(self.found))]
        return [float(f"{score:.6g}") for score in (reversed(rising) if self.reverse else rising)]


def shape_of(scores: np.ndarray, order: np.ndarray) -> list[float] | None:
    """The same of all scores at once, by records; `order` has their places in rising order."""
    if not len(order):
        return None
    n, shape = len(order), Shape()
    picked = np.minimum(np.ceil(np.arange(STEPS + 1) * n / STEPS - 0.5).astype(int), n - 1)
    shape.add(scores[order[picked]], np.arange(STEPS + 1) / STEPS)
    return shape.value()
