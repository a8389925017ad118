"""What is wrong with a field that no record shows alone? Sums that overflow, fields that none has."""

from itertools import accumulate
from typing import Any

from ..errors import DataError
from .decoder import Batch, Wanted
from .fields import MISSING, Count

# Sums of counts are computed in 64 bits, doubled for the middle of a record's tokens.
LARGEST_SUM = 1 << 62


class FieldChecks:
    """Looks at the batches of a source as they pass.

    `watched` are fields that an option names. Of those that were looked for, `missing` are the ones that no
    record has had so far, and `present` the others.
    """

    def __init__(self, watched: set[str]) -> None:
        self.watched = set(watched)
        self.missing: set[str] = set()
        self.present: set[str] = set()
        self._sums: dict[str, int] = {}

    def take(self, batch: Batch, wanted: Wanted) -> None:
        """Check the next batch. Raises DataError at the record with which the sum of a count is too large."""
        for name in [name for name, kind in wanted.fields.items() if kind == Count]:
            self._add(batch, name)
        for name in [name for name in self.watched if name in wanted.fields]:
            if batch[name].count(MISSING) == len(batch):
                self.missing.add(name)
            else:
                # Seen once is enough: the batches that follow cost nothing.
                self.watched.discard(name)
                self.missing.discard(name)
                self.present.add(name)

    def _add(self, batch: Batch, name: str) -> None:
        before = self._sums.get(name, 0)
        values: list[Any] = batch[name]
        try:
            # Every batch passes here: nothing is done for a single record as long as all have a count.
            total = sum(values)
        except TypeError:
            # None and MISSING are false, and count nothing.
            values = [value or 0 for value in values]
            total = sum(values)
        self._sums[name] = before + int(total)
        if self._sums[name] < LARGEST_SUM:
            return
        sums = accumulate(map(int, values), initial=before)
        index = next(index for index, total in enumerate(sums, -1) if total >= LARGEST_SUM)
        fault = f"the sum of `{name}` is beyond 2^62"
        raise DataError(fault, place=batch.place(index), remedy="are these counts of tokens?")
