"""Where in a hash table of KenLM are many keys? For all of them at once.

An entry is a key of 64 bits and a value. Its place is the key's remainder by the number of places or, if that
is taken, the next free one: linear probing. The key of a free place is 0.
"""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Places = NDArray[np.int64]
Bytes = NDArray[np.uint8]

# How many places are looked at in one step, for keys that are not at their first. Each step doubles it.
SHORTEST_RUN, LONGEST_RUN = 2, 64
ABSENT = -1


class HashTable(ABC):
    """A table in some bytes of a file."""

    entry_bytes: int

    def __init__(self, data: Bytes) -> None:
        self._count = len(data) // self.entry_bytes

    @abstractmethod
    def _keys(self, places: Places) -> Keys:
        """The key at each place. Places behind the last are the first ones again."""

    def find(self, keys: Keys) -> Places:
        """The place of each key, or ABSENT. It may be behind the last place, as `_keys` takes it."""
        count = np.uint64(self._count)
        # numpy divides by one number in half the time in which it finds a remainder.
        places = (keys - keys // count * count).view(np.int64)
        there = self._keys(places)
        others = np.flatnonzero(there != keys)
        rest = others.take(np.flatnonzero(there.take(others)))
        starts, wanted = places.take(rest), keys.take(rest)
        places[others] = ABSENT
        looked_at, run = 1, SHORTEST_RUN
        while len(rest) and looked_at < self._count:
            there = self._keys(starts + np.arange(looked_at, looked_at + run)[:, None])
            # A key behind a free place is another one: no key is in the table twice.
            steps, columns = np.divmod(np.flatnonzero(there == wanted), len(rest))
            places[rest.take(columns)] = starts.take(columns) + looked_at + steps
            goes_on = (there != 0).all(axis=0)
            goes_on[columns] = False
            left = np.flatnonzero(goes_on)
            rest, starts, wanted = rest.take(left), starts.take(left), wanted.take(left)
            looked_at += run
            run = min(2 * run, LONGEST_RUN)
        return places


class TableOf32Bits(HashTable):
    """A table whose values have 32 bits."""

    entry_bytes = 12

    def __init__(self, data: Bytes) -> None:
        super().__init__(data)
        self._cells = data.view("<u4")

    def _keys(self, places: Places) -> Keys:
        low, high = (self._cells.take(3 * places + cell, mode="wrap").astype(np.uint64) for cell in (0, 1))
        return high << np.uint64(32) | low

    def values(self, places: Places) -> NDArray[np.uint32]:
        """The value at each place."""
        return self._cells.take(3 * places + 2, mode="wrap")


class TableOf64Bits(HashTable):
    """A table whose values have 64 bits."""

    entry_bytes = 16

    def __init__(self, data: Bytes) -> None:
        super().__init__(data)
        # Not as numbers: it may begin at any multiple of 4, and numpy would copy all of it for each look-up.
        self._cells = data.view("V8")

    def _keys(self, places: Places) -> Keys:
        return self._cells.take(2 * places, mode="wrap").view(np.uint64)

    def values(self, places: Places) -> NDArray[np.uint64]:
        """The value at each place."""
        return self._cells.take(2 * places + 1, mode="wrap").view(np.uint64)
