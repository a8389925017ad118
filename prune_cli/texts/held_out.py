"""Which word sequences of a text occur in held-out texts?"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from .words import Counts, Hashes, ngrams

# Entries of the filter for each sequence: with eight, at least seven of eight others are turned away by it.
ENTRIES = 8


class HeldOutSequences:
    """The sequences of `n` consecutive words of held-out texts, by their hashes.

    Memory is 16 to 24 bytes for each different sequence. A sequence that is not held out is taken for one
    that is with a probability of 2^-64 times their number: 1e-12 for 10 million.
    """

    def __init__(self, hashes: Hashes, n: int) -> None:
        self.n = n
        # np.unique would build a hash table, in five times the time.
        ordered = np.sort(hashes)
        self._sorted = ordered[np.diff(ordered, prepend=~ordered[:1]) != 0]
        # A binary search takes twenty reads that miss the cache, the filter takes one.
        size = 1 << max(3, (ENTRIES * len(self._sorted) - 1).bit_length())
        self._mask = np.uint64(size - 1)
        self._filter = np.zeros(size, bool)
        self._filter[self._sorted & self._mask] = True

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the sequences, whatever files they come from."""
        return sha256(self._sorted.astype("<u8").tobytes()).hexdigest()

    def counts(self, texts: Sequence[str]) -> tuple[Counts, Counts]:
        """For each text how many sequences of `n` words it has, and how many of them are held out."""
        sequences, sizes = ngrams(texts, self.n)
        ends = np.cumsum(sizes)
        # Prefix sums: how many are held out before each place.
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._contains(sequences))])
        return sizes, before[ends] - before[ends - sizes]

    def _contains(self, sequences: Hashes) -> NDArray[np.bool_]:
        """Which of the sequences are held out."""
        candidates = np.flatnonzero(self._filter[sequences & self._mask])
        places = np.searchsorted(self._sorted, sequences[candidates])
        places[places == len(self._sorted)] = 0
        held_out = np.zeros(len(sequences), bool)
        # Without a sequence the filter has let nothing through, and there is no place to look at.
        if len(candidates):
            held_out[candidates] = self._sorted[places] == sequences[candidates]
        return held_out
