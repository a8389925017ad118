"""First stage of a divided ranking: which sorted runs, and which scores, does a part of the input have?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...records.sorting.runs import RunColumns, RunWriter, SortedFile
from ...settings.streams import Reading
from ...statistics.key_histogram import SHIFTS, Histogram
from ...stream.schema import Head
from ...terminal import Progress
from ..divided import InputPortion, ReadCounts
from .order import Order, check_alike
from .quantiles import Quantiles
from .ranking import RowReader, fields_of


@dataclass(frozen=True)
class SortJob:
    """Sort the records of a portion of the input into the file at `path`."""

    portion: InputPortion
    path: str

    @property
    def name(self) -> str:
        """The portion, for messages."""
        return self.portion.name


@dataclass(frozen=True)
class Sorted:
    """What was read and sorted.

    `histogram` is of all keys. `n` and `tokens` count scored records by the values of the `within` field,
    whose names are `values`; without such a field there is one value. `heads` have the file that they were
    in.
    """

    file: SortedFile
    histogram: Histogram
    values: list[Any]
    n: np.ndarray
    tokens: np.ndarray
    groups: list[str]
    nulls: int
    heads: list[tuple[Head | None, str]]
    counts: ReadCounts


@dataclass(frozen=True)
class SortStage:
    """How records are read and sorted. `size` is the memory that a worker sorts in, in bytes."""

    order: Order
    reading: Reading
    watched: tuple[str, ...]
    size: int
    frame: int
    compress: bool
    verb: str = "rank"

    def open(self) -> "SortWorker":
        """A worker."""
        return SortWorker(self)


class SortWorker:
    """Reads and sorts parts of the input."""

    def __init__(self, stage: SortStage) -> None:
        self.stage = stage

    def do(self, job: SortJob, progress: Progress) -> Sorted:
        """Write the sorted file of a job. Raises DataError as `rank` does."""
        stage = self.stage
        order = stage.order
        reader = RowReader(order)
        quantiles = Quantiles(order)
        histograms: list[Histogram] = []
        heads: list[tuple[Head | None, str]] = []
        source = job.portion.open(stage.reading, stage.watched, progress)
        nulls = 0
        with RunWriter(
            job.path,
            stage.size,
            frame=stage.frame,
            compress=stage.compress,
            on_run=lambda columns: histograms.append(_histogram(columns)),
        ) as writer:
            try:
                for batch in source.batches(fields_of(order)):
                    heads += [(head, batch.file) for head in source.heads[len(heads) :]]
                    check_alike(source.heads, batch.file, order)
                    rows = reader.rows(batch)
                    scored = rows[~np.isnan(rows["key"])]
                    quantiles.expect(scored["within"], scored["tokens"])
                    nulls += len(rows) - len(scored)
                    writer.add(batch.text, rows)
            finally:
                source.close()
            file = writer.finish()
        values = max(len(reader.values.names), 1)
        return Sorted(
            file=file,
            histogram=Histogram.sum(histograms),
            values=reader.values.names,
            # The counts grow by doubling: what is beyond the values is not used.
            n=_of_length(quantiles.n, values),
            tokens=_of_length(quantiles.tokens, values),
            groups=reader.groups.names,
            nulls=nulls,
            heads=heads,
            counts=ReadCounts.of(source),
        )


def _histogram(columns: RunColumns) -> Histogram:
    return Histogram.of(columns.keys, amounts_of(columns), SHIFTS[0])


def amounts_of(columns: RunColumns) -> np.ndarray:
    """Records, tokens and bytes of each row: int64 (n, 3)."""
    return np.stack((np.ones_like(columns.tokens), columns.tokens, columns.bytes), axis=-1)


def _of_length(counts: np.ndarray, length: int) -> np.ndarray:
    """The first counts, or zeros for those that never came."""
    result = np.zeros(length, np.int64)
    known = counts[:length]
    result[: len(known)] = known
    return result
