"""Places in the order of all records: by key, equal keys in the order of the input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LARGEST = (1 << 64) - 1  # key
MANY = 1 << 62  # more records than there are


class Edge(NamedTuple):
    """A place: behind all records with a lower key, and so many with this very key."""

    key: int
    ordinal: int


BEFORE_ALL = Edge(0, 0)
BEHIND_ALL = Edge(LARGEST, MANY)


@dataclass(frozen=True)
class Edges:
    """An edge for each of several groups, or for each of several places: uint64 and int64 (n)."""

    keys: np.ndarray
    ordinals: np.ndarray

    @classmethod
    def of(cls, edges: Sequence[Edge]) -> "Edges":
        """The columns of edges."""
        return cls(
            np.array([edge.key for edge in edges], np.uint64),
            np.array([edge.ordinal for edge in edges], np.int64),
        )

    @classmethod
    def joined(cls, parts: Sequence["Edges"]) -> "Edges":
        """The edges of all parts, one after another."""
        none = cls.of([])
        return cls(
            np.concatenate([none.keys, *(part.keys for part in parts)]),
            np.concatenate([none.ordinals, *(part.ordinals for part in parts)]),
        )

    def __getitem__(self, places: np.ndarray) -> "Edges":
        """Some of them."""
        return Edges(self.keys[places], self.ordinals[places])

    def edge(self, number: int) -> Edge:
        """One of them."""
        return Edge(int(self.keys[number]), int(self.ordinals[number]))

    def splits(self) -> np.ndarray:
        """Which of them may be between two records of one key."""
        mask: np.ndarray = (self.ordinals > 0) & (self.ordinals < MANY)
        return mask
