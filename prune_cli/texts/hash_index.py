"""Which number has a hash? A table from 64-bit hashes to numbers from 0, for arrays of hashes at once."""

import numpy as np

from .words import Counts, Hashes

SMALLEST = 1 << 12  # places
FREE = np.uint64((1 << 64) - 1)  # the entry of a place that is free; as a signed number it is -1


class HashIndex:
    """Numbers hashes from 0 in the order in which they are added, by open addressing with linear probing.

    An entry is a hash with its number in place of its low bits, which its place tells: a search reads one
    array. Of two hashes with the same place, the first to be added gets it, so add frequent ones first.

    Two hashes that differ in low bits alone are taken for one where they meet. With n hashes in the table,
    one that was not added is found with a probability of up to 3 n / 2^64; that it equals one is n / 2^64.

    Memory is 24 to 48 bytes a hash. A Python dict takes four times as much, and a call for each hash.
    """

    def __init__(self) -> None:
        self._entries = np.full(SMALLEST, FREE)
        self._hashes = np.zeros(SMALLEST // 2, np.uint64)  # by number
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def numbers(self, hashes: Hashes) -> Counts:
        """The number of each hash; -1 for one that was not added."""
        low = self._low
        wanted = hashes & ~low
        places = (hashes & low).view(np.int64)
        # Where high bits agree, the difference is the number. `take` needs half the time of an index in
        # brackets.
        numbers = self._entries.take(places)
        numbers ^= wanted
        # Those that met another hash look at the next place, until they meet a free one.
        rest = np.flatnonzero(numbers >= low)
        places, wanted, there = places.take(rest), wanted.take(rest), numbers.take(rest)
        numbers[rest] = FREE
        goes_on = np.flatnonzero(there ^ wanted != FREE)
        while len(goes_on):
            rest, wanted = rest.take(goes_on), wanted.take(goes_on)
            places = places.take(goes_on) + 1 & low.view(np.int64)
            there = self._entries.take(places) ^ wanted
            matches = there < low
            numbers[rest[matches]] = there[matches]
            goes_on = np.flatnonzero(~matches & (there ^ wanted != FREE))
        return numbers.view(np.int64)

    def add(self, hashes: Hashes) -> None:
        """Give numbers to hashes that are all different, and have none yet."""
        first = self._count
        self._count += len(hashes)
        # At most half of the places are taken, so that a search ends after two places, on average.
        if self._count > len(self._hashes):
            size = 1 << (2 * self._count).bit_length()
            known = self._hashes[:first]
            self._entries = np.full(size, FREE)
            self._hashes = np.zeros(size // 2, np.uint64)
            self._hashes[:first] = known
            first = 0
        self._hashes[self._count - len(hashes) : self._count] = hashes
        self._put(first)

    @property
    def _low(self) -> np.uint64:
        """The bits of a hash that are its place."""
        return np.uint64(len(self._entries) - 1)

    def _put(self, first: int) -> None:
        """Make entries of the hashes from a number on."""
        low = self._low
        hashes = self._hashes[first : self._count]
        entries = hashes & ~low | np.arange(first, self._count).view(np.uint64)
        places = (hashes & low).view(np.int64)
        # Of several hashes that want the same place, the last one gets it.
        rest = np.arange(len(hashes))[::-1]
        while len(rest):
            free = rest[self._entries[places[rest]] == FREE]
            self._entries[places[free]] = entries[free]
            rest = rest[self._entries[places[rest]] != entries[rest]]
            places[rest] = places[rest] + 1 & low.view(np.int64)
