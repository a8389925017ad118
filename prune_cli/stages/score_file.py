"""Scores that another file holds for the records of a stream, in the same order. Ids are compared."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..errors import DataError
from ..records.reader import MISSING, Batch

REMEDY = "use the scores of this corpus, in its order"


class IdCheck:
    """Holds the ids of a file of scores to those of the records that they belong to."""

    def __init__(self, ids: Iterator[Any], place: str) -> None:
        self.ids = ids
        self.place = place  # the file of scores
        self.records = 0  # that were compared

    def follow(self, batch: Batch) -> None:
        """Compare the next records. Raises DataError at the first whose id is not that of its score."""
        ids = list(islice(self.ids, len(batch)))
        if ids != batch["id"]:
            self._raise_fault(batch, ids)
        self.records += len(batch)

    def finish(self) -> None:
        """Raise DataError if there are scores left when all records are compared."""
        for _ in self.ids:
            raise DataError(f"there are more scores than the {self.records} records", place=self.place)

    def _raise_fault(self, batch: Batch, ids: list[Any]) -> None:
        for index, (ours, theirs) in enumerate(zip(batch["id"], ids, strict=False)):
            number = self.records + index + 1
            if theirs is MISSING and ours is not MISSING:
                fault = f"record {number} of the scores has no id to compare"
                remedy = "write them with `score --only id,FIELD`, such as --only id,random"
                raise DataError(fault, place=batch.place(index), remedy=remedy)
            if ours != theirs:
                fault = f"its id is not that of record {number} of the scores"
                raise DataError(fault, place=batch.place(index), remedy=REMEDY)
        raise DataError("there is no score for it", place=batch.place(len(ids)), remedy=REMEDY)
