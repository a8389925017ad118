"""What is stored of each document, so that every result can be computed again without the model?

A result file has one record per model, test set and document.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, UsageError
from ...records.reader import MISSING, Anything, Batch, Count, Number, Source, Wanted
from ...settings.eval import Evaluation
from .held_out import HeldOutSet, Item

# Nats over the scored tokens, the number and the bytes of these tokens, words between white space. The
# order is that of the columns of `Measured.numbers`, and that of the fields of a result file.
NUMBERS = ("nll_sum", "n_scored", "n_bytes", "words")
# Hashes that a provenance must have.
HASHES = ("model", "tokenizer", "data")

LABELS = dict.fromkeys(("id", "group", "cluster"), Anything)
FIELDS = {
    "model": str,
    "data": str,
    "document": Count,
    "provenance": dict[str, Any],
    "nll_sum": Number,
    **dict.fromkeys(("n_scored", "n_bytes", "words"), Count),
}


@dataclass(frozen=True)
class Measurement:
    """A model to measure on a test set; `provenance` is what its numbers depend on."""

    model: str
    data: str
    provenance: dict[str, Any]
    items: Sequence[Item]


@dataclass(frozen=True)
class Measured(Measurement):
    """A finished measurement: a row of NUMBERS for each item, NaN where a number is unknown."""

    numbers: NDArray[np.float64]

    @property
    def tokens(self) -> NDArray[np.float64]:
        """The scored tokens of each document."""
        column: NDArray[np.float64] = self.numbers[:, 1]
        return column


class _Rows:
    """The records of one model on one test set, as they are read."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.items: list[Item] = []
        self.rows: list[list[float]] = []

    def add(self, item: Item, numbers: Sequence[float | None], place: str) -> None:
        """Add a document. Raises DataError unless it comes after those before it in the test set."""
        # Two files in the wrong order, or one named twice, would pair documents that are not the same.
        if item.document <= (self.items[-1].document if self.items else 0):
            about = f"{self.measurement.model} on {self.measurement.data}"
            raise DataError(
                f"document {item.document} of {about} does not follow those before",
                place=place,
                remedy="name each file once, in the order it was written in",
            )
        self.items.append(item)
        self.rows.append([math.nan if number is None else number for number in numbers])

    def measured(self) -> Measured:
        numbers = np.array(self.rows, dtype=np.float64)
        return Measured(
            self.measurement.model, self.measurement.data, self.measurement.provenance, self.items, numbers
        )


def read(source: Source) -> list[Measured]:
    """The measurements in a result file.

    Raises DataError if it is no result file, or if the documents of a measurement are out of order.
    """
    measurements: dict[tuple[str, str, str], _Rows] = {}
    for batch in source.batches(Wanted({**FIELDS, **LABELS}, tuple(LABELS))):
        _add(batch, measurements)
    return [rows.measured() for rows in measurements.values()]


def _add(batch: Batch, measurements: dict[tuple[str, str, str], _Rows]) -> None:
    # A batch has columns; documents are checked in order, row by row.
    columns = [batch[name] for name in (*FIELDS, *LABELS)]
    for index, values in enumerate(zip(*columns, strict=True)):
        model, data, document, provenance, *numbers = values[: len(FIELDS)]
        labels = [None if value is MISSING else value for value in values[len(FIELDS) :]]
        place = batch.place(index)
        # One name may stand for a model that was trained again: then its hash tells the two apart.
        key = (model, *_hashes(provenance, place))
        if key not in measurements:
            measurements[key] = _Rows(Measurement(model, data, provenance, ()))
        measurements[key].add(Item(document or 0, *labels), numbers, place)


def _hashes(provenance: dict[str, Any], place: str) -> tuple[str, str]:
    """The hashes of the model and of the test set. Raises DataError if the provenance lacks one."""
    if not all(isinstance(provenance.get(name), str) for name in HASHES):
        raise DataError(
            "`provenance` lacks the hash of the model, its tokenizer or the test set",
            place=place,
            remedy="evaluate again",
        )
    return provenance["model"], provenance["data"]


def of_sets(
    measured: list[Measured], name: str, sets: Sequence[HeldOutSet], evaluation: Evaluation
) -> list[Measured]:
    """The measurements of the result file `name` on these test sets; without any, all of them.

    Raises UsageError if groups or clusters are asked for that the file does not have, DataError if it lacks a
    test set.
    """
    if not sets:
        for measurement in measured:
            # Nothing but the file can say which documents belong together.
            _check_labels(measurement, name, evaluation)
        return measured
    # By hash, not by name: a test set may have moved since it was measured.
    by_hash = {held_out.hash: held_out for held_out in sets}
    chosen = [
        _relabelled(measurement, by_hash[measurement.provenance["data"]])
        for measurement in measured
        if measurement.provenance["data"] in by_hash
    ]
    present = {measurement.data for measurement in chosen}
    missing = [held_out.name for held_out in sets if held_out.name not in present]
    if missing:
        raise DataError(
            f"holds no results on the documents of {missing[0]}",
            place=name,
            remedy="evaluate the models on them, too",
        )
    return chosen


def _check_labels(measurement: Measured, name: str, evaluation: Evaluation) -> None:
    for option in ("group_by", "cluster"):
        field = getattr(evaluation, option)
        if field and measurement.provenance.get(option) != field:
            raise UsageError(
                f"the results of {measurement.model} lack the `{field}` of each document",
                place=name,
                remedy="name the test set with --data, too",
            )


def _relabelled(measurement: Measured, held_out: HeldOutSet) -> Measured:
    """A measurement with the groups and clusters of the test set at hand.

    Raises DataError if it has documents that the test set lacks.
    """
    if measurement.items and measurement.items[-1].document > len(held_out.items):
        raise DataError(
            f"the results of {measurement.model} have documents that the test set lacks",
            place=held_out.name,
            remedy="evaluate it again",
        )
    # `jq` may have selected documents: their numbers say which ones are left.
    items = [held_out.items[item.document - 1] for item in measurement.items]
    return replace(measurement, data=held_out.name, items=items)
