"""Where do scores lie? Histograms of their keys, by the first bits.

Only bins that hold something are kept. Histograms of many files add up to the histogram of all, and a bin
can be refined by more bits, down to single scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Bits that a histogram leaves out, from the coarsest on. The first 24 bits are the sign, the exponent and 12
# of the fraction: bins 0.02 % wide, and at most 28,000 of them where scores are spread as a log-normal.
SHIFTS = (40, 20, 0)
COLUMNS = 3  # of amounts: records, tokens, bytes


@dataclass(frozen=True)
class Histogram:
    """Amounts by the first bits of keys: `prefixes` rise, uint64 (bins); `amounts` are int64 (bins, 3)."""

    prefixes: np.ndarray
    amounts: np.ndarray

    @classmethod
    def empty(cls) -> "Histogram":
        return cls(np.zeros(0, np.uint64), np.zeros((0, COLUMNS), np.int64))

    @classmethod
    def of(cls, keys: np.ndarray, amounts: np.ndarray, shift: int) -> "Histogram":
        """The histogram of rising keys without their last `shift` bits."""
        return cls(keys >> np.uint64(shift), amounts)._summed()

    @classmethod
    def sum(cls, histograms: Sequence["Histogram"]) -> "Histogram":
        """The histogram of all, by the same bits."""
        parts = [*histograms, cls.empty()]
        prefixes = np.concatenate([part.prefixes for part in parts])
        order = np.argsort(prefixes, kind="stable")
        amounts = np.concatenate([part.amounts for part in parts])
        return cls(prefixes[order], amounts[order])._summed()

    def _summed(self) -> "Histogram":
        """The same with one bin for each run of equal prefixes."""
        if not len(self.prefixes):
            return self
        changes = np.flatnonzero(self.prefixes[1:] != self.prefixes[:-1]) + 1
        starts = np.concatenate(([0], changes))
        return Histogram(self.prefixes[starts], np.add.reduceat(self.amounts, starts, axis=0))

    def amounts_of(self, prefixes: np.ndarray) -> np.ndarray:
        """The amounts of these prefixes, zeros for those without a bin: int64 (n, 3)."""
        result = np.zeros((len(prefixes), COLUMNS), np.int64)
        places = np.searchsorted(self.prefixes, prefixes)
        places = np.minimum(places, max(len(self.prefixes) - 1, 0))
        if len(self.prefixes):
            present = self.prefixes[places] == prefixes
            result[present] = self.amounts[places[present]]
        return result


def with_prefix(keys: np.ndarray, prefixes: np.ndarray, shift: int) -> np.ndarray:
    """Whether each key begins with one of these prefixes, which are keys without their last `shift` bits."""
    mask: np.ndarray = np.isin(keys >> np.uint64(shift), prefixes)
    return mask
