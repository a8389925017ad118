"""Where did the records go? Records and tokens that were kept, cut or are unscored, in total and by group."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ...stream.writer import GROUPS

# Fates of a record, and the rows of the table below. Unscored records that --keep-unscored keeps are KEPT.
FATES = ("kept", "cut", "unscored")
KEPT, CUT, UNSCORED = range(3)


class Amount(NamedTuple):
    """A number of records, and of their tokens."""

    records: int
    tokens: int


Amounts = dict[str, Amount]  # by fate


class FateCounts:
    """Counts records and tokens by fate and group.

    Every record has one fate, so in = kept + cut + unscored.
    """

    def __init__(self) -> None:
        # Fate × group × (records, tokens). The last group stands for records without one, so index -1 finds
        # it.
        self.table = np.zeros((len(FATES), 1, 2), np.int64)
        self.names: list[str] = []
        self.codes: dict[str, int] = {}

    def add(self, fates: np.ndarray, groups: np.ndarray, names: list[str], tokens: np.ndarray) -> None:
        """Count records: for each its fate, its group as a place in `names` (-1 for none), and its tokens."""
        codes = np.array([*map(self._code, names), -1], np.int64)[groups]
        # np.add.at, because `table[fates, codes] += 1` would count equal pairs only once.
        np.add.at(self.table, (fates, codes), np.stack((np.ones_like(tokens), tokens), -1))

    def add_frame(self, fate: int, amount: Amount, groups: dict[str, tuple[int, int]]) -> None:
        """Count a frame of one fate by its line of the trailer."""
        for name, counts in groups.items():
            code = self._code(name)  # on a line of its own: it can replace the table
            self.table[fate, code] += counts
        grouped = np.sum([*groups.values(), (0, 0)], axis=0)
        self.table[fate, -1] += np.array(amount) - grouped

    def add_all(self, other: "FateCounts") -> None:
        """Add all that another has counted."""
        for name, code in other.codes.items():
            own = self._code(name)  # on a line of its own: it can replace the table
            self.table[:, own] += other.table[:, code]
        self.table[:, -1] += other.table[:, -1]

    def names_among(self, fates: Sequence[int]) -> list[str]:
        """The groups that have records of these fates; all of them if they are too many for a trailer."""
        if len(self.names) > GROUPS:
            return self.names
        records = self.table[list(fates), :, 0].sum(axis=0).tolist()
        return [name for name in self.names if records[self.codes[name]]]

    def _code(self, name: str) -> int:
        if name not in self.codes:
            self.codes[name] = len(self.names)
            self.names.append(name)
            self.table = np.insert(self.table, -1, 0, axis=1)
        return self.codes[name]

    def check(self, records: int) -> None:
        """Raise AssertionError, which is reported as a bug, unless every record is counted once."""
        if self.table[..., 0].sum() != records:
            by_fate = self.table.sum(1)[:, 0].tolist()
            raise AssertionError(f"{records} records were read, but {by_fate} are kept, cut and unscored")

    def total(self) -> Amounts:
        """The counts of all records."""
        return _amounts(self.table.sum(1))

    def by_group(self) -> dict[str, Amounts]:
        """The counts by group, "" for records without one. Empty without groups, and with too many."""
        # More groups than a trailer counts: the field is an id rather than a source.
        if not self.names or len(self.names) > GROUPS:
            return {}
        groups = {name: _amounts(self.table[:, code]) for name, code in sorted(self.codes.items())}
        if self.table[:, -1].any():
            groups[""] = _amounts(self.table[:, -1])
        return groups


def _amounts(table: np.ndarray) -> Amounts:
    return {fate: Amount(*row) for fate, row in zip(FATES, table.tolist(), strict=True)}
