"""Which number has a hash? A table from 64-bit hashes to numbers from 0, for arrays of hashes at once."""

import numpy as np
from numpy.typing import NDArray

from .words import Counts, Hashes

SMALLEST = 1 << 12  # places
FREE = np.uint64(0)  # the hash of a place that is free; a hash of 0 is taken for 1


class HashIndex:
    """Numbers hashes from 0 in the order in which they are added, by open addressing with linear probing.

    Memory is 24 to 48 bytes a hash. A Python dict takes four times as much, and a call for each hash.
    """

    def __init__(self) -> None:
        self._hashes = np.zeros(SMALLEST, np.uint64)
        self._numbers = np.zeros(SMALLEST, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def numbers(self, hashes: Hashes) -> Counts:
        """The number of each hash; -1 for one that was not added."""
        wanted = np.maximum(hashes, np.uint64(1))
        places = self._home(wanted)
        # `take` needs half the time of an index in brackets.
        there = self._hashes.take(places)
        numbers = self._numbers.take(places)
        rest = np.flatnonzero(there != wanted)
        numbers[rest] = -1
        # Those that met another hash look at the next place.
        rest = rest[there[rest] != FREE]
        while len(rest):
            places[rest] = (places[rest] + 1) % len(self._hashes)
            there = self._hashes[places[rest]]
            matches = there == wanted[rest]
            numbers[rest[matches]] = self._numbers[places[rest[matches]]]
            rest = rest[~matches & (there != FREE)]
        return numbers

    def add(self, hashes: Hashes) -> None:
        """Give numbers to hashes that are all different, and have none yet."""
        new = np.maximum(hashes, np.uint64(1))
        # At most half of the places are taken, so that a search ends after two places, on average.
        if 2 * (self._count + len(new)) > len(self._hashes):
            self._grow(2 * (self._count + len(new)))
        self._put(new, np.arange(self._count, self._count + len(new)))
        self._count += len(new)

    def _grow(self, least: int) -> None:
        taken = self._hashes != FREE
        hashes, numbers = self._hashes[taken], self._numbers[taken]
        size = 1 << least.bit_length()
        self._hashes = np.zeros(size, np.uint64)
        self._numbers = np.zeros(size, np.int64)
        self._put(hashes, numbers)

    def _put(self, hashes: Hashes, numbers: Counts) -> None:
        places = self._home(hashes)
        rest = np.arange(len(hashes))
        while len(rest):
            free = rest[self._hashes[places[rest]] == FREE]
            # Of several hashes that want the same place, the last one gets it.
            self._hashes[places[free]] = hashes[free]
            self._numbers[places[free]] = numbers[free]
            rest = rest[self._hashes[places[rest]] != hashes[rest]]
            places[rest] = (places[rest] + 1) % len(self._hashes)

    def _home(self, hashes: Hashes) -> NDArray[np.int64]:
        return (hashes & np.uint64(len(self._hashes) - 1)).view(np.int64)
