"""Where do scores lie, by group? Fine histograms tell, which do not grow with the number of records.

A bin is 0.02 % wide (12 bits of the fraction of a double), much less than a pixel.
"""

from collections.abc import Sequence

import numpy as np

from ....records.sorting.keys import ordered_keys, scores_of
from ....statistics.key_histogram import SHIFTS, Histogram

SHIFT = SHIFTS[0]
AT_ONCE = 64  # histograms of batches that are kept before they are summed
RECORDS, TOKENS = 0, 1  # columns of amounts


class GroupHistograms:
    """The histogram of one score in each group; a group is a number from -1 (none) on."""

    def __init__(self) -> None:
        self._parts: dict[int, list[Histogram]] = {}

    def add(self, scores: np.ndarray, tokens: np.ndarray, groups: np.ndarray) -> None:
        """Add records: scores (n), NaN for none; their tokens and groups, (n) each."""
        scored = np.flatnonzero(~np.isnan(scores))
        if not len(scored):
            return
        keys = ordered_keys(scores[scored])
        order = np.lexsort((keys, groups[scored]))
        codes = groups[scored][order]
        amounts = np.stack([np.ones(len(order), np.int64), tokens[scored][order], np.zeros_like(order)], 1)
        starts = np.flatnonzero(np.diff(codes, prepend=-2))
        for start, stop in zip(starts, [*starts[1:], len(codes)], strict=True):
            stretch = slice(int(start), int(stop))
            part = Histogram.of(keys[order][stretch], amounts[stretch], SHIFT)
            self._add(int(codes[start]), part)

    def _add(self, group: int, part: Histogram) -> None:
        parts = self._parts.setdefault(group, [])
        parts.append(part)
        if len(parts) >= AT_ONCE:
            parts[:] = [Histogram.sum(parts)]

    def of(self, group: int) -> "Scale":
        """The distribution in one group."""
        return Scale(Histogram.sum(self._parts.get(group, [])))

    def whole(self) -> "Scale":
        """The distribution of all records."""
        return Scale(Histogram.sum([part for parts in self._parts.values() for part in parts]))


class Scale:
    """A distribution along its scores: `scores` rise, (bins); `amounts` are int64 (bins, 3)."""

    def __init__(self, histogram: Histogram) -> None:
        # The middle of a bin stands for its scores: at most 0.01 % from any of them.
        low = scores_of(histogram.prefixes << np.uint64(SHIFT))
        high = scores_of((histogram.prefixes << np.uint64(SHIFT)) | np.uint64((1 << SHIFT) - 1))
        self.scores = low / 2 + high / 2
        # A bin of whole numbers or of zeros holds nothing but its lower end, most likely.
        self.scores[low == np.rint(low)] = low[low == np.rint(low)]
        self.amounts = histogram.amounts

    def total(self, column: int) -> int:
        """The records, or tokens, of all bins."""
        return int(self.amounts[:, column].sum())

    def quantiles(self, fractions: Sequence[float], column: int) -> list[float]:
        """The scores below which so much of the distribution lies; empty without any."""
        if not len(self.scores):
            return []
        ends = np.cumsum(self.amounts[:, column])
        places = np.searchsorted(ends, np.array(fractions) * ends[-1])
        return [float(score) for score in self.scores[np.minimum(places, len(ends) - 1)]]

    def between(self, edges: np.ndarray, column: int) -> np.ndarray:
        """Amounts between neighbouring edges, int64 (edges - 1); the outermost take all beyond them."""
        places = np.searchsorted(edges, self.scores, side="right") - 1
        sums = np.zeros(len(edges) - 1, np.int64)
        np.add.at(sums, np.clip(places, 0, len(edges) - 2), self.amounts[:, column])
        return sums
